"""What a report says of the whole run: what `diagnose` finds, and how similar its layers are."""

from dataclasses import dataclass

from ...analysis import Findings, ResultCache, Similarity, diagnose, similarity
from ...plot.drawing import snapshot_titles
from ...store import Run, layers_left_out, missing_snapshots
from ._layer_content import Announce, Settings

OVERALL_STAGES = 2


def missing_lines(run: Run) -> list[str]:
    """Say of each snapshot that could not be recorded when it was due and why, and of each layer left out why."""
    lost = [f"epoch {each['epoch']}, step {each['step']}: {each['reason']}" for each in missing_snapshots(run)]
    return lost + [f"layer {name}: {why}" for name, why in layers_left_out(run).items()]


def diverged_lines(run: Run) -> list[str]:
    """Say of each snapshot that is left out which layers gave values that are not finite; texts are not escaped."""
    titles = dict(zip(run.snapshots["snapshot"], snapshot_titles(run.snapshots), strict=True))
    return [
        f"{titles[row.snapshot]}: {row.layers} of {len(run.layers)} layers, the first is {row.first}"
        for row in run.diverged().itertuples(index=False)
    ]


@dataclass(frozen=True, eq=False)
class Overview:
    """What is known of all layers together.

    Attributes
    ----------
    findings : Findings or None
        What `diagnose` returned.
    similarity : Similarity or None
        Debiased linear CKA of all layers at all snapshots.
    refused : str
        Why there is neither, in words; empty where there is.
    """

    findings: Findings | None
    similarity: Similarity | None
    refused: str = ""


def make_overview(run: Run, settings: Settings, *, announce: Announce, cache: ResultCache | None) -> Overview:
    """Diagnose a run and compare its layers, or take what is saved of that.

    Where the run cannot be judged (fewer than four images in every snapshot), the result says why.
    """
    announce("diagnosis of all layers")
    parameters = {"random_state": settings.random_state, "max_bytes": settings.max_bytes}
    try:
        vectors = [run[name].vectors("sample", snapshots=settings.snapshots) for name in run.layers]

        def find() -> Findings:
            seed, workers = settings.random_state, settings.executor
            return diagnose(run, random_state=seed, max_bytes=settings.max_bytes, executor=workers)

        def compare() -> Similarity:
            return similarity(run, max_bytes=settings.max_bytes, executor=settings.executor)

        if cache is None:
            findings = find()
        else:
            said = parameters | {"left_out": run.diverged().to_dict("list")}  # which no vectors are of
            findings = cache.use(find, Findings, verb="diagnose", vectors=vectors, parameters=said)
        announce("similarity of all layers")
        if cache is None:
            compared = compare()
        else:
            compared = cache.use(compare, Similarity, verb="similarity", vectors=vectors, parameters={})
    except (ValueError, MemoryError) as error:  # what both refuse
        return Overview(None, None, str(error))
    return Overview(findings, compared)
