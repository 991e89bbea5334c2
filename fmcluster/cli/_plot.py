"""The command that draws a picture of a run."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._analyze import NumberOfClusters, Rows, Seed, View
from ._app import bars, console, say
from ._info import RunPath
from ._pictures import OF_THE_RUN, Asked, Picture, draw_animation, draw_still

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure


class Order(StrEnum):
    """How `grid` orders channels."""

    by_index = "index"
    by_activity = "activity"
    by_cluster = "cluster"


STILL = (".png", ".svg", ".pdf")
MOVING = (".gif", ".mp4")
ANIMATED = (Picture.embedding, Picture.grid)
DPI = {"still": 150, "moving": 100}


def plot(
    run: RunPath,
    picture: Annotated[Picture, typer.Argument(help="What to draw.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="A .png, .svg or .pdf file; of embedding and grid .gif or .mp4, too.")
    ],
    layer: Annotated[str | None, typer.Option(help="Which layer; what is of the whole run needs none.")] = None,
    epoch: Annotated[int | None, typer.Option(help="Which epoch; the last by default.")] = None,
    sample: Annotated[int, typer.Option(help="Which sample, by its index in the data set.")] = 0,
    channels: Annotated[str | None, typer.Option(help="Such as 0-15 or 3,7,9; all, or the most active.")] = None,
    order: Annotated[Order, typer.Option(help="Of the channels in a grid.")] = Order.by_index,
    floor: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of trajectories: only channels that drifted farther, as diagnose has it."),
    ] = None,
    view: View = "channel",
    clusters: NumberOfClusters = 8,
    rows: Rows = None,
    seed: Seed = 0,
    dpi: Annotated[
        int | None, typer.Option(min=10, max=2400, help="Dots per inch; 150, or 100 of an animation.")
    ] = None,
) -> None:
    """Draw one picture of a run, or let it move from snapshot to snapshot."""
    from ..store import open_run

    opened = open_run(run)
    opened.resolve(snapshot=0)
    _check_output(output, picture)
    if picture not in OF_THE_RUN and layer is None:
        raise ValueError(f"{picture.value} needs a layer: pass --layer with one of {', '.join(opened.layers)}")
    asked = Asked(
        run=opened,
        picture=picture,
        layer=layer,
        epoch=epoch,
        sample=sample,
        channels=_numbers(channels),
        order=order.value,
        floor=floor,
        view=view,
        clusters=clusters,
        rows=rows,
        seed=seed,
    )
    if output.suffix.lower() in MOVING:
        if epoch is not None:
            raise ValueError(f"received --epoch {epoch} for {output.name}; an animation shows all: leave --epoch out")
        _save_animation(draw_animation(asked), output, dpi=dpi or DPI["moving"])
    else:
        _save_still(draw_still(asked), output, dpi=dpi or DPI["still"])
    say(f"Drawn in {output}")


def _check_output(output: Path, picture: Picture) -> None:
    """Raise where a picture cannot be written to a file of this name, before anything is computed."""
    if not output.parent.is_dir():
        raise FileNotFoundError(f"cannot write {output}: there is no folder {output.parent}")
    suffix = output.suffix.lower()
    allowed = [*STILL, *MOVING] if picture in ANIMATED else list(STILL)
    if suffix not in allowed:
        expected = f"a file that ends in {', '.join(STILL[:-1])} or {STILL[-1]}"
        if picture in ANIMATED:
            expected += f", or, to see it move, in {' or '.join(MOVING)}"
        elif suffix in MOVING:
            expected += f": {picture.value} does not move, as {' and '.join(each.value for each in ANIMATED)} do"
        raise ValueError(f"cannot write {output.name}; expected {expected}")
    if suffix == ".mp4":
        from matplotlib.animation import writers

        if not writers.is_available("ffmpeg"):
            raise ValueError(f"cannot write {output.name} without ffmpeg: install ffmpeg, or write a .gif")


def _save_still(figure: "Figure", output: Path, *, dpi: int) -> None:
    with console.status(f"writing {output.name}"):
        figure.savefig(output, dpi=dpi, bbox_inches="tight")


def _save_animation(animation: "FuncAnimation", output: Path, *, dpi: int) -> None:
    writer = "ffmpeg" if output.suffix.lower() == ".mp4" else "pillow"
    with bars() as progress:
        task = progress.add_task(f"writing {output.name}", total=None)
        animation.save(
            output,
            writer=writer,
            dpi=dpi,
            progress_callback=lambda done, total: progress.update(task, completed=done + 1, total=total),
        )


def _numbers(text: str | None) -> list[int] | None:
    """Read 0-3,7 as [0, 1, 2, 3, 7]."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"cannot read the channels {text!r}; expected something like 0-15 or 3,7,9")
        numbers.extend(range(int(first), int(last if dash else first) + 1))
    return numbers
