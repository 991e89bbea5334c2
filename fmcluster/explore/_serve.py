"""Server of the explorer: the page, for this machine."""

import errno
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import urlsplit

from dash import Dash
from flask import Flask, Response, abort, request
from werkzeug.exceptions import HTTPException

from ..report.content import term_source
from ..store import Run, open_run
from ._bounded_server import LARGEST, BoundedServer
from ._callbacks import connect
from ._page import page
from ._questions import ReportOf
from ._worker import Worker

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # names of this machine that lead nowhere else
OTHERS = ("cross-site", "same-site")  # as browsers say it: of another host, and of another port of this one


def build_app(run: Run) -> Dash:
    """Return the explorer of a run as a Dash application, which any WSGI server can serve (its `server`).

    Parameters
    ----------
    run : Run
        Made by `open_run`, with one snapshot at least.

    Returns
    -------
    dash.Dash
        Its page loads nothing from elsewhere.

    Raises
    ------
    TypeError
        If `run` is something else.
    StoreError
        If the run has no snapshot yet.
    ValueError
        If no layer is finite at any snapshot.
    """
    if not isinstance(run, Run):
        raise TypeError(f"build_app received a {type(run).__name__}; expected a Run, made by open_run(path)")
    run.resolve(snapshot=0)
    app = Dash(
        __name__,
        assets_folder=str(Path(__file__).parent / "assets"),
        title=f"{run.path.rstrip('/').rpartition('/')[2]} - fmcluster",
        update_title="",
        serve_locally=True,
        compress=False,
        on_error=_unanswered,
    )
    app.server.register_error_handler(Exception, _refused)
    style, script = (term_source(suffix) for suffix in ("css", "js"))
    app.index_string = (
        app.index_string.replace("<html>", '<html lang="en">')
        .replace("</head>", f"<style>{style}</style></head>")
        .replace("</body>", f"<script>{script}</script></body>")
    )
    worker = Worker(run)
    app.layout = lambda: page(worker.run, worker.shown)
    connect(app, worker)

    def report() -> Response:
        page = worker.answer(ReportOf())
        if page is None:
            return Response(
                "This report is not written yet; the explorer has a button for it.", 404, mimetype="text/plain"
            )
        return Response(page, mimetype="text/html")

    app.server.add_url_rule("/report.html", view_func=report)
    return app


def _unanswered(error: Exception) -> None:
    """Say in one line why a request was not answered; what stands on the page stays."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    sys.stderr.write(f"fmcluster explore could not answer: {text.encode('ascii', 'backslashreplace').decode()}\n")


def _refused(error: Exception) -> Response | HTTPException:
    """Answer a request that is none of the page's."""
    if isinstance(error, HTTPException):
        return error
    _unanswered(error)
    return Response("This is no request that the explorer knows.", 400, mimetype="text/plain")


def refuse_others(server: Flask, *, hosts: Collection[str] | None = LOOPBACK) -> None:
    """Refuse what a page of somebody else asks for: one whose name leads here, and one that is open beside this one.

    Parameters
    ----------
    server : Flask
        Serves the explorer.
    hosts : collection of str, optional
        The names under which it may be asked; None: all.
    """
    server.config["MAX_CONTENT_LENGTH"] = LARGEST

    @server.before_request
    def refuse() -> None:
        try:
            own = urlsplit(f"//{request.headers.get('Host', '')}")
            origin = request.headers.get("Origin")
            asks = own if origin is None else urlsplit(origin)
            fits = hosts is None or own.hostname in hosts
            fits = fits and (asks.hostname, asks.port) == (own.hostname, own.port)
        except ValueError:  # of what is no address
            fits = False
        if not fits or (request.headers.get("Sec-Fetch-Site") in OTHERS and request.path != "/"):
            abort(403)  # a link of another page may lead to this one, and to nothing else
        if "Transfer-Encoding" in request.headers:  # of chunks, which need have no end; browsers send none
            abort(411)


def refuse_frames(server: Flask) -> None:
    """Let no page of somebody else show this one in a frame, where clicks could be led astray."""

    @server.after_request
    def refuse(answer: Response) -> Response:
        answer.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer


def _check_free(host: str, port: int) -> None:
    """Refuse a port that somebody listens at; werkzeug would end the process."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = f"port {port} of {host} is in use; choose another with --port (0: any that is free)"
            else:
                why = f"cannot listen at {host}: {error.strerror}; expected an address of this machine"
            raise OSError(why) from error


def serve(
    run: Run | str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8050,
    open_browser: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the explorer of a run until the process is interrupted.

    Parameters
    ----------
    run : Run or path-like
        The run, or where it is.
    host : str
        The address to listen at. Everybody who reaches it can read the run: leave it at the loopback address unless
        that is what you want.
    port : int
        Its port; 0 for any that is free.
    open_browser : bool
        Whether to show the page in the browser of this machine.
    ready : callable, optional
        Called with the page's address once it is served.

    Raises
    ------
    OSError
        If the port is in use, or the address is not this machine's.
    ValueError
        If there is no such port.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port is {port}; expected a number from 0 to 65535")
    app = build_app(run if isinstance(run, Run) else open_run(run))
    refuse_others(app.server, hosts=LOOPBACK if host in LOOPBACK else None)
    refuse_frames(app.server)
    _check_free(host, port)
    server = BoundedServer(host, port=port, app=app.server)
    address = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/"
    if ready is not None:
        ready(address)
    if open_browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    try:
        server.serve_forever()
    finally:
        server.server_close()
