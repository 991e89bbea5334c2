"""Freezing in the course of training: after each snapshot, what moves no more by all that was recorded till then."""

import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from ..analysis import MAX_BYTES
from ..analysis.components import accumulate_gram
from ..analysis.diagnosis import (
    Change,
    Movement,
    change_to_end,
    changes_at_rest,
    check_steps,
    draw_samples,
    frozen_from,
    head_of,
    part_at_rest,
    passes_on,
)
from ..capture import Recorder, is_in_job
from ..store import Run, open_run
from .building import freeze

_LOGGER = logging.getLogger(__name__)
_CALL = re.compile(r"(\.call\d+)?(\[[^\]]*\])*$")  # of a layer that is one call or one tensor of a module


@dataclass(frozen=True)
class Frozen:
    """A layer that was frozen, and why.

    Attributes
    ----------
    layer : str
        The recorded layer.
    modules : tuple of str
        What was frozen: the layer's module, and recorded normalizations and activations right after it.
    epoch, step : int
        Of the snapshot after which.
    moves, lower, upper : float
        How far it would move to the end, in 1 - debiased CKA, beyond what it does at learning rate 0; and the 95 %
        interval over the images.
    """

    layer: str
    modules: tuple[str, ...]
    epoch: int
    step: int
    moves: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return (
            f"{', '.join(self.modules)} frozen after epoch {self.epoch} (step {self.step}): at this rate it would move "
            f"{self.moves:.3f} ({self.lower:.3f} to {self.upper:.3f}) to the end, beyond what it does at learning "
            f"rate 0"
        )


@dataclass(eq=False)
class _Watched:
    """A layer that may be frozen: its modules, how it moves, and how it moved at rest."""

    modules: tuple[str, ...]
    rest: Change | None
    movement: Movement = field(repr=False)


