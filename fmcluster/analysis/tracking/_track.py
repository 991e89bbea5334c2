"""Tracking: which rows stay in their cluster from snapshot to snapshot, and which move."""

from functools import partial

import numpy as np
import pandas as pd

from .._results import NOISE, Clusters, History, Labels
from .._validation import require
from ._agreement import MEASURES, agree, tabulate, unrelated
from ._noise_floor import NoiseFloor, noise_floor_between
from ._transitions import by_label, by_members, lives_by_label, lives_by_members, tabulate_transitions

STEP = ["from_snapshot", "to_snapshot", "from_epoch", "to_epoch"]


def track(
    clusters: Clusters,
    *,
    noise_floor: NoiseFloor | Clusters | None = None,
    overlap: float = 0.5,
    split: float = 0.25,
    n_permutations: int = 100,
    random_state: int = 0,
) -> History:
    """Follow every row, and every cluster, from snapshot to snapshot.

    A row stays where the name of its cluster is the same, and moves where it is another. Noise is no cluster: a row
    that is noise before or after has neither stayed nor moved, and counts in no measure of agreement.

    Clusters of all snapshots at once, or of one epoch, have labels that mean the same everywhere: a cluster survives
    as long as its label has members. Clusters of each snapshot are followed by their members (MONIC), and may split
    and merge, too; their names only say which of them share most.

    How much is much? Each step's churn, adjusted Rand index (ARI) and adjusted mutual information (AMI) stand beside
    their null, which labels with nothing in common would have, and their noise floor, which clustering the same rows
    twice already has with no change at all.

    Parameters
    ----------
    clusters : Clusters
        Made by `cluster`.
    noise_floor : NoiseFloor or Clusters, optional
        Made by `noise_floor` with the same clusterer; or other clusters of the same rows, of a clusterer with another
        seed, or of another run. The noise floor of a step is the mean of those of its two snapshots. By default not
        available.
    overlap : float
        Of clusters of each snapshot: the share of its members, from 0.5 to 1, with which a cluster survives in another.
    split : float
        The share that each part of a split has, at most `overlap`.
    n_permutations : int
        How often labels are permuted for the null; 0 for none.
    random_state : int
        Seed of the permutations.

    Returns
    -------
    History
        Rows and clusters, step by step and over their lives.

    Raises
    ------
    TypeError
        For what is not clusters, or not a noise floor.
    ValueError
        For thresholds out of range, a noise floor of something else, or clusters of several runs.

    References
    ----------
    M. Spiliopoulou, I. Ntoutsi, Y. Theodoridis and R. Schult, "MONIC: Modeling and Monitoring Cluster Transitions",
    KDD 2006. L. Hubert and P. Arabie, "Comparing Partitions", Journal of Classification 2, 1985. N. X. Vinh, J. Epps
    and J. Bailey, "Information Theoretic Measures for Clusterings Comparison", JMLR 11, 2010.
    """
    require(clusters, Clusters, verb="track", made_by="cluster(scores, clusterer)")
    if "run" in clusters.rows:
        runs = clusters.rows["run"].unique().tolist()
        raise ValueError(
            f"the clusters are of runs {runs}, and from the last snapshot of one to the first of the next nothing "
            f"moves; track one: track(clusters.of_run({runs[0]}))"
        )
    if not (0.5 <= overlap <= 1 and 0 < split <= overlap):
        raise ValueError(
            f"overlap is {overlap} and split is {split}; expected 0.5 <= overlap <= 1 and 0 < split <= overlap"
        )
    if n_permutations < 0:
        raise ValueError(f"n_permutations is {n_permutations}; expected 0 or more")
    if isinstance(noise_floor, Clusters):
        noise_floor = noise_floor_between(clusters, noise_floor)
    if noise_floor is not None:
        made_by = "noise_floor(vectors, clusterer), or Clusters"
        require(noise_floor, NoiseFloor, verb="track(noise_floor=...)", made_by=made_by)
        noise_floor.check(clusters)
    frame = _moves(clusters)
    sizes = clusters.frame.groupby(["snapshot", "cluster"]).size().unstack(fill_value=0)
    flow = frame.groupby([*STEP[:2], "from_cluster", "to_cluster"]).size().rename("count").reset_index()
    labels, snapshots = clusters.by_snapshot(clusters.labels), clusters.rows["snapshot"].unique().tolist()
    apart = clusters.fit == "each"
    follow = partial(by_members, overlap=overlap, split=split) if apart else by_label
    transitions = tabulate_transitions(
        [
            (snapshots[order], snapshots[order + 1], transition)
            for order in range(len(labels) - 1)
            for transition in follow(labels[order], labels[order + 1])
        ]
    )
    counts = sizes.drop(columns=NOISE, errors="ignore")
    steps = _steps(frame)
    measures = _measures(clusters, noise_floor=noise_floor, n_permutations=n_permutations, random_state=random_state)
    return History(
        clusters=clusters,
        frame=frame,
        flow=flow,
        steps=pd.concat([steps, measures], axis=1),
        sizes=sizes,
        lives=lives_by_members(transitions, counts) if apart else lives_by_label(counts),
        transitions=transitions,
        rows=_rows(clusters),
        noise_floor=None if noise_floor is None else noise_floor.source,
    )


