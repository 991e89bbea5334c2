"""Pictures of the `plot` command: for each name, the figure or animation that it stands for."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, cast

from ._analyze import analyze_layer, finite_vectors
from ._app import say_left_out, status

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..analysis import Analysis, Clusters, Findings, Scores
    from ..store import Layer, Run


class Picture(StrEnum):
    """What `plot` can draw."""

    channel_grid = "channel_grid"
    channel_evolution = "channel_evolution"
    statistics = "statistics"
    top_images = "top_images"
    embedding = "embedding"
    trajectories = "trajectories"
    flow = "flow"
    lifelines = "lifelines"
    churn = "churn"
    quality = "quality"
    position_clusters = "position_clusters"
    explained_variance = "explained_variance"
    drift = "drift"
    similarity = "similarity"
    convergence = "convergence"
    channels_per_layer = "channels_per_layer"
    metrics = "metrics"


OF_THE_RUN = (Picture.metrics, Picture.similarity, Picture.convergence, Picture.channels_per_layer)
PLAIN = (Picture.channel_grid, Picture.channel_evolution, Picture.statistics, Picture.top_images)
WITHOUT_EMBEDDING = (Picture.position_clusters, Picture.explained_variance, Picture.drift)


@dataclass(frozen=True, eq=False)
class Asked:
    """What the caller wants to see.

    Attributes
    ----------
    run : Run
        An open run.
    picture : Picture
        What of it.
    layer : str or None
        None only where the picture is of the whole run.
    epoch : int or None
        None for the last one, or all.
    sample : int or None
        Index of an image; None for the first whose feature maps are finite.
    channels : list of int or None
        None for all, or the picture's own choice.
    order : str
        ``"index"``, ``"activity"`` or ``"cluster"``.
    by : {"max", "mean", "relevance"}
        What images are ranked by.
    min_drift : float or None
        Least drift of the channels of trajectories.
    metrics : list of str or None
        Names of metrics; None for all.
    view : str
        What a row is.
    clusters : int
        How many.
    rows : int or None
        How many of each snapshot; None for all.
    random_state : int
        Seed of the embedding and the clusters.
    """

    run: "Run"
    picture: Picture
    layer: str | None
    epoch: int | None
    sample: int | None
    channels: list[int] | None
    order: str
    by: Literal["max", "mean", "relevance"]
    min_drift: float | None
    metrics: list[str] | None
    view: str
    clusters: int
    rows: int | None
    random_state: int

    @property
    def name(self) -> str:
        """The name of the layer, of a picture that needs one."""
        assert self.layer is not None
        return self.layer

    @property
    def pictured(self) -> "Layer":
        """The layer."""
        return self.run[self.name]

    @property
    def one_sample(self) -> int:
        """The image asked for, or the first in every snapshot of which the layer's feature maps are finite."""
        from ..store import part_by_rows

        if self.sample is not None:
            return self.sample
        known: Sequence[int] = []
        with suppress(ValueError):  # of a live run, where no image is in every snapshot
            known = self.run.common_samples(self.run.snapshots["snapshot"].tolist()).tolist()
        with suppress(ValueError):  # of a layer that is finite nowhere
            lost = part_by_rows(self.run, self.name).left_out.samples.tolist()
            known = [each for each in known if each not in lost] or known
        return known[0] if known else 0

    def analyze(self, *, view: str | None = None) -> "Analysis":
        """Reduce, embed, cluster and track the rows asked for, or all of another view."""
        rows = self.rows if view is None else None
        return analyze_layer(
            self.run,
            self.name,
            view=view or self.view,
            clusters=self.clusters,
            components=50,
            rows=rows,
            random_state=self.random_state,
        )

    def diagnose(self, *, drift: float | None = None) -> "Findings":
        """Diagnose the layer asked for, or all."""
        from .. import analysis

        layers = None if self.picture in OF_THE_RUN else [self.name]
        with status(f"reading {len(self.run)} snapshots of {', '.join(layers or self.run.layers)}"):
            thresholds = analysis.Thresholds() if drift is None else analysis.Thresholds(drift=drift)
            found = analysis.diagnose(self.run, layers=layers, thresholds=thresholds, random_state=self.random_state)
        if self.picture is not Picture.trajectories:  # of which the analysis has said it
            say_left_out(found.not_finite.lines)
        return found


def draw_still(asked: Asked) -> "Figure":
    """Draw a picture that does not move."""
    if asked.picture is Picture.metrics:
        from .. import plot as pictures

        return pictures.metrics(asked.run.metrics, columns=asked.metrics)
    if asked.picture in OF_THE_RUN:
        return _figure_of(_draw_run(asked))
    if asked.picture in PLAIN:
        return _draw_channels(asked)
    if asked.picture in WITHOUT_EMBEDDING:
        return _draw_layer(asked)
    return _draw_analysis(asked)


def draw_animation(asked: Asked) -> "FuncAnimation":
    """Draw a picture that moves from snapshot to snapshot: of the embedding or of the grid."""
    from .. import plot as pictures

    if asked.picture is Picture.embedding:
        found = asked.analyze()
        return pictures.animate_embedding(found.embedding, found.clusters)
    if asked.order == "cluster":
        raise ValueError("received --order cluster for an animation; channels keep their order: pass index or activity")
    with status(f"reading {len(asked.run)} snapshots of {asked.name}"):
        order = cast(Literal["index", "activity"], asked.order)
        return pictures.animate_grid(asked.pictured, sample=asked.one_sample, channels=asked.channels, order=order)