class FreezeSchedule:
    """Freezes the first layers during training, one by one, when they change no faster than at learning rate 0.

    What is decided after a snapshot depends on that snapshot and on earlier ones alone. A layer is frozen when all
    before it are, since only then is its backward pass saved. What is frozen stays so: of a run that is resumed, the
    decisions are made again from its snapshots before training goes on. Normalizations of frozen layers stay in
    evaluation mode.

    Parameters
    ----------
    recorder : Recorder
        Of the network that is trained, with a probe; it may be entered later.
    n_steps : int
        Optimizer steps of the whole training.
    at_rest : Run
        The same training at learning rate 0, recorded with the same probe and layers: see `diagnose`.
    tolerance : float
        How far a layer may still move, in 1 - debiased CKA: the upper end of the interval.
    most : int, optional
        How many layers may be frozen; by default all but the last that counts.
    max_bytes : int
        Memory that may be taken.
    random_state : int
        Seed of which samples are compared, where there are many, and of the interval.

    Attributes
    ----------
    frozen : tuple of Frozen
        What was frozen so far, and why; it is also logged.

    Raises
    ------
    TypeError
        For what is no recorder or no run.
    ValueError
        For numbers that are out of range.

    Examples
    --------
    >>> with fm.Recorder(model, "run.zarr", probe=probe_set, mode="a") as recorder:  # doctest: +SKIP
    ...     schedule = fm.FreezeSchedule(recorder, n_steps=500, at_rest=fm.open_run("rest.zarr"))
    ...     recorder.snapshot(epoch=0)
    ...     for epoch in range(1, 6):
    ...         schedule.step()
    ...         train_one_epoch(model, loader)
    ...         recorder.snapshot(epoch=epoch)

    A trainer's callback takes it along: ``SnapshotCallback(recorder, then=schedule.step)``.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        n_steps: int,
        at_rest: Run,
        tolerance: float = 0.05,
        most: int | None = None,
        max_bytes: int = MAX_BYTES,
        random_state: int = 0,
    ) -> None:
        if not isinstance(recorder, Recorder):
            raise TypeError(f"FreezeSchedule received a {type(recorder).__name__}; expected a Recorder, with a probe")
        if not isinstance(at_rest, Run):
            raise TypeError(f"at_rest is a {type(at_rest).__name__}; expected Run, made by open_run(path)")
        if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 1:
            raise ValueError(f"n_steps is {n_steps!r}; expected how many optimizer steps the training takes")
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance is {tolerance!r}; expected a number between 0 and 1")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 0):
            raise ValueError(f"most is {most!r}; expected how many layers may be frozen, or None")
        self.frozen: tuple[Frozen, ...] = ()
        self._recorder = recorder
        self._n_steps = n_steps
        self._at_rest = at_rest
        self._tolerance = tolerance
        self._most = most
        self._max_bytes = max_bytes
        self._random_state = random_state
        self._n_read = 0
        self._steps: list[int] = []
        self._samples = np.zeros(0, np.int64)
        self._layers: dict[str, _Watched] = {}
        self._rest_steps = np.zeros(0)

    def step(self) -> tuple[Frozen, ...]:
        """Look at the snapshots taken since the last call, and freeze what may be.

        Call it before training, also of a run that is resumed, and after every snapshot; it waits until these are on
        the disk.

        Returns
        -------
        tuple of Frozen
            What was frozen just now.

        Raises
        ------
        RuntimeError
            Where the recorder is not entered, or several processes train the network.
        ValueError
            Where the run at rest lacks layers or samples, or one of the runs holds no optimizer steps that grow.
        CaptureError, StoreError
            Where a snapshot was left out.
        """
        if is_in_job():
            raise RuntimeError(
                "several processes of a torch.distributed job train this network, and one of them records: frozen in "
                "one alone, their networks would differ; decide in a training of one process, or after it (fm.plan)"
            )
        self._recorder.flush()
        if self._recorder.last_epoch < 0:
            return ()
        run = open_run(self._recorder.path)
        if not self._layers:
            self._begin(run)
        before = len(self.frozen)
        finite = self._finite_snapshots(run)
        for number in range(self._n_read, len(run)):
            if number in finite:
                self._look(run, number)
        self._n_read = len(run)
        new = self.frozen[before:]
        freeze(self._recorder.model, [name for each in new for name in each.modules])
        for each in new:
            _LOGGER.info("%s", each)
        return new

    def _begin(self, run: Run) -> None:
        """Choose the layers that count, in forward order, and look at how they moved at rest."""
        groups: dict[str, list[str]] = {}
        for name in run.layers:
            if not passes_on(run[name].module):
                groups[name] = [name]
            elif groups:
                groups[next(reversed(groups))].append(name)
        head = head_of(run)
        if head is not None:
            groups.pop(head, None)
        names = list(groups)
        names = names[: len(names) - 1 if self._most is None else self._most]
        known = run[run.layers[0]].vectors("sample", snapshots=[0]).samples
        with suppress(ValueError):  # of a run that is finite nowhere, nothing will be looked at
            known = np.setdiff1d(known, run.finite_part().left_out.samples)
        resting = part_at_rest(self._at_rest, names)
        known = np.setdiff1d(known, resting.left_out.samples)
        self._samples = draw_samples(
            known, n_items=len(run.layers), max_bytes=self._max_bytes, random_state=self._random_state
        )
        rest, self._rest_steps = changes_at_rest(
            self._at_rest,
            resting,
            samples=self._samples,
            block_bytes=self._max_bytes // 8,
            random_state=self._random_state,
        )
        for name in names:
            self._layers[name] = _Watched(
                modules=tuple(dict.fromkeys(self._module_of(each) for each in groups[name])),
                rest=rest.get(name),  # of none, it is never frozen
                movement=Movement(with_errors=True, random_state=self._random_state),
            )

    def _finite_snapshots(self, run: Run) -> set[int]:
        """Return the snapshots at which what is watched is finite of the samples that are compared."""
        names = list(self._layers)
        with suppress(ValueError):
            part = run.finite_part(layers=names)
            if not np.isin(part.left_out.samples, self._samples).any():
                return set(part.snapshots)
        return set(range(len(run))) - set(run.diverged(layers=names)["snapshot"])

    def _look(self, run: Run, number: int) -> None:
        """Add a snapshot to what is known, and decide from that."""
        row = run.snapshots.iloc[number]
        self._steps.append(int(row["step"]))
        steps = np.array(self._steps, np.float64)
        for name, watched in self._layers.items():
            images = run[name].vectors("sample", snapshots=[number], samples=self._samples.tolist())
            watched.movement.add(accumulate_gram(images, block_bytes=self._max_bytes // 8))
        if len(steps) < 3:
            return
        check_steps(steps)
        left = max(0, self._n_steps - int(steps[-1]))
        already = {each.layer for each in self.frozen}
        for name, watched in self._layers.items():
            if name in already:
                continue
            to_end = change_to_end(
                watched.movement.change, watched.rest, steps=steps, rest_steps=self._rest_steps, steps_left=left
            )
            if frozen_from(to_end, tolerance=self._tolerance, steps_left=left) is None:
                return
            moves = (float(each[-1]) for each in (to_end.excess, to_end.lower, to_end.upper))
            made = Frozen(name, watched.modules, int(row["epoch"]), int(row["step"]), *moves)
            self.frozen = (*self.frozen, made)

    def _module_of(self, layer: str) -> str:
        known: dict[str, nn.Module] = dict(self._recorder.model.named_modules())
        return layer if layer in known else _CALL.sub("", layer)