def _moves(clusters: Clusters) -> pd.DataFrame:
    """Return a row of the table for every row of the view and step."""
    size = len(clusters.rows) // clusters.n_snapshots
    frame = clusters.frame
    before = frame.iloc[:-size].reset_index(drop=True)
    after = frame.iloc[size:].reset_index(drop=True)
    moves = pd.DataFrame(
        {
            "from_snapshot": before["snapshot"],
            "to_snapshot": after["snapshot"],
            "from_epoch": before["epoch"],
            "to_epoch": after["epoch"],
            **{name: before[name] for name in clusters.identity},
            "from_cluster": before["cluster"],
            "to_cluster": after["cluster"],
        }
    )
    clustered = (moves["from_cluster"] != NOISE) & (moves["to_cluster"] != NOISE)
    return moves.assign(moved=clustered & (moves["from_cluster"] != moves["to_cluster"]))


def _steps(frame: pd.DataFrame) -> pd.DataFrame:
    clustered = (frame["from_cluster"] != NOISE) & (frame["to_cluster"] != NOISE)
    table = frame.assign(n_rows=clustered, stayed=clustered & ~frame["moved"])
    return table.groupby(STEP)[["n_rows", "stayed"]].sum().astype("int64").reset_index()


def _measures(
    clusters: Clusters, *, noise_floor: NoiseFloor | None, n_permutations: int, random_state: int
) -> pd.DataFrame:
    """Return churn, ARI and AMI of each step, then their noise floors and their nulls."""
    labels, snapshots = clusters.by_snapshot(clusters.labels), clusters.rows["snapshot"].unique()
    matched = clusters.fit == "each"
    found, lines = [], []
    for order in range(len(labels) - 1):
        table = tabulate(labels[order], labels[order + 1])
        found.append(agree(table[None], matched=False)[0])
        null, limit = unrelated(
            table, n_permutations=n_permutations, matched=matched, random_state=random_state + order
        )
        lowest = np.full((2, len(MEASURES)), np.nan)
        if noise_floor is not None:
            lowest = noise_floor.between(snapshots[order], snapshots[order + 1])
        lines.append(np.stack([*lowest, null, limit], axis=1).ravel())
    levels = ("noise_floor", "noise_floor_limit", "null", "null_limit")
    names = [f"{measure}_{level}" for measure in MEASURES for level in levels]
    return pd.concat(
        [
            pd.DataFrame(np.reshape(found, (-1, len(MEASURES))), columns=list(MEASURES)),
            pd.DataFrame(np.reshape(lines, (-1, len(names))), columns=names),
        ],
        axis=1,
    ).astype("float64")


def _rows(clusters: Clusters) -> pd.DataFrame:
    """Return the life of each row of the view."""
    labels: Labels = clusters.by_snapshot(clusters.labels)
    snapshots = clusters.rows["snapshot"].unique()
    noise = labels == NOISE
    moved = (labels[1:] != labels[:-1]) & ~noise[1:] & ~noise[:-1]
    # how many of the last snapshots have the label of the last one
    unbroken = np.logical_and.accumulate(labels[::-1] == labels[-1]).sum(axis=0)
    converged = pd.array(snapshots[len(labels) - unbroken], dtype="Int64")
    converged[noise[-1]] = pd.NA
    first = clusters.rows.iloc[: labels.shape[1]][clusters.identity]
    return first.assign(
        first_cluster=labels[0],
        last_cluster=labels[-1],
        n_clusters=sum(
            ((labels == name).any(axis=0).astype(int) for name in clusters.names), np.zeros(labels.shape[1], int)
        ),
        n_moves=moved.sum(axis=0),
        n_noise=noise.sum(axis=0),
        converged=converged,
    )
