"""The `explore` command: a whole run in the browser."""

from contextlib import suppress
from typing import Annotated

import typer

from ._app import say, say_left_out
from ._options import RunPath


def explore(
    run: RunPath,
    host: Annotated[
        str, typer.Option(help="Address to listen at; by default only this machine can connect.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8050,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Explore a whole run in the browser. Each view is computed on request; Ctrl-C stops the server."""
    from ..store import open_run

    opened = open_run(run)
    opened.resolve(snapshot=0)
    say("loading the explorer")
    from ..explore import LOOPBACK, serve
    from ..report.content import part_to_show

    say_left_out(part_to_show(opened).left_out.lines)

    def ready(address: str) -> None:
        if host not in LOOPBACK:
            say(f"Everybody who can reach {host} can read this run.", style="yellow")
        say(f"Exploring {opened.path} at {address}; end with Ctrl-C.")

    with suppress(KeyboardInterrupt):
        serve(opened, host=host, port=port, open_browser=browser, ready=ready)
    say("Stopped.")
    raise typer.Exit(130)
