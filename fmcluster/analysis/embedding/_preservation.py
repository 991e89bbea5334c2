"""Faithfulness of an embedding: neighbor recall and trustworthiness in space, rank correlation in motion."""

from functools import partial

import numpy as np
from scipy.stats import rankdata, spearmanr
from sklearn.manifold import trustworthiness

from .._parallel import own_threads, run_each
from .._results import Array, Faithfulness
from ._neighbors import nearest_rows

N_NEIGHBORS = 15
# All pairs of so many rows are 32 MB; more of them hardly change a mean.
MOST_ROWS = 2000


def measure_faithfulness(vectors: Array, positions: Array) -> Faithfulness:
    """Compare an embedding with the vectors that it shows.

    Parameters
    ----------
    vectors : ndarray of shape (n_snapshots, n_rows, n_features)
        True vectors, or scores that keep their distances.
    positions : ndarray of shape (n_snapshots, n_rows, 2)
        Their positions in the embedding.

    Of more than 2,000 rows a snapshot, 2,000 are drawn (with a fixed seed), and compared among themselves.

    Returns
    -------
    Faithfulness
        Neighbor recall and trustworthiness within each snapshot, Spearman correlation of movements within each step.

    References
    ----------
    J. Venna and S. Kaski, "Neighborhood preservation in nonlinear projection methods: an experimental study",
    ICANN 2001 (trustworthiness).
    """
    if vectors.shape[1] > MOST_ROWS:
        drawn = np.sort(np.random.default_rng(0).choice(vectors.shape[1], MOST_ROWS, replace=False))
        vectors, positions = vectors[:, drawn], positions[:, drawn]
    n_rows = vectors.shape[1]
    # scikit-learn's trustworthiness needs fewer neighbors than half of the rows
    k = min(N_NEIGHBORS, max(1, (n_rows - 1) // 2))
    if n_rows < 3:
        recall = chance = trust = float("nan")
    else:
        with own_threads(None, most=len(vectors)) as workers:
            pairs = zip(vectors, positions, strict=True)
            kept = np.array(list(run_each(partial(_in_space, k), pairs, executor=workers)))
        recall, trust = kept.mean(axis=0).tolist()
        chance = k / (n_rows - 1)
    true = np.linalg.norm(np.diff(vectors, axis=0), axis=2)
    drawn = np.linalg.norm(np.diff(positions, axis=0), axis=2)
    steps = [_spearman(a, b) for a, b in zip(true, drawn, strict=True)]
    known = [step for step in steps if not np.isnan(step)]
    return Faithfulness(
        neighbor_recall=recall,
        neighbor_recall_chance=chance,
        n_neighbors=k,
        n_rows=n_rows,
        trustworthiness=trust,
        motion=float(np.mean(known)) if known else float("nan"),
        motion_pooled=_spearman(true.ravel(), drawn.ravel()),
    )


def _in_space(k: int, pair: tuple[Array, Array]) -> tuple[float, float]:
    """Return neighbor recall and trustworthiness within a snapshot."""
    one, other = (nearest_rows(rows, rows, count=k, others=True) for rows in pair)
    recall = float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(one, other, strict=True)]))
    return recall, float(trustworthiness(*pair, n_neighbors=k))


def _spearman(true: Array, drawn: Array) -> float:
    if true.size < 3 or np.ptp(rankdata(true)) == 0 or np.ptp(rankdata(drawn)) == 0:
        return float("nan")
    return float(spearmanr(true, drawn).statistic)
