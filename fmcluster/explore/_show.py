"""Explorer in a notebook: shown in a cell."""

import threading
from dataclasses import dataclass, field
from html import escape

from ..store import Run
from ._bounded_server import BoundedServer
from ._serve import build_app, refuse_others


@dataclass(frozen=True)
class ShownExplorer:
    """An explorer that is served as long as this process runs, or until `stop`; a notebook shows it in the cell.

    Attributes
    ----------
    address : str
        Where it is served, to this machine alone.
    height : int
        Of its frame, in pixels.
    """

    address: str
    height: int
    _server: BoundedServer = field(repr=False, compare=False)

    def stop(self) -> None:
        """End the server; the frame then answers no more."""
        self._server.shutdown()
        self._server.server_close()

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="the explorer" src="{escape(self.address)}" '
            f'style="width: 100%; height: {self.height}px; border: 1px solid #8888; border-radius: 6px"></iframe>'
        )


def show(run: Run, *, height: int = 900) -> ShownExplorer:
    """Open the explorer of a run in the cell of a notebook, whose kernel runs on the machine of the browser.

    Parameters
    ----------
    run : Run
        Made by `open_run`, with one snapshot at least.
    height : int
        Of the frame, in pixels.

    Returns
    -------
    ShownExplorer
        What the cell shows; it has to be the cell's last expression.

    Raises
    ------
    TypeError
        If `run` is something else.
    StoreError
        If the run has no snapshot yet.
    ValueError
        If no layer is finite at any snapshot.
    """
    app = build_app(run)
    refuse_others(app.server)
    server = BoundedServer("127.0.0.1", port=0, app=app.server)
    threading.Thread(target=server.serve_forever, name="fmcluster explorer", daemon=True).start()
    return ShownExplorer(f"http://127.0.0.1:{server.server_port}/", height, server)
