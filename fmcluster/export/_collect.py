"""Collected entries: what is logged of a run, in the same words for every target."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ..analysis import Findings, Reducer, ResultCache, Similarity
from ..plot.drawing import brief, sample_name
from ..report.content import (
    OVERALL_STAGES,
    LayerContent,
    Settings,
    choose_layers,
    diverged_lines,
    make_layer_content,
    make_overview,
    part_lines,
    part_with,
    samples_of,
)
from ..store import FinitePart, Layer, Run
from ._entries import Distribution, Entry, Picture, Scalar, SnapshotStep, Table, Text, snapshot_steps, steps_are_known

Progress = Callable[[str, int, int], None]

MOST_CHANNELS = 100
DIVERGED = "Left out of what follows, as layers gave NaN or infinite values:"
MOST_ROWS = 200_000  # of a table
STAGES = 6  # of a layer: three of its content, then pictures of samples, the embedding, and pictures of it

STATISTICS = {"mean": "mean activation", "std": "standard deviation", "zeros": "share of zeros"}


@dataclass(frozen=True)
class Wanted:
    """What of a run is logged, checked.

    Attributes
    ----------
    run : Run
        With at least one snapshot.
    measured, drawn : tuple of str
        The layers whose statistics are logged, and those that are analyzed and drawn.
    samples : tuple of int
        The images on which feature maps are shown, by dataset index.
    settings : Settings
        How layers are analyzed.
    part : FinitePart
        What of the run is analyzed.
    diagnosis : bool
        Whether the run is judged.
    cache : ResultCache or None
        Where results are saved and used again.
    """

    run: Run
    measured: tuple[str, ...]
    drawn: tuple[str, ...]
    samples: tuple[int, ...]
    settings: Settings
    part: FinitePart
    diagnosis: bool
    cache: ResultCache | None


def choose(
    run: Run,
    *,
    layers: Sequence[str] | None,
    samples: Sequence[int] | None,
    view: str,
    n_clusters: int,
    reducer: Reducer | None,
    random_state: int,
    max_bytes: int,
    diagnosis: bool,
    cache: ResultCache | Literal["beside"] | None,
) -> Wanted:
    """Check what is asked for before anything is written, and fill in what is not said.

    Raises
    ------
    StoreError
        Where the run has no snapshot yet.
    KeyError
        Where it has no such layer.
    ValueError
        Where it has no such sample, the view is unknown, no layer or cluster is asked for, or nothing is finite of all
        layers, or of one that was asked for.
    TypeError
        For what is not a run, and layers or samples that are not in a sequence.
    """
    if not isinstance(run, Run):
        raise TypeError(f"received a {type(run).__name__}; expected a Run, made by open_run(path)")
    run.resolve(snapshot=0)
    for name, given in (("layers", layers), ("samples", samples)):
        if isinstance(given, str | int):
            raise TypeError(f"{name} is {given!r}; expected a sequence, such as [{given!r}]")
    if layers is not None and not len(layers):
        raise ValueError("layers is empty; pass at least one, or None for about five of the run")
    if n_clusters < 1:
        raise ValueError(f"n_clusters is {n_clusters}; expected at least 1")
    drawn = tuple(dict.fromkeys(choose_layers(run) if layers is None else layers))
    for name in drawn:
        run[name].vectors(view)
    part = part_with(run, drawn)
    known = run.common_samples(range(len(run)))
    if samples is None:
        samples = known[~np.isin(known, part.left_out.samples)][:1].tolist()
    for sample in samples:
        if sample not in known:
            raise ValueError(
                f"there is no sample {sample}; expected one of the {len(known)} that every snapshot holds"
                + (f" ({known.min()} to {known.max()})" if len(known) else "")
            )
    return Wanted(
        run=run,
        measured=tuple(run.layers) if layers is None else drawn,
        drawn=drawn,
        samples=tuple(dict.fromkeys(int(sample) for sample in samples)),
        settings=Settings(
            view=view,
            n_clusters=n_clusters,
            reducer=reducer,
            random_state=random_state,
            max_bytes=max_bytes,
            snapshots=tuple(part.snapshots),
            samples=samples_of(part),
        ),
        part=part,
        diagnosis=diagnosis,
        cache=ResultCache.beside(run) if cache == "beside" else cache,
    )


def collect(wanted: Wanted, *, progress: Progress | None = None) -> Iterator[Entry]:
    """Yield everything there is to log, one after another, so that no two pictures are in memory at once.

    Parameters
    ----------
    wanted : Wanted
        Made by `choose`.
    progress : callable, optional
        Called before each stage with what it is, how many stages are done, and how many there are.
    """
    run, when = wanted.run, snapshot_steps(wanted.run.snapshots)
    done, total = 0, 1 + STAGES * len(wanted.drawn) + OVERALL_STAGES * wanted.diagnosis

    def announce(stage: str) -> None:
        nonlocal done
        if progress is not None:
            progress(stage, done, total)
        done += 1

    announce("metrics and statistics")
    yield from _numbers(run, when)
    for name in wanted.measured:
        yield from _statistics(run[name], when)
    if left_out := [*diverged_lines(run, kept=wanted.part.snapshots), *part_lines(wanted.part)]:
        yield Text("snapshot/diverged", when[-1], (DIVERGED, *left_out))
    if wanted.settings.snapshots is not None:
        when = [step for step in when if step.snapshot in wanted.settings.snapshots]
    cache = wanted.cache
    for name in wanted.drawn:
        layer = run[name]
        content = make_layer_content(layer, wanted.settings, announce=announce, cache=cache)
        announce(f"{name}: feature maps")
        yield from _feature_maps(layer, when, samples=wanted.samples)
        announce(f"{name}: embed")
        _ = content.embedding
        announce(f"{name}: pictures")
        yield from _layer_entries(content, when)
    if wanted.diagnosis:
        overview = make_overview(run, wanted.settings, part=wanted.part, announce=announce, cache=cache)
        if overview.findings is None:
            yield Text("diagnosis/findings", when[-1], (f"The run cannot be diagnosed: {overview.refused}",))
        else:
            yield from _judged(overview.findings, when, layers=wanted.measured)
        if overview.similarity is not None:
            yield from _similarity(overview.similarity, when, layers=wanted.drawn)


def _numbers(run: Run, when: list[SnapshotStep]) -> Iterator[Entry]:
    """Yield the metrics, and each snapshot's epoch."""
    names = run.metrics.columns[3:]
    for step, values in zip(when, run.metrics[names].to_numpy(dtype=np.float64), strict=True):
        yield Scalar("snapshot/epoch", step, float(step.epoch))
        for name, value in zip(names, values, strict=True):
            if not np.isnan(value):  # not recorded beside this snapshot
                yield Scalar(f"metrics/{name}", step, float(value))
    if not steps_are_known(run.snapshots["step"].to_numpy()):
        said = "Optimizer steps do not tell the snapshots of this run apart, so the steps shown are snapshot numbers."
        yield Text("snapshot/steps", when[-1], (said,))


