"""Similarity of layers: to one another, and over snapshots."""

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...store import FinitePart, NotFinite, Run, finite_parts, samples_left_out
from ...vectors import Vectors
from .._cka import FEWEST_SAMPLES, flatten_kernel, rbf_kernel, warn_of_bias
from .._layer_name import NamedLayer, layer_name
from .._parallel import is_cluster, keep_each, own_threads, run_each
from .._results import MAX_BYTES, Array
from .._summarized import Summarized
from .._validation import require
from ..components import BLOCK_BYTES, accumulate_gram
from ._channel_cca import compare_positions
from ._on_disk import Kept, on_disk
from ._pairs import all_pairs, all_pairs_on_cluster, without_constants

Metric = Literal["cka", "rbf_cka", "procrustes", "svcca", "pwcca"]
COMPARED = ("layer", "snapshot", "epoch", "step")  # what names a row, and a column
METRICS: tuple[Metric, ...] = ("cka", "rbf_cka", "procrustes", "svcca", "pwcca")


@dataclass(frozen=True, eq=False, repr=False)
class Similarity(Summarized):
    """Layers at snapshots against layers at snapshots.

    Attributes
    ----------
    values : ndarray of shape (n_rows, n_columns), float64
        1 is the same. NaN where a layer is constant over the samples (of a debiased alignment also where they are all
        equally far from one another).
    rows, columns : DataFrame
        ``layer, snapshot, epoch, step`` of each row and column: layers in forward order, snapshots within.
    metric : str
        What was measured.
    debiased : bool
        Whether a kernel alignment is the unbiased estimate.
    n_samples : int
        Over how many samples.
    left_out : ndarray of int64
        Dataset indices of samples that some snapshot, or one of two runs, does not hold.
    not_finite : tuple of NotFinite
        Of each run, the snapshots, layers and samples that were left out, as values were NaN or infinite.
    """

    values: Array
    rows: pd.DataFrame
    columns: pd.DataFrame
    metric: str
    debiased: bool
    n_samples: int
    left_out: npt.NDArray[np.int64]
    not_finite: tuple[NotFinite, ...] = ()

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for each pair: ``layer_a, snapshot_a, epoch_a, layer_b, snapshot_b, epoch_b, value``."""
        first, second = np.indices(self.values.shape).reshape(2, -1)
        named = ["layer", "snapshot", "epoch"]
        sides = [
            side[named].iloc[ordinals].add_suffix(end).reset_index(drop=True)
            for side, ordinals, end in ((self.rows, first, "_a"), (self.columns, second, "_b"))
        ]
        return pd.concat([*sides, pd.Series(self.values.ravel(), name="value")], axis=1)

    def between_layers(self, snapshot: int) -> pd.DataFrame:
        """Return layer against layer at one snapshot, by its number."""
        return self._part("snapshot", snapshot, label="layer")

    def between_snapshots(self, layer: NamedLayer | str) -> pd.DataFrame:
        """Return snapshot against snapshot of one layer: itself, or its name."""
        return self._part("layer", layer_name(layer), label="snapshot")

    def to_last(self) -> pd.DataFrame:
        """Return each layer at each snapshot against itself at the last (of the other run): snapshots x layers."""
        last = self.columns["snapshot"].max()
        return pd.DataFrame({name: self.between_snapshots(name)[last] for name in dict.fromkeys(self.rows["layer"])})

    def _part(self, column: str, value: str | int, *, label: str) -> pd.DataFrame:
        ordinals = [np.flatnonzero(side[column] == value) for side in (self.rows, self.columns)]
        if not all(map(len, ordinals)):
            known = [name for name in self.rows[column].unique() if (self.columns[column] == name).any()]
            raise ValueError(f"there is no {column} {value!r}; expected one of {', '.join(map(str, known))}")
        return pd.DataFrame(
            self.values[np.ix_(*ordinals)],
            index=pd.Index(self.rows[label].iloc[ordinals[0]], name=label),
            columns=pd.Index(self.columns[label].iloc[ordinals[1]], name=label),
        )


def similarity(
    run: Run,
    other: Run | None = None,
    *,
    metric: Metric = "cka",
    layers: Sequence[str] | None = None,
    snapshots: Sequence[int] | None = None,
    samples: Sequence[int] | npt.NDArray[np.int64] | None = None,
    debiased: bool = True,
    bandwidth: float = 0.5,
    n_directions: int | None = None,
    max_bytes: int = MAX_BYTES,
    executor: Executor | None = None,
) -> Similarity:
    """Compare every layer at every snapshot with every other, or with those of another run.

    The alignments (``"cka"``, ``"rbf_cka"``) and ``"procrustes"`` compare what a layer makes of whole samples. Each
    layer and snapshot is read once, for the inner products of its samples; all pairs come from these.

    The canonical correlations (``"svcca"``, ``"pwcca"``) compare channels over positions of samples: where two layers
    differ in size, both are averaged to the smaller height and width. Each pair is read by itself, so choose layers and
    snapshots.

    Parameters
    ----------
    run : Run
        Its layers at its snapshots are the rows.
    other : Run, optional
        Whose are the columns; by default the same.
    metric : {"cka", "rbf_cka", "procrustes", "svcca", "pwcca"}
        See `representations`.
    layers : sequence of str, optional
        Names; all by default, of two runs those that both have, but for those that are finite at no snapshot.
    snapshots : sequence of int, optional
        Numbers of snapshots, of both runs; by default all at which every one of the layers gave finite values. Where
        there would be none, layers and samples are left out, too, as `Run.finite_part` says; `Similarity.not_finite`
        names all that is.
    samples : sequence of int, optional
        Dataset indices, each once; by default all that every snapshot holds, of both runs, but for those left out.
    debiased : bool
        Whether an alignment is the unbiased estimate, which is 0 of independent noise.
    bandwidth : float
        Of ``"rbf_cka"``, as a share of the median distance.
    n_directions : int, optional
        Of ``"svcca"`` and ``"pwcca"``, the directions of largest variance kept of each layer; by default ``"svcca"``
        keeps those that hold 99 % of the variance, and ``"pwcca"`` all.
    max_bytes : int
        Memory that may be taken, above what is in use; of each worker, where there is an executor.
    executor : concurrent.futures.Executor, optional
        Where layers and snapshots, or pairs of them, are worked on; by default in threads, one for a core as far as
        memory goes.

    Returns
    -------
    Similarity
        Symmetric for one run, but for ``"pwcca"``: that weighs by the layer of the row.

    Raises
    ------
    TypeError
        For what is not a run, or a string for `layers`.
    KeyError
        For a layer that a run does not have.
    ValueError
        For an unknown metric, snapshot or sample, a sample named twice, fewer than 4 samples, activations that are not
        finite, or canonical correlations of no more points than the directions of both layers.
    MemoryError
        Where the products of one layer at one snapshot, or with ``"procrustes"`` of all, do not fit into `max_bytes`.
    OSError
        Where those of all layers and snapshots fit neither into `max_bytes` nor on the disk beside the run.

    Warns
    -----
    UserWarning
        Of a biased alignment where features outnumber samples.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee and G. Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019;
    `representations` has those of each metric.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; expected one of {', '.join(METRICS)}")
    runs = [run] if other is None else [run, other]
    for each in runs:
        require(each, Run, verb="similarity", made_by="open_run(path)")
    names = _shared_layers(runs, layers)
    parts: list[FinitePart] = []
    numbers: list[Sequence[int]]
    if snapshots is None:
        parts = finite_parts(runs, names, chosen=layers is not None)
        names, numbers = parts[0].layers, [part.snapshots for part in parts]
    else:
        numbers = [snapshots] * len(runs)
    chosen, left_out = _shared_samples(runs, names, numbers, samples)
    if samples is None and parts:
        chosen = chosen[~np.isin(chosen, samples_left_out(parts))]
    sides = [_vectors(each, names, some, chosen) for each, some in zip(runs, numbers, strict=True)]
    if len(chosen) < FEWEST_SAMPLES:
        raise ValueError(f"{len(chosen)} samples are too few to compare layers by; expected at least {FEWEST_SAMPLES}")
    if metric in ("svcca", "pwcca"):
        values = _correlate(sides, metric, n_directions=n_directions, max_bytes=max_bytes, executor=executor)
    else:
        everything = [vectors for side in sides for vectors in side]
        if metric != "procrustes" and not debiased:
            widest = [max(vectors.n_features for vectors in side) for side in sides]
            warn_of_bias(len(chosen), (widest[0], widest[-1]))
        workers, block_bytes, spilled = _plan_blocks(everything, metric, max_bytes, alone=executor is not None)
        make = partial(_prepare, metric=metric, debiased=debiased, bandwidth=bandwidth, block_bytes=block_bytes)
        with own_threads(executor, most=workers) as threads:
            if metric == "procrustes":
                roots = list(run_each(make, everything, executor=threads))
                values = _nuclear(roots[: len(sides[0])], None if other is None else roots[len(sides[0]) :], threads)
            elif threads is not None and is_cluster(threads):
                made = keep_each(make, everything, executor=threads)
                values = all_pairs_on_cluster(made, _only, n_rows=None if other is None else len(sides[0]))
            elif spilled:
                found = run_each(make, everything, executor=threads)
                with on_disk(found, beside=run.path, nbytes=spilled) as kept:
                    values = _pair(kept, len(sides[0]), alone=other is None)
            else:
                kernels = list(run_each(make, everything, executor=threads))
                values = _pair(kernels, len(sides[0]), alone=other is None)
    labels = [_labels(side) for side in sides]
    return Similarity(
        values=values,
        rows=labels[0],
        columns=labels[-1],
        metric=metric,
        debiased=debiased and metric in ("cka", "rbf_cka"),
        n_samples=len(chosen),
        left_out=left_out,
        not_finite=tuple(part.left_out for part in parts),
    )


