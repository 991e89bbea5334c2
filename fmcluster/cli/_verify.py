"""The `verify` command: every chunk of a run read, and its checksum compared."""

import typer

from ._app import bars, say
from ._options import RunPath


def verify(run: RunPath) -> None:
    """Check every chunk against its checksum. The exit code is 1 where anything is damaged."""
    from ..store import open_run
    from ..store import verify as check

    opened = open_run(run)
    with bars() as progress:
        task = progress.add_task("reading")
        damage = check(opened, progress=lambda done, total: progress.update(task, completed=done, total=total))
    for line in damage:
        say(line, style="red")
    if damage:
        say(f"{len(damage)} of the run's files are damaged.")
        raise typer.Exit(1)
    say(f"{opened.path}: {len(opened)} snapshots, every checksum is right.")
