"""The `compare` command: runs on one probe set, side by side, as a page or a picture."""

from pathlib import Path
from typing import Annotated

import typer

from ._app import say, say_left_out, status
from ._options import AllLayers, RandomState, RunPath, local_output, matching_layers
from ._save_picture import save_still
from ._scheduler import Scheduler, seen_by_workers, workers_of

PICTURES = (".png", ".svg", ".pdf")


def compare(
    run: RunPath,
    others: Annotated[list[str], typer.Argument(help="The runs to compare it with, of the same probe set.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", callback=local_output, help="An .html page, or a picture alone: .png, .svg or .pdf."
        ),
    ] = Path("comparison.html"),
    layers: AllLayers = None,
    random_state: RandomState = 0,
    scheduler: Scheduler = None,
) -> None:
    """Compare runs that saw the same probe. Says how similar each layer is, which channels match, and the metrics."""
    from .. import analysis
    from ..store import open_run

    suffix = output.suffix.lower()
    if suffix not in (".html", *PICTURES):
        raise ValueError(f"cannot write {output.name}; expected a file that ends in .html, {', '.join(PICTURES)}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"cannot write {output}: there is no folder {output.parent}")
    opened = [open_run(seen_by_workers(path, scheduler=scheduler)) for path in (run, *others)]
    with workers_of(scheduler) as executor, status(f"comparing {len(opened)} runs"):
        found = analysis.compare(
            opened[0],
            opened[1:],
            layers=matching_layers(opened[0], layers),
            random_state=random_state,
            executor=executor,
        )
        if suffix == ".html":
            from ..report import write_comparison

            write_comparison(found, output)
        else:
            from .. import plot

            save_still(plot.compare(found), output, dpi=150, tight=False)
    say_left_out(found.left_out)
    say(f"The comparison of {len(opened)} runs is in {output.resolve()}")