def _shared_layers(runs: Sequence[Run], layers: Sequence[str] | None) -> list[str]:
    if isinstance(layers, str):
        raise TypeError(f"layers is the string {layers!r}; expected a sequence of names: [{layers!r}]")
    if layers is None:
        names = [name for name in runs[0].layers if all(name in run.layers for run in runs)]
        if not names:
            raise ValueError(f"the runs have no layer in common: {'; '.join(', '.join(run.layers) for run in runs)}")
        return names
    for name in layers:
        for run in runs:
            run[name]
    if not len(layers):
        raise ValueError("layers is empty; pass at least one, or None for all")
    return list(layers)


def _shared_samples(
    runs: Sequence[Run],
    names: Sequence[str],
    snapshots: Sequence[Sequence[int]],
    samples: Sequence[int] | npt.NDArray[np.int64] | None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the samples that all snapshots of all runs hold, in the first one's order, and those that some do not."""
    held = [
        run[names[0]].vectors("sample", snapshots=some, samples=samples)
        for run, some in zip(runs, snapshots, strict=True)
    ]
    if samples is not None:
        ids, counts = np.unique(held[0].samples, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"samples names {ids[counts > 1][0]} twice; expected each once")
        return held[0].samples, np.empty(0, np.int64)
    common = held[0].samples[np.isin(held[0].samples, held[-1].samples)]
    if not len(common):
        raise ValueError("the runs have no sample in common; they have to be of one probe set")
    anywhere = np.unique(np.concatenate([np.concatenate([each.samples, each.left_out]) for each in held]))
    return common, np.setdiff1d(anywhere, common)


def _vectors(run: Run, names: Sequence[str], snapshots: Sequence[int], samples: npt.NDArray[np.int64]) -> list[Vectors]:
    """Return the sample view of each layer at each snapshot."""
    whole = [run[name].vectors("sample", snapshots=snapshots, samples=samples) for name in names]
    return [vectors.at([number]) for vectors in whole for number in vectors.snapshots]


def _labels(side: Sequence[Vectors]) -> pd.DataFrame:
    tables = [
        vectors.source.snapshots.set_index("snapshot", drop=False).loc[list(vectors.snapshots)] for vectors in side
    ]
    return pd.concat(tables, ignore_index=True).assign(layer=[vectors.layer for vectors in side])[list(COMPARED)]


def _pair(kept: Sequence[Kept], n_rows: int, *, alone: bool) -> Array:
    rows = kept[:n_rows]
    return all_pairs(rows, rows if alone else kept[n_rows:])


def _only(kernel: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32]]:
    return (kernel,)


