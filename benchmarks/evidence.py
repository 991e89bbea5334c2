"""What `decide.py` goes by: one fine-tuning looked at, and what of a network may be trained; what may be left out."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from arms import BODY, PARTS, Arm, accuracy, frozen, modules_of
from shifts import Task
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.analysis.diagnosis import Advice
from fmcluster.decide import Rewind, freeze_rest

RECORDED = ["pool", "linear"]  # the inputs of normalizations come with the weights
START, END = 0, 1  # epochs of the run: before anything, and after a fine-tuning of everything


@dataclass
class Look:
    """What was seen of one ordinary fine-tuning of everything.

    Attributes
    ----------
    advice : Advice, optional
        Of `fm.diagnose`: where to tune.
    neighbors : dict of str to float
        The accuracy of nearest neighbors in the last feature maps.
    before : float
        The network's own accuracy before training, on the same images.
    shift : dict of str to float
        By part: how far the inputs of its normalizations are from their statistics, over the same of known images.
    plan : Plan, optional
        What to freeze, by putting weights back; asked only where the advice is to tune everything.
    """

    advice: Advice | None
    neighbors: dict[str, float]
    before: float
    shift: dict[str, float]
    plan: fm.decide.Plan | None = field(repr=False)

    @property
    def in_words(self) -> str:
        """Say what is tuned."""
        if self.advice is None:
            return "head, as nothing is advised"
        return {None: "everything", "": "head"}.get(self.advice.until, f"up to {self.advice.until}, and head")

    def as_record(self) -> dict[str, Any]:
        record: dict[str, Any] = {"tune": self.in_words, "neighbors": self.neighbors, "before": self.before}
        record |= {"shift": self.shift, "advice": str(self.advice or "")}
        if self.plan is None:
            return record
        return record | {"put back": [name for action in self.plan.actions for name in action.modules]}


def look(task: Task, train_fully: Callable[[], nn.Module], folder: Path) -> Look:
    """Record a network before and after fine-tuning, and diagnose it; put parts back where all is to be tuned."""
    with fm.Recorder(task.start, folder / "known.zarr", **_how(task.known)) as recorder:
        recorder.snapshot(epoch=START)
    shown = copy.deepcopy(task.start)
    with fm.Recorder(shown, folder / "run.zarr", **_how(task.probe)) as recorder:
        recorder.snapshot(epoch=START)
        tuned = train_fully()
        shown.load_state_dict(tuned.state_dict())
        recorder.snapshot(epoch=END)
    run, clean = fm.open_run(folder / "run.zarr"), fm.open_run(folder / "known.zarr")
    findings = fm.diagnose(run, clean=clean)
    measured = findings.rows("knn_accuracy", layer="pool")
    advice = next((each for each in findings.advice if each.action == "tune"), None)
    return Look(
        advice=advice,
        neighbors=dict(zip(("at the start", "after training"), measured["value"].astype(float), strict=True)),
        before=accuracy(task.start, task.probe),
        shift=_shift(fm.analysis.normalization_shift(run, clean=clean)),
        plan=_put_back(task, tuned, run) if advice is not None and advice.until is None else None,
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

    What is advised; the head, which costs least, where nothing is. Where all of the network is to be tuned, all but
    what could be put back. A head that is wrong of more images than it is right, of those that neighbors get right, is
    drawn anew: it would have to unlearn first.
    """
    if seen.plan is not None:
        return Arm(seen.plan.apply(task.start))
    arm = Arm(frozen(task.start, BODY) if seen.advice is None else freeze_rest(task.start, seen.advice))
    head_alone = seen.advice is None or seen.advice.until == ""
    if head_alone and not task.new_head and seen.before < seen.neighbors["at the start"] / 2:
        torch.manual_seed(seed)
        arm.model.linear = nn.Linear(64, arm.model.linear.out_features)
        arm.drawn_anew = True
    return arm


def _how(probe: TensorDataset) -> dict[str, Any]:
    return {"layers": RECORDED, "probe": probe, "record": ("activation", "weight"), "batch_size": 100}


def _shift(frame: Any) -> dict[str, float]:
    """Return the largest ratio of each part's normalizations."""
    part_of = {module: part for part, modules in PARTS.items() for module in modules}
    parts = [part_of[name.split(".")[0]] for name in frame["layer"]]
    return {str(part): float(value) for part, value in frame["ratio"].groupby(parts, sort=False).max().items()}
