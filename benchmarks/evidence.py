"""What `decide.py` goes by: one fine-tuning looked at, and what of a network may be trained; what may be left out."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from arms import BATCH_SIZE, BODY, PARTS, Arm, accuracy, frozen, modules_of
from shifts import Task
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.decide import Rewind

RECORDED = ["pool"]  # the inputs of normalizations come with the weights
START, STATISTICS, END = 0, 1, 2  # epochs of the run: before anything, statistics re-estimated, after a fine-tuning


@dataclass
class Look:
    """What was seen of one ordinary fine-tuning of everything.

    Attributes
    ----------
    separated : str
        When the task's classes lie as far apart in the last feature maps as they ever do: "at the start", "with
        statistics", "after training".
    neighbors : dict of str to float
        The accuracy of nearest neighbors there.
    before : float
        The network's own accuracy before training, on the same images.
    shift : dict of str to float
        By part: how far the inputs of its normalizations are from their statistics, over the same of known images.
    plan : Plan, optional
        What to freeze, by putting weights back; asked only where the classes are separated after training alone.
    """

    separated: str
    neighbors: dict[str, float]
    before: float
    shift: dict[str, float]
    plan: fm.decide.Plan | None = field(repr=False)

    def as_record(self) -> dict[str, Any]:
        record: dict[str, Any] = {"separated": self.separated, "neighbors": self.neighbors, "before": self.before}
        record["shift"] = self.shift
        if self.plan is None:
            return record
        return record | {"put back": [name for action in self.plan.actions for name in action.modules]}


def look(task: Task, train_fully: Callable[[], nn.Module], folder: Path) -> Look:
    """Record a network before and after fine-tuning, put parts back, and diagnose it."""
    with fm.Recorder(task.start, folder / "known.zarr", **_how(task.known)) as recorder:
        recorder.snapshot(epoch=START)
    shown = copy.deepcopy(task.start)
    with fm.Recorder(shown, folder / "run.zarr", **_how(task.probe)) as recorder:
        recorder.snapshot(epoch=START)
        re_estimate(shown, task.training)
        recorder.snapshot(epoch=STATISTICS)
        tuned = train_fully()
        shown.load_state_dict(tuned.state_dict())
        recorder.snapshot(epoch=END)
    run = fm.open_run(folder / "run.zarr")
    findings = fm.diagnose(run)
    measured = findings.frame[findings.frame["measure"] == "knn_accuracy"]
    names = {START: "at the start", STATISTICS: "with statistics", END: "after training"}
    neighbors = {names[int(row.snapshot)]: float(row.value) for row in measured.itertuples()}
    best = max(neighbors.values()) - findings.thresholds.separated
    separated = next(name for name in names.values() if neighbors[name] >= best)
    return Look(
        separated=separated,
        neighbors=neighbors,
        before=accuracy(task.start, task.probe),
        shift=_shift(fm.analysis.normalization_shift(run, clean=fm.open_run(folder / "known.zarr"))),
        plan=_put_back(task, tuned, run) if separated == names[END] else None,
    )


def _put_back(task: Task, tuned: nn.Module, run: fm.store.Run) -> fm.decide.Plan:
    """Plan to freeze what can be put back to the start."""
    states = {START: task.start.state_dict()}
    damage = fm.ablate(tuned, task.probe, interventions=[Rewind(states)], layers=modules_of(BODY), n_null=0)
    findings = fm.diagnose(run, damage=damage)
    tolerance = findings.thresholds.damage
    return fm.plan(findings, damage, tolerance=tolerance, model=tuned, probe=task.probe, rounds=0)


def by_evidence(task: Task, seen: Look, *, seed: int) -> Arm:
    """Return what the evidence says should be trained.

    Where the classes lie as far apart before training as they ever do, the head is enough; where they do once
    statistics are re-estimated, the head with statistics that follow; otherwise everything is trained but what could be
    put back. A head that is wrong of more images than it is right, of those that neighbors get right, is drawn anew: it
    would have to unlearn first.
    """
    if seen.separated == "at the start":
        arm = Arm(frozen(task.start, BODY))
        if not task.new_head and seen.before < seen.neighbors["at the start"] / 2:
            torch.manual_seed(seed)
            arm.model.linear = nn.Linear(64, arm.model.linear.out_features)
            arm.drawn_anew = True
        return arm
    if seen.separated == "with statistics":
        return Arm(frozen(task.start, BODY, statistics=True))
    assert seen.plan is not None
    return Arm(seen.plan.apply(task.start))


def re_estimate(model: nn.Module, data: TensorDataset) -> None:
    """Let the normalizations' statistics follow the images, once through; nothing is learned."""
    model.train()
    with torch.no_grad():
        for batch in data.tensors[0].split(BATCH_SIZE):
            if len(batch) == BATCH_SIZE:
                model(batch)
    model.eval()


def _how(probe: TensorDataset) -> dict[str, Any]:
    return {"layers": RECORDED, "probe": probe, "record": ("activation", "weight"), "batch_size": 100}


def _shift(frame: Any) -> dict[str, float]:
    """Return the largest ratio of each part's normalizations."""
    part_of = {module: part for part, modules in PARTS.items() for module in modules}
    parts = [part_of[name.split(".")[0]] for name in frame["layer"]]
    return {str(part): float(value) for part, value in frame["ratio"].groupby(parts, sort=False).max().items()}
