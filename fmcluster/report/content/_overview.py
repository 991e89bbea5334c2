"""Overview: what a report says of the whole run, by `diagnose` and by the similarity of its layers."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from ...analysis import Damage, Findings, ResultCache, Similarity, diagnose
from ...analysis.diagnosis import leave_one_out_accuracy
from ...plot.drawing import snapshot_titles
from ...store import FinitePart, Run, layers_left_out, missing_snapshots, part_by_rows, varying_layers
from ._layer_content import Announce, Settings

OVERALL_STAGES = 1
MOST_IMAGES = 2000


def missing_lines(run: Run) -> list[str]:
    """Say which snapshots could not be recorded, which layers were left out, and which cannot be repeated, and why."""
    lost = [f"epoch {each['epoch']}, step {each['step']}: {each['reason']}" for each in missing_snapshots(run)]
    lost += [f"layer {name}: {why}" for name, why in layers_left_out(run).items()]
    return lost + [
        f"layer {name}: the same batch gave other values when it was shown again, so that not only training changes it"
        for name in varying_layers(run)
    ]


def diverged_lines(run: Run, *, kept: Sequence[int] = ()) -> list[str]:
    """Say of each snapshot, but for those kept, which layers gave values that are not finite; texts are not escaped."""
    titles = dict(zip(run.snapshots["snapshot"], snapshot_titles(run.snapshots), strict=True))
    return [
        f"{titles[row.snapshot]}: {row.layers} of {len(run.layers)} layers, the first is {row.first}"
        for row in run.diverged().itertuples(index=False)
        if row.snapshot not in kept
    ]


def part_with(run: Run, layers: Sequence[str]) -> FinitePart:
    """Return the finite part of a run where it holds the layers, or else that of the layers alone.

    Of one layer that is finite at no snapshot, those at which most of its channels are.
    """
    with suppress(ValueError) if layers else nullcontext():
        part = run.finite_part()
        if set(layers) <= set(part.layers):
            return part
    return part_by_rows(run, layers[0]) if len(layers) == 1 else run.finite_part(layers=layers)


def part_lines(part: FinitePart) -> list[str]:
    """Say which layers and samples are left out, where `diverged_lines` does not; texts are not escaped."""
    return replace(part.left_out, snapshots=part.left_out.snapshots.iloc[:0]).lines


def samples_of(part: FinitePart) -> tuple[int, ...] | None:
    """Return the samples of a part as `Settings` has them."""
    return None if part.samples is None else tuple(part.samples.tolist())


@dataclass(frozen=True)
class PixelAccuracy:
    """Accuracy of nearest neighbors by pixels, and what permuted labels would give."""

    accuracy: float
    chance: float


@dataclass(frozen=True, eq=False)
class Overview:
    """What is known of all layers together.

    Attributes
    ----------
    findings : Findings or None
        What `diagnose` returned.
    pixels : PixelAccuracy or None
        How many images have the class of their nearest others by their pixels; None where classes are not known.
    refused : str
        Why there are none, in words; empty where there are.
    """

    findings: Findings | None
    refused: str = ""
    pixels: PixelAccuracy | None = None

    @property
    def similarity(self) -> Similarity | None:
        """Debiased linear CKA of all layers at all snapshots, which the diagnosis rests on."""
        return None if self.findings is None else self.findings.similarity


def make_overview(
    run: Run,
    settings: Settings,
    *,
    part: FinitePart,
    announce: Announce,
    cache: ResultCache | None,
    damage: Damage | None = None,
) -> Overview:
    """Diagnose the finite part of a run, which compares its layers, or take what is saved of that.

    Where the run cannot be judged (fewer than four images in every snapshot), the result says why. What rests on damage
    that was measured is not saved.
    """
    announce("diagnosis of all layers")
    parameters = {"random_state": settings.random_state, "max_bytes": settings.max_bytes}
    try:
        snapshots = settings.snapshots or tuple(part.snapshots)
        vectors = [run[name].vectors("sample", snapshots=snapshots, samples=settings.samples) for name in part.layers]
        chosen: dict[str, Any] = {"layers": part.layers, "snapshots": snapshots, "samples": settings.samples}
        if snapshots == tuple(part.snapshots) and part is run.finite_part():
            chosen = {}  # the default, of which the findings say what is left out

        def find() -> Findings:
            seed, workers = settings.random_state, settings.executor
            return diagnose(
                run, damage=damage, **chosen, random_state=seed, max_bytes=settings.max_bytes, executor=workers
            )

        if cache is None or damage is not None:
            findings = find()
        else:
            said = parameters | {"left_out": [*diverged_lines(run), *part_lines(part)]}  # which no vectors are of
            findings = cache.use(find, Findings, verb="diagnose", vectors=vectors, parameters=said)
    except (ValueError, MemoryError) as error:  # what it refuses
        return Overview(None, str(error))
    return Overview(findings, pixels=pixel_accuracy(run, n_neighbors=findings.thresholds.n_neighbors))


def pixel_accuracy(run: Run, *, n_neighbors: int, random_state: int = 0) -> PixelAccuracy | None:
    """Ask the nearest images by pixels for an image's class, as `diagnose` asks those by a layer's activations.

    Images are averaged to 32 x 32 pixels. None where the run holds no pictures, or fewer than two classes are known,
    or there are more than 2,000 images, which `diagnose` draws from.
    """
    indices = run.common_samples(run.snapshots["snapshot"].tolist())
    if "label" not in run.samples or not 2 < len(indices) <= MOST_IMAGES or run.display(int(indices[0])) is None:
        return None
    labels = run.samples["label"].reindex(indices, fill_value=-1).to_numpy(np.int64)
    indices, labels = indices[labels >= 0], labels[labels >= 0]
    if len(np.unique(labels)) < 2:
        return None
    small = [Image.fromarray(np.asarray(run.display(int(index)))).convert("RGB") for index in indices]
    rows = np.stack([np.asarray(each.resize((32, 32), Image.Resampling.BOX), np.float64).ravel() for each in small])
    accuracy, chance, _ = leave_one_out_accuracy(
        rows @ rows.T, labels, n_neighbors=n_neighbors, random_state=random_state
    )
    return PixelAccuracy(accuracy, chance)
