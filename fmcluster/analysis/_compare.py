"""Comparison of runs on one probe set: a shared basis, similarity of layers, and channels that do the same work."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial, reduce

import numpy as np
import pandas as pd

from ..store import Layer, NotFinite, Run, finite_parts, samples_left_out
from ._parallel import run_each
from ._results import MAX_BYTES, Labels, Scores
from ._stacked import StackedLayers
from ._summarized import Summarized
from ._validation import require
from .components import pca
from .diagnosis import NONE, Thresholds, chosen_layers, correlate_channels, draw_samples, match_channels
from .representation import similarity


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Summarized):
    """What `compare` found. The runs are numbered in the order they were handed over, from 0.

    Attributes
    ----------
    runs : DataFrame
        One row per run: ``run, name`` (of its folder), ``path, snapshots`` (how many).
    samples : ndarray of shape (n_samples,), int64
        Dataset indices of the samples that all snapshots of all runs hold.
    scores : mapping of str to Scores
        Per layer, the principal component scores of all runs' rows on one basis. Their rows have a column ``run``, and
        ``snapshot`` counts through the runs: first those of run 0, then those of run 1. What is made of them can be
        taken apart: ``cluster(scores["fc"], clusterer).of_run(1)``. An embedding takes the seam between two runs for a
        step.
    frame : DataFrame
        Debiased CKA between run 0 and each other run, of each layer, for all pairs of snapshots: ``layer, run,
        snapshot, epoch, step, other_run, other_snapshot, other_epoch, other_step, cka``.
    matches : DataFrame
        Per layer, the channels of run 0 at its last snapshot, and the ones of each other run at its last that do the
        same work: ``layer, other_run, channel, other_channel`` (missing where one of them is dead), ``correlation``
        (of the centered responses).
    metrics : DataFrame
        What was recorded beside the snapshots: ``run, snapshot, epoch, step``, and a column per metric, NaN where a run
        has none.
    across : DataFrame
        Debiased CKA of every layer of run 0 at its last snapshot with every layer of each other run at its last:
        ``layer, other_run, other_layer, cka``.
    not_finite : tuple of NotFinite
        Of each run, the snapshots, layers and samples that were left out, as values were NaN or infinite.
    """

    runs: pd.DataFrame
    samples: Labels
    scores: Mapping[str, Scores]
    frame: pd.DataFrame
    matches: pd.DataFrame
    metrics: pd.DataFrame
    across: pd.DataFrame = field(default_factory=pd.DataFrame)
    not_finite: tuple[NotFinite, ...] = ()

    @property
    def left_out(self) -> list[str]:
        """What was left out, in sentences that begin with the run's number."""
        return [f"Run {number}: {line}" for number, each in enumerate(self.not_finite) for line in each.lines]

    def by_epoch(self, other: int) -> pd.DataFrame:
        """Return the CKA of each layer between run 0 and another, at the last snapshots of the epochs that both have.

        Parameters
        ----------
        other : int
            The other run's number.

        Returns
        -------
        DataFrame
            A row per layer, in forward order, a column per epoch; NaN where CKA is not defined.

        Raises
        ------
        ValueError
            If there is no such run, or no such epoch.
        """
        if apart := self.apart(other):
            raise ValueError(
                f"{apart}: record both at the same epochs; `comparison.frame` holds all pairs of snapshots"
            )
        return self.side_by_side(other).droplevel("other_epoch", axis="columns")

    def side_by_side(self, other: int) -> pd.DataFrame:
        """Return the CKA of each layer between run 0 and another at the snapshots that are shown side by side.

        Parameters
        ----------
        other : int
            The other run's number.

        Returns
        -------
        DataFrame
            A row per layer, in forward order. A column per pair of epochs, one of either run: as of `by_epoch`; of runs
            without an epoch in common, those of their last snapshots alone.

        Raises
        ------
        ValueError
            If there is no such run.
        """
        frame = self._at_ends_of_epochs(other)
        shown = frame[frame["epoch"] == frame["other_epoch"]]
        if shown.empty:
            last = frame[["snapshot", "other_snapshot"]].eq(frame[["snapshot", "other_snapshot"]].max())
            shown = frame[last.all(axis=1)]
        table = shown.pivot(index="layer", columns=["epoch", "other_epoch"], values="cka")
        return table.reindex(self.frame["layer"].unique()).sort_index(axis="columns")

    def apart(self, other: int) -> str:
        """Say that run 0 and another have no epoch in common at which both are finite; nothing where they have one."""
        frame = self._at_ends_of_epochs(other)
        if (frame["epoch"] == frame["other_epoch"]).any():
            return ""
        finite = "" if all(each.snapshots.empty for each in self.not_finite) else " at which both are finite"
        here, there = _listed(frame["epoch"]), _listed(frame["other_epoch"])
        return f"run 0 and run {other} have no epoch in common{finite} (epochs {here}; epochs {there})"

    def _at_ends_of_epochs(self, other: int) -> pd.DataFrame:
        """Return the rows of `frame` of another run, at the last snapshots of epochs."""
        others = self.runs["run"].tolist()[1:]
        if other not in others:
            raise ValueError(f"received the run {other!r}; expected one of {', '.join(map(str, others))}")
        frame = self.frame[self.frame["other_run"] == other]
        last = frame.groupby("epoch")["snapshot"].transform("max") == frame["snapshot"]
        last &= frame.groupby("other_epoch")["other_snapshot"].transform("max") == frame["other_snapshot"]
        return frame[last]