def _plan_blocks(everything: Sequence[Vectors], metric: str, max_bytes: int, *, alone: bool) -> tuple[int, int, int]:
    """Return how many layers and snapshots may be at work, `alone` one, and how large a block of each may be.

    The last number is how many bytes are kept on the disk, 0 where memory holds them.
    """
    # what is kept of each layer and snapshot, in float32, half of what is symmetric; of each that is at work a matrix
    # and its temporary copies, which are gone when pairs are compared; a block read, one waiting, one worked on
    count, n_samples = len(everything), len(everything[0].samples)
    kept = 4 * count * (n_samples**2 if metric == "procrustes" else n_samples * (n_samples + 1) // 2)
    largest = max(4 * n_samples * vectors.n_features for vectors in everything)
    for spilled in (0,) if metric == "procrustes" else (0, kept):
        for workers in range(1 if alone else os.cpu_count() or 1, 0, -1):
            # one more that is written to the disk, and one that waits
            waiting = 2 * spilled // count
            room = max_bytes - (waiting if spilled else kept)
            block_bytes = min(largest, (room // workers - 6 * n_samples**2 * 8) // 6)
            if block_bytes >= (4 * n_samples if workers == 1 else min(largest, BLOCK_BYTES)):
                return workers, block_bytes, spilled
    alone_bytes, of = 2 * kept // count, "one layer at one snapshot"
    if metric == "procrustes":
        alone_bytes, of = kept, f"{count} layers and snapshots"
    needed = alone_bytes + 6 * n_samples**2 * 8 + 16 * n_samples
    raise MemoryError(
        f"the inner products of {n_samples} samples at {of}, and the blocks they are made from, take "
        f"{needed >> 20:,} MiB, the budget is {max_bytes >> 20:,} MiB; take fewer samples, snapshots or layers, or "
        f"raise max_bytes"
    )


def _prepare(
    vectors: Vectors, *, metric: str, debiased: bool, bandwidth: float, block_bytes: int
) -> npt.NDArray[np.float32]:
    """Return what is kept of one layer at one snapshot."""
    gram = accumulate_gram(vectors, block_bytes=block_bytes)
    if metric == "procrustes":
        values, axes = np.linalg.eigh(gram)
        trace = max(values.sum(), 0)
        root = (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
        gram = root / np.sqrt(trace) if trace > 0 else np.zeros_like(root)
        return np.asarray(gram, dtype=np.float32)
    if metric == "rbf_cka":
        norms = np.diag(gram)
        squares = np.maximum(norms[:, None] + norms - 2 * gram, 0)
        gram = rbf_kernel(squares, bandwidth=bandwidth)
    return np.asarray(flatten_kernel(gram, debiased=debiased), dtype=np.float32)


def _nuclear(
    rows: Sequence[npt.NDArray[np.float32]],
    others: Sequence[npt.NDArray[np.float32]] | None,
    executor: Executor | None,
) -> Array:
    """Return the nuclear norms of the products of all pairs of square roots: those of the features' products."""
    alone = others is None
    columns = rows if others is None else others
    values = np.empty((len(rows), len(columns)))
    tasks = ((first, columns[i if alone else 0 :]) for i, first in enumerate(rows))
    for i, found in enumerate(run_each(_nuclear_norms, tasks, executor=executor)):
        values[i, len(columns) - len(found) :] = found
        if alone:
            values[i:, i] = found
    return without_constants(values, rows=[each.any() for each in rows], columns=[each.any() for each in columns])


def _nuclear_norms(task: tuple[npt.NDArray[np.float32], Sequence[npt.NDArray[np.float32]]]) -> list[float]:
    first = task[0].astype(np.float64)
    return [float(np.linalg.norm(first @ second, "nuc")) for second in task[1]]


def _correlate(
    sides: Sequence[Sequence[Vectors]],
    metric: str,
    *,
    n_directions: int | None,
    max_bytes: int,
    executor: Executor | None,
) -> Array:
    rows, columns = sides[0], sides[-1]
    alone = len(sides) == 1
    pairs = [(i, j) for i in range(len(rows)) for j in range(i if alone else 0, len(columns))]
    compare = partial(compare_positions, metric=metric, n_directions=n_directions, max_bytes=max_bytes)
    found = run_each(compare, [(rows[i], columns[j]) for i, j in pairs], executor=executor)
    values = np.empty((len(rows), len(columns)))
    for (i, j), (there, back) in zip(pairs, found, strict=True):
        values[i, j] = there
        if alone:
            values[j, i] = back
    return values
