"""Who stays in its cluster, and who moves."""

import pandas as pd

from .arguments import require
from .results import Clusters, History

NOISE = -1


def track(clusters: Clusters) -> History:
    """Follow every row, and every cluster, from snapshot to snapshot.

    The clusters were fitted on all snapshots at once, so that a label means the same in each: a row stays where its
    label is the same, and moves where it is another. Noise is no cluster: a row that is noise before or after has
    neither stayed nor moved.

    Parameters
    ----------
    clusters : Clusters
        Made by `cluster`, ``fit="pooled"``.

    Returns
    -------
    History
        Rows, flow between clusters, churn per step, and the sizes and lifetimes of clusters.

    Raises
    ------
    ValueError
        Where the clusters were not fitted on all snapshots at once.
    """
    require(clusters, Clusters, verb="track", made_by="cluster(scores, clusterer)")
    if clusters.fit != "pooled":
        raise ValueError(f'the clusters were fitted on {clusters.fit!r}; expected fit="pooled"')
    frame = _moves(clusters)
    counts = clusters.frame.groupby(["snapshot", "cluster"]).size().unstack(fill_value=0)
    between = ["from_snapshot", "to_snapshot"]
    flow = frame.groupby([*between, "from_cluster", "to_cluster"]).size().rename("count").reset_index()
    return History(
        clusters=clusters,
        frame=frame,
        flow=flow,
        steps=_steps(frame, [*between, "from_epoch", "to_epoch"]),
        sizes=counts,
        lives=_lives(counts),
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


def _steps(frame: pd.DataFrame, step: list[str]) -> pd.DataFrame:
    clustered = (frame["from_cluster"] != NOISE) & (frame["to_cluster"] != NOISE)
    table = frame.assign(n_rows=clustered, stayed=clustered & ~frame["moved"])
    steps = table.groupby(step)[["n_rows", "stayed"]].sum().astype("int64").reset_index()
    return steps.assign(churn=1 - steps["stayed"] / steps["n_rows"].where(steps["n_rows"] > 0))


def _lives(counts: pd.DataFrame) -> pd.DataFrame:
    alive = counts.drop(columns=NOISE, errors="ignore") > 0
    last = counts.index[-1]
    died = [alive.index[alive[name]][-1] for name in alive]
    return pd.DataFrame(
        {
            "cluster": list(alive.columns),
            "born": [alive.index[alive[name]][0] for name in alive],
            "died": pd.array([pd.NA if snapshot == last else snapshot for snapshot in died], dtype="Int64"),
        }
    )
