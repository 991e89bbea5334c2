"""Representatives: the row that stands for each cluster."""

import numpy as np
import pandas as pd

from .._results import NOISE, TIME_COLUMNS, Clusters, Scores
from .._validation import require


def representatives(clusters: Clusters, scores: Scores) -> pd.DataFrame:
    """Find, of each cluster at each snapshot, the member that is nearest to the mean of its members there.

    Parameters
    ----------
    clusters : Clusters
        Made by `cluster`.
    scores : Scores
        Made by `pca`, of the same rows.

    Returns
    -------
    DataFrame
        One row per snapshot and cluster that has members at it, noise left out: ``snapshot, epoch, step`` (and ``run``
        where there are several), ``cluster``, ``members`` (how many), the identity of the representative, such as
        ``channel``, ``row`` (its number among the rows of the snapshot, from 0) and ``distance`` (Euclidean, from the
        representative to the mean, in the units of the scores). Of members that are equally near, the first.

    Raises
    ------
    TypeError
        For what is no scores or no clusters.
    ValueError
        Where the two are not of the same rows.
    """
    require(clusters, Clusters, verb="representatives", made_by="cluster(scores, clusterer)")
    require(scores, Scores, verb="representatives", made_by='pca(layer.vectors("channel"))')
    clusters.check_same_rows(scores)
    by_snapshot = scores.by_snapshot(scores.values)
    size = by_snapshot.shape[1]
    found = []
    for order, (values, labels) in enumerate(zip(by_snapshot, clusters.by_snapshot(clusters.labels), strict=True)):
        for name in np.unique(labels[labels != NOISE]).tolist():
            members = np.flatnonzero(labels == name)
            away = np.linalg.norm(values[members] - values[members].mean(axis=0), axis=1)
            nearest = int(away.argmin())
            row = int(members[nearest])
            found.append((order * size + row, name, len(members), row, float(away[nearest])))
    columns = ["row_of_all", "cluster", "members", "row", "distance"]
    table = pd.DataFrame(found, columns=columns).astype(dict.fromkeys(columns[:4], "int64") | {"distance": "float64"})
    rows = clusters.rows.iloc[table["row_of_all"]].reset_index(drop=True)
    # `run` is of the time, though not a name of a row
    time = [name for name in rows.columns if name in TIME_COLUMNS]
    return pd.concat(
        [rows[time], table[["cluster", "members"]], rows[clusters.identity], table[["row", "distance"]]], axis=1
    )
