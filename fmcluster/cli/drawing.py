"""The command that draws a picture of a run."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import console, say
from .reading import RunPath
from .studying import NumberOfClusters, Rows, Seed, View, study_layer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..store import Run


class Picture(StrEnum):
    """What `plot` can draw."""

    grid = "grid"
    evolution = "evolution"
    statistics = "statistics"
    exemplars = "exemplars"
    embedding = "embedding"
    trajectories = "trajectories"
    flow = "flow"
    lifelines = "lifelines"
    churn = "churn"
    quality = "quality"
    places = "places"
    variance = "variance"
    drift = "drift"
    similarity = "similarity"
    settling = "settling"
    channels = "channels"
    metrics = "metrics"


class Order(StrEnum):
    """How `grid` orders channels."""

    by_index = "index"
    by_activity = "activity"
    by_cluster = "cluster"


_OF_THE_RUN = (Picture.metrics, Picture.similarity, Picture.settling, Picture.channels)


def plot(
    run: RunPath,
    picture: Annotated[Picture, typer.Argument(help="What to draw.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .png, .svg or .pdf file.")],
    layer: Annotated[str | None, typer.Option(help="Which layer; what is of the whole run needs none.")] = None,
    epoch: Annotated[int | None, typer.Option(help="Which epoch; the last by default.")] = None,
    sample: Annotated[int, typer.Option(help="Which sample, by its index in the data set.")] = 0,
    channels: Annotated[str | None, typer.Option(help="Such as 0-15 or 3,7,9; all, or the most active.")] = None,
    order: Annotated[Order, typer.Option(help="Of the channels in a grid.")] = Order.by_index,
    view: View = "channel",
    clusters: NumberOfClusters = 8,
    rows: Rows = None,
    seed: Seed = 0,
    dpi: Annotated[int, typer.Option(min=10, max=2400, help="Dots per inch of a PNG.")] = 150,
) -> None:
    """Draw one picture of a run."""
    from ..store import open_run

    opened = open_run(run)
    opened.resolve(snapshot=0)
    if not output.parent.is_dir():
        raise FileNotFoundError(f"cannot write {output}: there is no folder {output.parent}")
    if output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"cannot write {output.name}; expected a file that ends in .png, .svg or .pdf")
    if picture not in _OF_THE_RUN and layer is None:
        raise ValueError(f"{picture.value} needs a layer: pass --layer with one of {', '.join(opened.layers)}")
    figure = _draw(
        opened,
        picture,
        layer=layer,
        epoch=epoch,
        sample=sample,
        channels=_numbers(channels),
        order=order,
        view=view,
        clusters=clusters,
        rows=rows,
        seed=seed,
    )
    figure.savefig(output, dpi=dpi, bbox_inches="tight")
    say(f"Drawn in {output}")


def _draw(
    run: "Run",
    picture: Picture,
    *,
    layer: str | None,
    epoch: int | None,
    sample: int,
    channels: list[int] | None,
    order: Order,
    view: str,
    clusters: int,
    rows: int | None,
    seed: int,
) -> "Figure":
    from .. import plot as pictures

    if picture in _OF_THE_RUN or layer is None:
        return _figure_of(_draw_run(run, picture, layer=layer, epoch=epoch))
    if picture is Picture.grid:
        groups = None
        if order is Order.by_cluster:
            groups = study_layer(
                run, layer, view="channel", clusters=clusters, components=50, rows=None, seed=seed
            ).clusters
        return pictures.channel_grid(
            run[layer], epoch=epoch, sample=sample, channels=channels, order=order.value, clusters=groups
        )
    if picture is Picture.evolution:
        return pictures.channel_evolution(run[layer], sample=sample, channels=channels)
    if picture is Picture.statistics:
        return pictures.statistics(run[layer])
    if picture in (Picture.exemplars, Picture.places, Picture.variance, Picture.drift):
        return _draw_layer(
            run, picture, layer, sample=sample, channels=channels, view=view, clusters=clusters, rows=rows, seed=seed
        )
    found = study_layer(run, layer, view=view, clusters=clusters, components=50, rows=rows, seed=seed)
    if picture is Picture.embedding:
        return pictures.embedding_grid(found.embedding, found.clusters)
    if picture is Picture.trajectories:
        return _figure_of(pictures.trajectories(found.embedding, found.clusters))
    if picture is Picture.quality:
        from .. import analysis

        known = "label" in run.samples and found.clusters.identity == ["sample"]
        measured = analysis.quality(
            found.clusters, found.scores, classes=run.samples["label"] if known else None, random_state=seed
        )
        measures = ("silhouette", "nmi", "knn_accuracy") if known else ("silhouette",)
        return _figure_of(pictures.quality(measured, measures=measures))
    draw = {Picture.flow: pictures.flow, Picture.lifelines: pictures.lifelines, Picture.churn: pictures.churn}[picture]
    return _figure_of(draw(found.history))


def _draw_run(run: "Run", picture: Picture, *, layer: str | None, epoch: int | None) -> "Axes":
    """Draw what is of all layers, or of one against itself."""
    from .. import plot as pictures

    if picture is Picture.metrics:
        return pictures.metrics(run.metrics)
    with console.status(f"reading {len(run.layers)} layers"):
        from .. import analysis

        if picture is Picture.similarity:
            found = analysis.similarity(run, layers=None if layer is None else [layer])
            at = None if epoch is None else run.resolve(epoch=epoch)
            return pictures.similarity(found, layer=layer, snapshot=at)
        findings = analysis.diagnose(run)
    if picture is Picture.settling:
        return pictures.settling(findings)
    return pictures.channels_per_layer(findings, epoch=epoch)


def _draw_layer(
    run: "Run",
    picture: Picture,
    layer: str,
    *,
    sample: int,
    channels: list[int] | None,
    view: str,
    clusters: int,
    rows: int | None,
    seed: int,
) -> "Figure":
    """Draw what is of one layer, without a map."""
    from .. import analysis
    from .. import plot as pictures

    if picture is Picture.exemplars:
        return pictures.exemplars(analysis.exemplars(run[layer], channels=channels), run[layer], channels=channels)
    if picture is Picture.drift:
        return _figure_of(pictures.drift(analysis.diagnose(run, layers=[layer]), layer))
    if picture is Picture.variance:
        return _figure_of(
            pictures.explained_variance(analysis.pca(run[layer].vectors(view, n_rows=rows, random_state=seed)))
        )
    from sklearn.cluster import KMeans

    scores = analysis.pca(run[layer].vectors("position"))
    found = analysis.cluster(scores, KMeans(clusters, random_state=seed))
    return pictures.position_clusters(found, run[layer], sample=sample)


def _figure_of(ax: "Axes") -> "Figure":
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


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
