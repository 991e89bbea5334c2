"""Finite part: the layers, snapshots and samples of a run that can be analyzed, and what is left out, by name."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..format import STATISTICS, statistics_path
from ._diverged import describe_diverged, find_diverged

if TYPE_CHECKING:
    from ._run import Run

_COLUMNS = {"layer": "str", "snapshots": "int64", "of_snapshots": "int64", "channels": "int64", "of_channels": "int64"}
_OF_SNAPSHOTS = {"snapshot": "int64", "epoch": "int64", "step": "int64", "layers": "int64", "first": "str"}
MOST_SAID = 5
MOST_CHANNELS = 0.5  # that are not finite at a snapshot whose others are analyzed

Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]


def _no_rows(columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()})


@dataclass(frozen=True, eq=False)
class NotFinite:
    """What an analysis left out of a run, as values were NaN or infinite.

    Attributes
    ----------
    snapshots : DataFrame
        The snapshots: ``snapshot, epoch, step, layers`` (how many of those analyzed gave such values), ``first`` (the
        first of them).
    layers : DataFrame
        The layers: ``layer``; ``snapshots``, at how many it gave such values, ``of_snapshots``; ``channels``, in how
        many where they were fewest, ``of_channels``.
    samples : ndarray of shape (n_samples,), int64
        Dataset indices of the samples, ascending.
    n_layers : int
        How many layers were analyzed.
    most_samples : float
        The share of the samples of a snapshot that are left out rather than the layer.
    """

    most_samples: ClassVar[float] = 0.5
    snapshots: pd.DataFrame = field(default_factory=lambda: _no_rows(_OF_SNAPSHOTS))
    layers: pd.DataFrame = field(default_factory=lambda: _no_rows(_COLUMNS))
    samples: Labels = field(default_factory=lambda: np.empty(0, np.int64))
    n_layers: int = 0

    @property
    def lines(self) -> list[str]:
        """Say what is left out, and why: a sentence each of the first five snapshots and layers, and of the samples."""
        said = describe_diverged(self.snapshots, n_layers=self.n_layers)
        for row in self.layers.iloc[:MOST_SAID].to_dict("records"):
            some, every = row["snapshots"], row["of_snapshots"]
            when = "at every snapshot" if some == every else f"at {some} of {every} snapshots"
            few = row["channels"] < row["of_channels"]
            where = f", in at least {row['channels']} of {row['of_channels']} channels" if few else ""
            said.append(f"Left out: layer {row['layer']}, which gave NaN or infinite values {when}{where}.")
        if (more := len(self.layers) - MOST_SAID) > 0:
            said.append(f"Left out: {more} more such layers, to {self.layers['layer'].iloc[-1]}.")
        if len(self.samples):
            named = ", ".join(map(str, self.samples[:MOST_SAID].tolist()))
            more = len(self.samples) - MOST_SAID
            several, who = "samples" if len(self.samples) > 1 else "sample", "layers" if self.n_layers > 1 else "it"
            more_said = f" and {more} more" if more > 0 else ""
            said.append(f"Left out: {several} {named}{more_said}, of which {who} gave NaN or infinite values.")
        return said


@dataclass(frozen=True, eq=False)
class FinitePart:
    """The part of a run in which every layer is finite at every snapshot, of every sample.

    Attributes
    ----------
    layers : list of str
        Names, in forward order.
    snapshots : list of int
        Numbers, in order.
    samples : ndarray of shape (n_samples,), int64, or None
        Dataset indices; None for all that the snapshots have in common.
    left_out : NotFinite
        All else.
    """

    layers: list[str]
    snapshots: list[int]
    samples: Labels | None
    left_out: NotFinite


class Finiteness:
    """Which values of a run are not finite, by its statistics; by its feature maps only where these tell too little.

    Parameters
    ----------
    run : Run
        An open run. What was read of it is kept.
    """

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._counts: dict[str, npt.NDArray[np.float64]] = {}
        self._samples: dict[tuple[str, int], Labels] = {}

    def counts(self, layer: str) -> npt.NDArray[np.float64]:
        """Return how many values are not finite, ndarray of shape (n_snapshots, n_channels)."""
        if layer not in self._counts:
            path = statistics_path(layer, "activation")
            self._counts[layer] = self._run.stored(path).read()[:, STATISTICS.index("nonfinite")]
        return self._counts[layer]

    def at(self, layer: str) -> Flags:
        """Return at which snapshots a layer gave a value that is not finite, ndarray of shape (n_snapshots,)."""
        found: Flags = np.any(self.counts(layer) > 0, axis=1)
        return found

    def samples(self, layer: str, snapshot: int) -> Labels:
        """Return the dataset indices of the samples of which a layer's stored values are not finite: reads them."""
        key = layer, snapshot
        if key not in self._samples:
            vectors = self._run[layer].vectors("sample", snapshots=[snapshot])
            self._samples[key] = vectors.samples[vectors.nonfinite_rows()[0]]
        return self._samples[key]

    @cached_property
    def of_all(self) -> FinitePart:
        """The finite part of the whole run."""
        return self._find(self._run.layers, chosen=False)

    def part(self, layers: Sequence[str] | None, *, chosen: bool) -> FinitePart:
        """Return the finite part of a run: of all layers, or of some.

        Snapshots are left out at which a layer is not finite. Where none would be left: samples, if the others (at
        least half) are finite. Unless they were `chosen` by name, layers are left out, too: those that are finite at no
        snapshot; and, those that are at fewest first, for as long as they have none in common, or where they are finite
        at less than half and more layers times snapshots are left without them.

        Raises
        ------
        ValueError
            Where nothing is left.
        """
        self._run.resolve(snapshot=0)
        return self.of_all if layers is None else self._find(layers, chosen=chosen)

    def part_if_any(self, layers: Sequence[str]) -> FinitePart:
        """Return the finite part of some layers; one without layers and snapshots where nothing is left."""
        self._run.resolve(snapshot=0)
        try:
            return self._find(layers, chosen=False)
        except ValueError:
            return FinitePart([], [], None, NotFinite(layers=self._table(layers), n_layers=len(layers)))

    def _find(self, layers: Sequence[str], *, chosen: bool) -> FinitePart:
        broken: Flags = np.array([self.at(name) for name in layers])
        samples = np.empty(0, np.int64)
        if broken.any(axis=0).all():
            samples, broken = self._without_samples(layers, broken)
        kept: Flags = np.ones(len(layers), bool) if chosen else _choose(broken)
        snapshots = np.flatnonzero(~broken[kept].any(axis=0)).tolist() if kept.any() else []
        if not snapshots:
            raise ValueError(self._nothing_left(layers))
        names = [name for name, keep in zip(layers, kept, strict=True) if keep]
        if len(names) < len(layers):  # for which it may be that no sample has to be left out
            part = self._find(names, chosen=True)
            lost = self._table([name for name in layers if name not in names])
            return replace(part, left_out=replace(part.left_out, layers=lost))
        diverged = find_diverged(self._run, names)
        return FinitePart(
            layers=names,
            snapshots=snapshots,
            samples=np.setdiff1d(self._run.common_samples(snapshots), samples) if len(samples) else None,
            left_out=NotFinite(
                snapshots=diverged[~diverged["snapshot"].isin(snapshots)].reset_index(drop=True),
                samples=samples,
                n_layers=len(names),
            ),
        )

    def _without_samples(self, layers: Sequence[str], broken: Flags) -> tuple[Labels, Flags]:
        """Return samples without which layers are finite that are not with them, and what is then broken."""
        found: dict[int, list[Labels]] = {}
        lost: set[int] = set()
        for order in np.flatnonzero(broken.all(axis=1)).tolist():
            found[order] = [self.samples(layers[order], number) for number in range(len(self._run))]
            fewest, number = min((len(each), number) for number, each in enumerate(found[order]))
            if fewest <= NotFinite.most_samples * len(self._run.sample_ids(number)):
                lost.update(found[order][number].tolist())
        samples = np.array(sorted(lost), np.int64)
        rest = broken.copy()
        for order, each in found.items():
            rest[order] = [len(np.setdiff1d(some, samples)) > 0 for some in each]
        return samples, rest

    def _table(self, layers: Sequence[str]) -> pd.DataFrame:
        """Return the rows of `NotFinite.layers`."""
        rows = []
        for name in layers:
            by_channel = (self.counts(name) > 0).sum(axis=1)
            some = by_channel[by_channel > 0]
            rows.append((name, len(some), len(by_channel), int(some.min()), self.counts(name).shape[1]))
        return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS) if rows else _no_rows(_COLUMNS)

    def _nothing_left(self, layers: Sequence[str]) -> str:
        first = find_diverged(self._run, layers)["first"].iloc[0]
        stayed = [name for name in layers if not self.at(name).all()]
        others = f", or pass layers that stayed finite, such as {', '.join(map(repr, stayed[:3]))}" if stayed else ""
        partly = [name for name in layers if (self.counts(name) > 0).mean(axis=1).min() <= MOST_CHANNELS]
        if partly and len(layers) > 1 and not stayed:
            others = f". Most channels of {partly[0]!r} are finite, and shown by a report, or an analysis, of it alone"
        n, first = len(self._run), repr(first)
        who = f"layer {first}" if len(layers) == 1 else "layers"
        before = "" if len(layers) == 1 else f" (at the first, {first} before others)"
        return (
            f"at {f'each of the {n} snapshots' if n > 1 else 'the one snapshot'}, {who} gave NaN or infinite values"
            f"{before}: there is nothing to analyze. Look at the training: a lower learning rate, or gradient "
            f"clipping{others}"
        )


def _choose(broken: Flags) -> Flags:
    """Say which layers are kept, by where they are not finite, ndarray of shape (n_layers, n_snapshots)."""
    counts, n_snapshots = broken.sum(axis=1), broken.shape[1]
    worst_first = sorted(range(len(broken)), key=lambda order: (-int(counts[order]), -order))
    dropped, most = 0, 0
    for count in range(len(broken)):
        rest = worst_first[count:]
        left = len(rest) * int((~broken[rest].any(axis=0)).sum())
        if left > most:
            dropped, most = count, left
        if 2 * counts[worst_first[count]] <= n_snapshots and most:
            break
    kept: Flags = np.full(len(broken), most > 0)
    kept[worst_first[:dropped]] = False
    return kept


def finite_parts(runs: Sequence["Run"], layers: Sequence[str], *, chosen: bool) -> list[FinitePart]:
    """Return the finite parts of several runs, all of the same layers.

    Parameters
    ----------
    runs : sequence of Run
        The runs.
    layers : sequence of str
        Names of layers that all of them have.
    chosen : bool
        Whether they were asked for by name, and all have to be kept.

    Raises
    ------
    ValueError
        Where nothing is left.
    """
    parts = []
    for run in runs:
        try:
            parts.append(run.finiteness.part(layers, chosen=chosen))
        except ValueError as error:
            if len(runs) == 1:
                raise
            raise ValueError(f"of {run.path}, {error}") from None
    names = [name for name in layers if all(name in part.layers for part in parts)]
    if not names:
        raise ValueError(
            "no layer is finite at a snapshot of each of the runs: "
            + "; ".join(f"{run.path} has {', '.join(part.layers)}" for run, part in zip(runs, parts, strict=True))
        )
    if len(names) == len(layers):
        return parts
    common = [run.finiteness.part(names, chosen=True) for run in runs]
    return [
        replace(again, left_out=replace(again.left_out, layers=part.left_out.layers))
        for again, part in zip(common, parts, strict=True)
    ]


def samples_left_out(parts: Sequence[FinitePart]) -> Labels:
    """Return the dataset indices of the samples that parts leave out, ascending."""
    found: Labels = np.unique(np.concatenate([part.left_out.samples for part in parts]))
    return found
