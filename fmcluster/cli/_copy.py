"""The `copy` command: a run's whole snapshots, sent into an object store."""

from typing import Annotated

import typer

from ._app import bars, say
from ._options import RunPath


def copy(run: RunPath, url: Annotated[str, typer.Argument(help="Where to, such as s3://bucket/run.zarr.")]) -> None:
    """Copy a run into an object store. Files that are there already are not sent again; snapshots show up last."""
    from ..store import copy_run

    with bars() as progress:
        task = progress.add_task("copying")
        copied = copy_run(run, url, progress=lambda done, total: progress.update(task, completed=done, total=total))
    say(
        f"{copied.url}: {copied.n_snapshots} snapshots. {copied.n_files} files were sent "
        f"({copied.nbytes / 1e6:,.1f} MB), {copied.n_there} lay there already."
    )