def _statistics(layer: Layer, when: list[SnapshotStep]) -> Iterator[Entry]:
    """Yield of each statistic its mean over the channels, and how the channels spread around that."""
    frame = layer.statistics
    for step, (_, channels) in zip(when, frame.groupby("snapshot"), strict=True):
        for name in STATISTICS:
            values = channels[name].to_numpy(dtype=np.float64)
            values = values[np.isfinite(values)]
            if len(values):
                yield Scalar(f"{layer.name}/{name}", step, float(values.mean()))
                yield Distribution(f"{layer.name}/{name} of channels", step, values)
        if broken := int(channels["nonfinite"].sum()):
            yield Scalar(f"{layer.name}/nonfinite", step, broken)


def _feature_maps(layer: Layer, when: list[SnapshotStep], *, samples: Sequence[int]) -> Iterator[Entry]:
    """Yield the channel grid of each snapshot at its step, and the channels over all snapshots."""
    from .. import plot
    from ._rasterize import pixels_of

    channels = layer.channels[:MOST_CHANNELS].tolist()
    which = "channels" if len(channels) == layer.n_channels else f"first {len(channels)} channels"
    for sample in samples:
        image = sample_name(layer, sample)
        for step in when:
            figure = plot.channel_grid(layer, snapshot=step.snapshot, sample=sample, channels=channels)
            caption = f"{len(channels)} of {layer.n_channels} channels of {layer.name} on {image}, epoch {step.epoch}"
            yield Picture(f"{layer.name}/{which} on sample {sample}", step, pixels_of(figure), caption)
        figure = plot.channel_evolution(layer, sample=sample)
        caption = f"Channels of {layer.name} on {image}, over the snapshots"
        yield Picture(f"{layer.name}/evolution on sample {sample}", when[-1], pixels_of(figure), caption)
    figure = plot.statistics(layer, what=tuple(STATISTICS))
    caption = f"How the channels of {layer.name} spread: {', '.join(STATISTICS.values())}"
    yield Picture(f"{layer.name}/statistics", when[-1], pixels_of(figure), caption)


def _layer_entries(content: LayerContent, when: list[SnapshotStep]) -> Iterator[Entry]:
    """Yield the embedding at each snapshot, as a picture and as a table, and pictures of what moved."""
    from .. import plot
    from ._rasterize import pixels_of

    name, embedding, clusters = content.layer.name, content.embedding, content.clusters
    what = f"{content.n_rows} rows of the {clusters.view} view of {name}"
    for step in when:
        axes = plot.embedding(embedding, clusters, snapshot=step.snapshot)
        caption = f"Embedding of {what}, epoch {step.epoch}; {embedding.faithfulness}"
        yield Picture(f"{name}/embedding", step, pixels_of(axes), caption)
    last = when[-1]
    yield Table(f"{name}/rows", last, table_of(content))
    figure = plot.embedding_grid(embedding, clusters)
    yield Picture(f"{name}/embeddings", last, pixels_of(figure), f"Embedding of {what}, over the snapshots")
    if len(when) < 2:
        return
    axes = plot.trajectories(embedding, clusters)
    yield Picture(f"{name}/trajectories", last, pixels_of(axes), f"Paths of {what} through the embedding")
    axes = plot.flow(content.history)
    yield Picture(f"{name}/flow", last, pixels_of(axes), f"Flow of {what} between clusters")
    axes = plot.churn(content.history)
    yield Picture(f"{name}/churn of clusters", last, pixels_of(axes), f"Share of {what} that changed cluster")
    for step, churn in zip(when[1:], content.history.steps["churn"], strict=True):
        if not np.isnan(churn):
            yield Scalar(f"{name}/churn", step, float(churn))


def _judged(findings: Findings, when: list[SnapshotStep], *, layers: Sequence[str]) -> Iterator[Entry]:
    """Yield what `diagnose` measured of some layers, what it says, and pictures of all layers."""
    from .. import plot
    from ._rasterize import pixels_of

    last = when[-1]
    frame = findings.frame[np.isfinite(findings.frame["value"]) & findings.frame["layer"].isin(layers)]
    for step in when:
        here = frame[frame["snapshot"] == step.snapshot]
        for layer, measure, value in zip(here["layer"], here["measure"], here["value"], strict=True):
            yield Scalar(f"{layer}/{measure}", step, float(value))
    yield Text("diagnosis/findings", last, tuple(str(findings).splitlines()))
    advice = [{"layer": each.layer, "action": each.action, "text": each.text} for each in findings.advice]
    yield Table("diagnosis/advice", last, pd.DataFrame(advice, columns=["layer", "action", "text"]))
    yield Table("diagnosis/layers", last, findings.layers)
    if len(when) > 1:
        axes = plot.convergence(findings)
        yield Picture("diagnosis/convergence", last, pixels_of(axes), "When each layer converged")
    axes = plot.channels_per_layer(findings)
    yield Picture("diagnosis/channels", last, pixels_of(axes), "Dead and duplicate channels of each layer")


def _similarity(found: Similarity, when: list[SnapshotStep], *, layers: Sequence[str]) -> Iterator[Entry]:
    """Yield how similar all layers are at each snapshot, and the snapshots of some layers."""
    from .. import plot
    from ._rasterize import pixels_of

    for step in when if found.rows["layer"].nunique() > 1 else ():
        axes = plot.similarity(found, snapshot=step.snapshot)
        yield Picture("diagnosis/similarity of layers", step, pixels_of(axes), f"CKA at epoch {step.epoch}")
    for layer in layers if len(when) > 1 else ():
        axes = plot.similarity(found, layer=layer)
        yield Picture(f"{layer}/similarity of snapshots", when[-1], pixels_of(axes), f"CKA of the snapshots of {layer}")


def table_of(content: LayerContent) -> pd.DataFrame:
    """Return where each row of the view is in the embedding, its cluster, and the class of its sample.

    Of more rows than a table of wandb takes, those of some snapshots, evenly spread.
    """
    frame = content.embedding.frame.assign(cluster=content.clusters.labels)
    classes = content.layer.samples.get("class_name")
    if classes is not None and "sample" in frame:
        frame["class_name"] = frame["sample"].map(classes)
    if len(frame) > MOST_ROWS:
        numbers = frame["snapshot"].unique()
        kept = numbers[brief(len(numbers), at_most=MOST_ROWS // content.n_rows)]
        frame = frame[frame["snapshot"].isin(kept)]
    return frame