def _listed(epochs: pd.Series) -> str:
    return ", ".join(str(epoch) for epoch in sorted(epochs.unique()))


def compare(
    run: Run,
    other: Run | Sequence[Run],
    *,
    layers: Sequence[str] | None = None,
    view: str = "channel",
    n_components: int = 50,
    max_bytes: int = MAX_BYTES,
    random_state: int = 0,
    executor: Executor | None = None,
) -> Comparison:
    """Compare the layers of runs on one probe set: a frozen backbone with a full fine-tuning, or two seeds.

    Samples are aligned by dataset index, and must be the same images where both runs know their digests. What is not
    finite is left out, as `Run.finite_part` says, and named in `Comparison.not_finite`.

    Parameters
    ----------
    run : Run
        Made by `open_run`: what the others are compared with.
    other : Run or sequence of Run
        One run or several.
    layers : sequence of str, optional
        Names of layers; by default all that every run has and that are finite at a snapshot of each. Those that differ
        in shape or in the channels kept have no shared basis and no matched channels, only CKA.
    view : str
        What a row of the shared basis is: see `Layer.vectors`.
    n_components : int
        Of the shared basis.
    max_bytes : int
        Memory that may be taken above what is in use; of each worker, where there is an executor.
    random_state : int
        Seed of the samples drawn for CKA, where there are more than 2,000 (or than the budget has room for), and of
        `pca`.
    executor : concurrent.futures.Executor, optional
        Where the parts are worked on; by default here, one after the other.

    Returns
    -------
    Comparison
        Shared scores, CKA, matched channels, and the metrics side by side.

    Raises
    ------
    TypeError
        For what is not a run.
    KeyError
        For a layer that a run does not have.
    ValueError
        Where the runs have no layer or fewer than 4 samples in common, or one dataset index stands for two images.
    MemoryError
        Where the products of a layer's channels do not fit into `max_bytes`.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee, G. Hinton, Similarity of neural network representations revisited, ICML 2019;
    Y. Li, J. Yosinski, J. Clune, H. Lipson, J. Hopcroft, Convergent learning, ICLR 2016 (matched channels).
    """
    require(run, Run, verb="compare", made_by="open_run(path)")
    others = [other] if isinstance(other, Run) else _checked(other)
    runs = [run, *others]
    parts = finite_parts(runs, _common_layers(runs, layers), chosen=layers is not None)
    names = parts[0].layers
    samples = _common_samples(runs, without=samples_left_out(parts))
    n_items = 2 * len(names) * max(map(len, runs))
    drawn = draw_samples(samples, n_items=n_items, max_bytes=max_bytes, random_state=random_state)
    frames, across = [], []
    for number, each in enumerate(others, start=1):
        similar = similarity(run, each, layers=names, samples=drawn, max_bytes=max_bytes, executor=executor)
        frames += [_pairs(similar.values, similar.rows, similar.columns, name=name, number=number) for name in names]
        across.append(_across(similar.values, similar.rows, similar.columns, number=number))
    stacks = {name: StackedLayers(tuple(each[name] for each in runs)) for name in names}
    shared = {name: stack for name, stack in stacks.items() if _are_of_one_shape(stack.layers)}
    finite = [part.snapshots for part in parts]
    starts = np.cumsum([0, *map(len, runs)])
    numbers = [int(start) + number for start, some in zip(starts, finite, strict=False) for number in some]
    match = partial(_match, ends=[some[-1] for some in finite], samples=samples, max_bytes=max_bytes)
    tasks = [(stack, number) for stack in shared.values() for number in range(1, len(runs))]
    matches = list(run_each(match, tasks, executor=executor))
    return Comparison(
        runs=pd.DataFrame(
            {
                "run": range(len(runs)),
                "name": [each.name for each in runs],
                "path": [each.path for each in runs],
                "snapshots": [len(each) for each in runs],
            }
        ),
        samples=samples,
        scores={
            name: pca(
                stack.vectors(view, snapshots=numbers, samples=samples),
                n_components=n_components,
                max_bytes=max_bytes,
                random_state=random_state,
                executor=executor,
            )
            for name, stack in shared.items()
        },
        frame=pd.concat(frames, ignore_index=True),
        matches=pd.concat(matches, ignore_index=True) if matches else _no_matches(),
        metrics=_metrics(runs),
        across=pd.concat(across, ignore_index=True),
        not_finite=tuple(part.left_out for part in parts),
    )


