"""Questions of the explorer: what can be asked of a run, and how it is answered."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans
from sklearn.mixture import GaussianMixture

from ..analysis import MAX_BYTES, N_INIT, ResultCache, TopImages, analyze, cluster, top_images, track
from ..report import write_report
from ..report.content import LayerContent, Overview, Settings, find_noise_floor, make_overview, part_to_show, samples_of
from ..store import FinitePart, Layer, Run, snapshots_by_rows, without_broken_rows
from ..vectors import Scaling

CLUSTERERS = ("KMeans", "AgglomerativeClustering", "GaussianMixture", "HDBSCAN")
SCALINGS = ("none", "centered", "unit")
QUANTITIES = ("activation", "gradient")

Announce = Callable[[str], None]


@dataclass(frozen=True)
class ContentOf:
    """A layer's rows in an embedding, in clusters.

    Attributes
    ----------
    layer, quantity, view : str
        Which layer, whether its activation or its gradient, and what a row is.
    scaling : {"none", "centered", "unit"}
        What is done to each row; with ``"unit"``, clusters do not move with the scale.
    clusterer : str
        One of `CLUSTERERS`.
    n_clusters : int
        How many; HDBSCAN finds out by itself.
    fit : {"pooled", "each"}
        As of `cluster`.
    n_rows : int
        How many rows of each snapshot at most; more are drawn from.
    random_state : int
        Seed.
    """

    layer: str
    quantity: str = "activation"
    view: str = "channel"
    scaling: Scaling = "none"
    clusterer: str = "KMeans"
    n_clusters: int = 8
    fit: Literal["pooled", "each"] = "pooled"
    n_rows: int = 1000
    random_state: int = 0

    def answer(self, run: Run, announce: Announce) -> LayerContent:
        """Compute it, or take what is saved beside the run."""
        layer = layer_of(run, self.layer, quantity=self.quantity)
        part = part_to_show(run)
        snapshots, samples = snapshots_of(layer, part), part.samples
        whole = layer.vectors(self.view, snapshots=snapshots, samples=samples, scaling=self.scaling)
        vectors = whole
        if whole.rows_per_snapshot > self.n_rows:
            vectors = layer.vectors(
                self.view,
                snapshots=snapshots,
                samples=samples,
                scaling=self.scaling,
                n_rows=self.n_rows,
                random_state=self.random_state,
            )
        vectors = without_broken_rows(vectors)
        found = analyze(
            vectors,
            n_clusters=self.n_clusters,
            random_state=self.random_state,
            max_bytes=MAX_BYTES,
            cache=ResultCache.beside(run),
            announce=announce,
        )
        clusters, history, noise = found.clusters, found.history, None
        if (self.clusterer, self.fit) == ("KMeans", "pooled"):
            announce("the noise floor")
            noise = find_noise_floor(vectors, clusters, random_state=self.random_state, cache=ResultCache.beside(run))
            history = history if noise is None else track(clusters, noise_floor=noise)
        else:
            announce(f"clusters by {self.clusterer}, {self.fit}")
            count = min(self.n_clusters, vectors.rows_per_snapshot)
            # of all snapshots together, a row is there once for each, and those lie together
            fewest = 5 * (len(snapshots) if self.fit == "pooled" else 1)
            clusters = cluster(found.scores, self._clusterer(count, fewest=fewest), fit=self.fit)
            history = track(clusters)
        return LayerContent(
            layer=layer,
            rows_in_view=whole.rows_per_snapshot,
            vectors=vectors,
            scores=found.scores,
            clusters=clusters,
            history=history,
            make_embedding=lambda: found.embedding,
            noise_floor=noise,
        )

    def in_words(self, found: int | None = None) -> str:
        """Say with which settings a chart was made, and how many clusters were found where that was not asked for."""
        count = "" if self.clusterer == "HDBSCAN" else f" ({self.n_clusters})"
        if found == 0:
            count += " (no cluster: all is noise)"
        elif found is not None and self.clusterer != "HDBSCAN" and found < self.n_clusters:
            count = f" ({found} clusters rather than {self.n_clusters:,}: there are not enough different rows for more)"
        fit = {"pooled": "all snapshots together", "each": "each snapshot"}.get(str(self.fit), f"epoch {self.fit}")
        scaled = "" if self.scaling == "none" else f", rows {self.scaling}"
        return (
            f"{self.quantity} of {self.layer}, view {self.view}{scaled}; {self.clusterer}{count} of {fit}, "
            f"random_state {self.random_state}"
        )

    def _clusterer(self, count: int, *, fewest: int) -> Any:
        made = {
            "KMeans": lambda: KMeans(count, random_state=self.random_state, n_init=N_INIT),
            "AgglomerativeClustering": lambda: AgglomerativeClustering(count),
            "GaussianMixture": lambda: GaussianMixture(count, random_state=self.random_state, reg_covar=1e-3),
            "HDBSCAN": lambda: HDBSCAN(min_cluster_size=fewest, copy=True),
        }
        if self.clusterer not in made:
            raise ValueError(f"received the clusterer {self.clusterer!r}; expected one of {', '.join(CLUSTERERS)}")
        return made[self.clusterer]()


@dataclass(frozen=True)
class OverviewOf:
    """What is found of all layers, and how similar they are, at all snapshots."""

    def answer(self, run: Run, announce: Announce) -> Overview:
        """Compute it as a report does, which reads all of the run, or take what is saved beside the run."""
        part = part_to_show(run)  # as a report asks, so that each finds what the other saved
        settings = Settings(
            view="channel",
            n_clusters=8,
            reducer=None,
            random_state=0,
            max_bytes=MAX_BYTES,
            snapshots=tuple(part.snapshots),
            samples=samples_of(part),
        )
        return make_overview(run, settings, part=part, announce=announce, cache=ResultCache.beside(run))


@dataclass(frozen=True)
class TopImagesOf:
    """The images that drive each channel of a layer most, at the first and at the last snapshot."""

    layer: str
    quantity: str = "activation"

    def answer(self, run: Run, announce: Announce) -> TopImages:
        """Compute it: reads two snapshots of the layer."""
        announce(f"the top images of {self.layer}")
        layer = layer_of(run, self.layer, quantity=self.quantity)
        every = snapshots_of(layer, part_to_show(run))
        return top_images(layer, k=5, snapshots=sorted({every[0], every[-1]}), max_bytes=MAX_BYTES)


@dataclass(frozen=True)
class ReportOf:
    """The report of the run, as `fmcluster report` writes it."""

    def answer(self, run: Run, announce: Announce) -> bytes:
        """Write it, and return the page."""
        with TemporaryDirectory() as folder:
            written = write_report(
                run,
                Path(folder) / "report.html",
                max_bytes=MAX_BYTES,
                progress=lambda what, done, total: announce(f"the report, {done} of {total}: {what}"),
            )
            return written.read_bytes()


Question = ContentOf | OverviewOf | TopImagesOf | ReportOf


def snapshots_of(layer: Layer, part: FinitePart) -> list[int]:
    """Return the snapshots of a part of the run that can be shown of a layer: its gradient may be finite at fewer."""
    return part.snapshots if layer.quantity == "activation" else snapshots_by_rows(layer, part.snapshots)


def layer_of(run: Run, name: str, *, quantity: str) -> Layer:
    """Return a layer's activation or gradient."""
    layer = run[name]
    return layer.gradient if quantity == "gradient" else layer