def _draw_run(asked: Asked) -> "Axes":
    """Draw what is of all layers, or of one against itself."""
    from .. import plot as pictures

    if asked.picture is Picture.similarity:
        with status(f"reading {len(asked.run.layers)} layers"):
            from .. import analysis

            found = analysis.similarity(asked.run, layers=None if asked.layer is None else [asked.layer])
        say_left_out(found.not_finite[0].lines)
        return pictures.similarity(found, layer=asked.layer, epoch=asked.epoch)
    findings = asked.diagnose()
    if asked.picture is Picture.convergence:
        return pictures.convergence(findings)
    return pictures.channels_per_layer(findings, epoch=asked.epoch)


def _draw_channels(asked: Asked) -> "Figure":
    """Draw feature maps, their statistics, or the top images of channels."""
    from .. import plot as pictures

    if asked.picture is Picture.statistics:
        return pictures.statistics(asked.pictured)
    if asked.picture is Picture.channel_evolution:
        return pictures.channel_evolution(asked.pictured, sample=asked.one_sample, channels=asked.channels)
    if asked.picture is Picture.top_images:
        with status(f"searching the images that drive {asked.name}"):
            from .. import analysis

            seen = analysis.top_images(asked.pictured, channels=asked.channels, by=asked.by)
        return pictures.top_images(seen, asked.pictured, channels=asked.channels)
    groups: Clusters | None = None
    scores: Scores | None = None
    if asked.order == "cluster":
        found = asked.analyze(view="channel")
        groups, scores = found.clusters, found.scores
    return pictures.channel_grid(
        asked.pictured,
        epoch=asked.epoch,
        sample=asked.one_sample,
        channels=asked.channels,
        order=cast(Literal["index", "activity", "cluster"], asked.order),
        clusters=groups,
        scores=scores,
    )


def _draw_layer(asked: Asked) -> "Figure":
    """Draw what is of the vectors of one layer, and needs no embedding."""
    from .. import plot as pictures

    if asked.picture is Picture.drift:
        return _figure_of(pictures.drift(asked.diagnose(), asked.name))
    view = "position" if asked.picture is Picture.position_clusters else asked.view
    rows = None if asked.picture is Picture.position_clusters else asked.rows
    vectors = finite_vectors(asked.run, asked.name, view=view, rows=rows, random_state=asked.random_state)
    with status(f"principal components of {asked.name}"):
        from .. import analysis

        scores = analysis.pca(vectors)
        if asked.picture is Picture.explained_variance:
            return _figure_of(pictures.explained_variance(scores))
        from sklearn.cluster import KMeans

        found = analysis.cluster(scores, KMeans(asked.clusters, random_state=asked.random_state))
    return pictures.position_clusters(found, asked.pictured, sample=asked.one_sample)


def _draw_analysis(asked: Asked) -> "Figure":
    """Draw the embedding, the clusters or the history of one layer."""
    from .. import plot as pictures

    found = asked.analyze()
    if asked.picture is Picture.embedding:
        if asked.epoch is not None:
            return _figure_of(pictures.embedding(found.embedding, found.clusters, epoch=asked.epoch))
        return pictures.embedding_grid(found.embedding, found.clusters)
    if asked.picture is Picture.trajectories:
        drifted = None if asked.min_drift is None else asked.diagnose(drift=asked.min_drift)
        return _figure_of(pictures.trajectories(found.embedding, found.clusters, drifted=drifted))
    if asked.picture is Picture.quality:
        return _figure_of(_draw_quality(asked, found))
    if asked.picture is Picture.churn:
        return _figure_of(_draw_churn(asked, found))
    draw = pictures.flow if asked.picture is Picture.flow else pictures.lifelines
    return _figure_of(draw(found.history))


def _draw_churn(asked: Asked, found: "Analysis") -> "Axes":
    """Draw churn between its null and its noise floor, where the view can be split into halves."""
    from .. import analysis
    from .. import plot as pictures

    count = found.clusters.n_asked
    if count is None or not {"n", "c"} & set(found.vectors.feature_axes):
        return pictures.churn(found.history)
    with status("clustering halves of the data, for the noise floor"):
        from sklearn.cluster import KMeans

        clusterer = KMeans(count, random_state=asked.random_state, n_init=analysis.N_INIT)
        noise_floor = analysis.noise_floor(found.vectors, clusterer, n_splits=3, random_state=asked.random_state)
        return pictures.churn(analysis.track(found.clusters, noise_floor=noise_floor, random_state=asked.random_state))


def _draw_quality(asked: Asked, found: "Analysis") -> "Axes":
    from .. import analysis
    from .. import plot as pictures

    known = "label" in asked.run.samples and found.clusters.identity == ["sample"]
    with status("measuring the clusters"):
        measured = analysis.quality(
            found.clusters,
            found.scores,
            classes=asked.run.samples["label"] if known else None,
            random_state=asked.random_state,
        )
    measures = ("silhouette", "nmi", "knn_accuracy") if known else ("silhouette",)
    return pictures.quality(measured, measures=measures)


def _figure_of(ax: "Axes") -> "Figure":
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure
