"""The `plot` command: one picture of a run, still or animated."""

from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._app import say
from ._options import NumberOfClusters, OneLayer, RandomState, Rows, RunPath, View, local_output, one_layer
from ._pictures import OF_THE_RUN, Asked, Picture, draw_animation, draw_still
from ._save_picture import save_animation, save_still


class Order(StrEnum):
    """How `grid` orders channels."""

    by_index = "index"
    by_activity = "activity"
    by_cluster = "cluster"


class Ranking(StrEnum):
    """How `top_images` ranks images."""

    by_max = "max"
    by_mean = "mean"
    by_relevance = "relevance"


STILL = (".png", ".svg", ".pdf")
MOVING = (".gif", ".mp4")
ANIMATED = (Picture.embedding, Picture.channel_grid)
DPI = {"still": 150, "moving": 100}


def picture_named(name: str) -> Picture:
    """Return the picture of a name; `grid` is short for `channel_grid`."""
    try:
        return Picture("channel_grid" if name == "grid" else name)
    except ValueError:
        near = get_close_matches(name, [each.value for each in Picture], n=1)
        meant = f"did you mean {near[0]}? The others are" if near else "expected one of"
        rest = ", ".join(each for each in Picture if each not in near)
        raise typer.BadParameter(f"{name!r} is not a picture; {meant} {rest}") from None


def plot(
    run: RunPath,
    picture: Annotated[
        Picture,
        typer.Argument(parser=picture_named, show_choices=False, help="One of " + ", ".join(Picture) + "."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            callback=local_output,
            help="A .png, .svg or .pdf file; for embedding and channel_grid also .gif or .mp4.",
        ),
    ],
    layers: OneLayer = None,
    epoch: Annotated[int | None, typer.Option(help="Which epoch; the last by default.")] = None,
    sample: Annotated[
        int | None,
        typer.Option(help="Which sample, by index in the data set; by default the first that is finite."),
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Which channels, such as 0-15 or 3,7,9; by default all, or the most active.")
    ] = None,
    order: Annotated[Order, typer.Option(help="Order of the channels in a grid.")] = Order.by_index,
    by: Annotated[
        Ranking, typer.Option(help="What ranks the images in top_images; relevance needs recorded gradients.")
    ] = Ranking.by_max,
    min_drift: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="For trajectories: only channels whose drift, as diagnose measures it, is larger."
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", help="For metrics: the name of one; may be repeated. All by default."),
    ] = None,
    view: View = "channel",
    clusters: NumberOfClusters = 8,
    rows: Rows = None,
    random_state: RandomState = 0,
    dpi: Annotated[
        int | None, typer.Option(min=10, max=2400, help="Dots per inch; by default 150, and 100 for an animation.")
    ] = None,
) -> None:
    """Draw one picture of a run. It can be animated from snapshot to snapshot."""
    from ..store import open_run

    opened = open_run(run)
    opened.resolve(snapshot=0)
    _check_output(output, picture)
    of_the_run = picture in OF_THE_RUN and not layers
    layer = None if of_the_run else one_layer(opened, layers, needed_by=picture.value)
    asked = Asked(
        run=opened,
        picture=picture,
        layer=layer,
        epoch=epoch,
        sample=sample,
        channels=_numbers(channels),
        order=order.value,
        by=by.value,
        min_drift=min_drift,
        metrics=metrics,
        view=view,
        clusters=clusters,
        rows=rows,
        random_state=random_state,
    )
    if output.suffix.lower() in MOVING:
        if epoch is not None:
            raise ValueError(
                f"received --epoch {epoch} for {output.name}; an animation shows all epochs: leave out --epoch"
            )
        save_animation(draw_animation(asked), output, dpi=dpi or DPI["moving"])
    else:
        save_still(draw_still(asked), output, dpi=dpi or DPI["still"])
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
            expected += f", or, as an animation, in {' or '.join(MOVING)}"
        elif suffix in MOVING:
            expected += f": {picture.value} cannot be animated, as {' and '.join(each.value for each in ANIMATED)} can"
        raise ValueError(f"cannot write {output.name}; expected {expected}")
    if suffix == ".mp4":
        from matplotlib.animation import writers

        if not writers.is_available("ffmpeg"):
            raise ValueError(f"cannot write {output.name} without ffmpeg: install ffmpeg, or write a .gif")


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