def _checked(others: object) -> list[Run]:
    if isinstance(others, str) or not isinstance(others, Sequence) or not others:
        raise TypeError(f"others is {others!r}; expected a Run, or a sequence of Runs")
    for each in others:
        require(each, Run, verb="compare", made_by="open_run(path)")
    return [*others]


def _common_layers(runs: Sequence[Run], layers: Sequence[str] | None) -> list[str]:
    names = chosen_layers(runs[0], layers)
    if layers is None:
        names = [name for name in names if all(name in each for each in runs[1:])]
        if not names:
            raise ValueError(f"the runs have no layer in common: {'; '.join(', '.join(each.layers) for each in runs)}")
    for each in runs[1:]:
        for name in names:
            each[name]  # a layer that is not there is an error with a hint
    return names


def _common_samples(runs: Sequence[Run], *, without: Labels) -> Labels:
    """Return what all snapshots of all runs hold, but for some, and see that an index stands for one image."""
    held = []
    for each in runs:
        each.resolve(snapshot=0)
        held.append(each.common_samples(range(len(each))))
    common = held[0][np.isin(held[0], reduce(np.intersect1d, held)) & ~np.isin(held[0], without)]
    if len(common) < 4:
        raise ValueError(f"the runs have {len(common)} samples in common; at least 4 are needed to compare them")
    for number, each in enumerate(runs[1:], start=1):
        if "digest" not in runs[0].samples or "digest" not in each.samples:
            continue
        differ = (
            runs[0].samples["digest"].reindex(common).to_numpy() != each.samples["digest"].reindex(common).to_numpy()
        )
        if differ.any():
            raise ValueError(
                f"sample {common[differ][0]} is one image in {runs[0].path} and another in {each.path} (run {number}), "
                f"by their digests, and {int(differ.sum()) - 1} more are. Compare runs that were recorded on one probe "
                f"set with one transform."
            )
    return common


def _pairs(values: np.ndarray, rows: pd.DataFrame, columns: pd.DataFrame, *, name: str, number: int) -> pd.DataFrame:
    """Return the CKA of a layer at every snapshot with itself in another run at every snapshot."""
    here, there = np.flatnonzero(rows["layer"] == name), np.flatnonzero(columns["layer"] == name)
    left, right = np.repeat(here, len(there)), np.tile(there, len(here))
    time = ["snapshot", "epoch", "step"]
    before = rows.iloc[left][time].reset_index(drop=True)
    after = columns.iloc[right][time].reset_index(drop=True).add_prefix("other_")
    frame = pd.concat(
        [before.assign(layer=name, run=0), after.assign(other_run=number, cka=values[left, right])], axis=1
    )
    return frame[["layer", "run", *time, "other_run", *(f"other_{column}" for column in time), "cka"]]


def _across(values: np.ndarray, rows: pd.DataFrame, columns: pd.DataFrame, *, number: int) -> pd.DataFrame:
    """Return the CKA of every layer with every layer of another run, both at their last snapshots."""
    here, there = (np.flatnonzero(side["snapshot"] == side["snapshot"].max()) for side in (rows, columns))
    left, right = np.repeat(here, len(there)), np.tile(there, len(here))
    return pd.DataFrame(
        {
            "layer": rows["layer"].to_numpy()[left],
            "other_run": number,
            "other_layer": columns["layer"].to_numpy()[right],
            "cka": values[left, right],
        }
    )


def _are_of_one_shape(layers: Sequence[Layer]) -> bool:
    first = layers[0]
    return all(
        each.feature_map_shape == first.feature_map_shape and np.array_equal(each.channels, first.channels)
        for each in layers[1:]
    )


def _match(task: tuple[StackedLayers, int], *, ends: list[int], samples: Labels, max_bytes: int) -> pd.DataFrame:
    """Match a layer's channels in the first run with those in another, both at their last finite snapshots."""
    stack, number = task
    pair = StackedLayers((stack.layers[0], stack.layers[number]))
    both = [ends[0], len(stack.layers[0].snapshots) + ends[number]]
    vectors = pair.vectors("channel", snapshots=both, samples=samples)
    correlation = correlate_channels(vectors, dead=Thresholds().dead, max_bytes=max_bytes)
    to = match_channels(correlation)
    found = to != NONE
    return pd.DataFrame(
        {
            "layer": stack.layers[0].name,
            "other_run": number,
            "channel": stack.channels,
            "other_channel": pd.arrays.IntegerArray(stack.channels[np.where(found, to, 0)], ~found),
            "correlation": np.where(found, correlation[np.arange(len(to)), to], np.nan),
        }
    )


def _no_matches() -> pd.DataFrame:
    frame = pd.DataFrame(columns=["layer", "other_run", "channel", "other_channel", "correlation"])
    return frame.astype({"other_run": "int64", "channel": "int64", "other_channel": "Int64", "correlation": float})


def _metrics(runs: Sequence[Run]) -> pd.DataFrame:
    frame = pd.concat([each.metrics.assign(run=number) for number, each in enumerate(runs)], ignore_index=True)
    return frame[["run", *(column for column in frame if column != "run")]]
