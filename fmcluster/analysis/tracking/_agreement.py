"""Agreement of labels: how far two labels of the same rows agree, and how far unrelated ones would."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.special import entr
from scipy.stats import random_table
from sklearn.metrics.cluster import expected_mutual_information

from .._results import NOISE, Array, Labels

MEASURES = ("churn", "ari", "ami")
_MOST_CELLS = 1 << 20
# A null's limit: what one in twenty pairs of unrelated labels goes beyond. Agreement is little churn, but much ARI.
_LIMITS = {"churn": 0.05, "ari": 0.95, "ami": 0.95}


def tabulate(before: Labels, after: Labels) -> npt.NDArray[np.int64]:
    """Count the rows of each two labels, noise left out.

    Returns
    -------
    ndarray of shape (n_names, n_names), int64
        The same names along both axes, by their first row: what they are does not matter.
    """
    both = (before != NOISE) & (after != NOISE)
    _, first, numbers = np.unique(np.concatenate([before[both], after[both]]), return_index=True, return_inverse=True)
    count = len(first)
    here, there = np.argsort(np.argsort(first))[numbers].reshape(2, -1)
    return np.bincount(here * count + there, minlength=count**2).reshape(count, count)


def agree(tables: npt.NDArray[np.int64], *, matched: bool) -> Array:
    """Measure the agreement that tables of counts show.

    Parameters
    ----------
    tables : ndarray of shape (n_tables, n_names, n_names), int64
        As `tabulate` makes them, all with the same sums along either axis.
    matched : bool
        Whether a name means nothing: clusters are then matched so that churn is the least that it can be.

    Returns
    -------
    ndarray of shape (n_tables, 3), float64
        Churn (share of the rows whose cluster is another), adjusted Rand index, adjusted mutual information with the
        arithmetic mean of the entropies. NaN where no row is in a cluster in both.

    References
    ----------
    L. Hubert and P. Arabie, "Comparing Partitions", Journal of Classification 2, 1985. N. X. Vinh, J. Epps and
    J. Bailey, "Information Theoretic Measures for Clusterings Comparison", JMLR 11, 2010.
    """
    n_rows = int(tables[0].sum())
    if not n_rows:
        return np.full((len(tables), len(MEASURES)), np.nan)
    rows, columns = tables[0].sum(axis=1), tables[0].sum(axis=0)
    kept = _matched(tables) if matched else np.trace(tables, axis1=1, axis2=2)
    return np.stack([1 - kept / n_rows, _ari(tables, rows, columns), _ami(tables, rows, columns)], axis=1)


def unrelated(table: npt.NDArray[np.int64], *, n_permutations: int, matched: bool, random_state: int) -> Array:
    """Measure the agreement of labels that were permuted at random, drawn from their exact distribution.

    Parameters
    ----------
    table : ndarray of shape (n_names, n_names), int64
        Made by `tabulate`.
    n_permutations : int
        How many permutations; none give NaN.
    matched : bool
        As of `agree`.
    random_state : int
        Seed.

    Returns
    -------
    ndarray of shape (2, 3), float64
        Of each measure the mean, and its limit: the 5 % quantile of churn, the 95 % quantiles of ARI and AMI.

    References
    ----------
    W. M. Patefield, "An Efficient Method of Generating Random R x C Tables with Given Row and Column Totals", Applied
    Statistics 30, 1981.
    """
    if not n_permutations or not table.sum():
        return np.full((2, len(MEASURES)), np.nan)
    found = np.concatenate([agree(drawn, matched=matched) for drawn in _draw(table, n_permutations, random_state)])
    limits = [np.quantile(found[:, i], _LIMITS[name]) for i, name in enumerate(MEASURES)]
    return np.stack([found.mean(axis=0), limits])


def _draw(table: npt.NDArray[np.int64], count: int, random_state: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield a few tables with the same sums at a time."""
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    if min((rows > 0).sum(), (columns > 0).sum()) < 2:
        yield table[None]  # there is no other
        return
    random, rng = random_table(rows, columns), np.random.default_rng(random_state)
    most = max(1, _MOST_CELLS // table.size)
    for start in range(0, count, most):
        drawn = random.rvs(min(most, count - start), random_state=rng)
        yield np.asarray(drawn, dtype=np.int64).reshape(-1, *table.shape)


def _matched(tables: npt.NDArray[np.int64]) -> Array:
    return np.array([table[linear_sum_assignment(table, maximize=True)].sum() for table in tables], np.float64)


def _ari(tables: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Array:
    n_rows = float(rows.sum())
    together = (tables.astype(np.float64) ** 2).sum(axis=(1, 2))
    before, after = (rows.astype(np.float64) ** 2).sum(), (columns.astype(np.float64) ** 2).sum()
    # pairs that are together in both, in one only, and in neither
    both, first, second = together - n_rows, before - together, after - together
    neither = n_rows**2 - first - second - together
    above = 2 * (both * neither - first * second)
    below = (both + first) * (first + neither) + (both + second) * (second + neither)
    same = (first == 0) & (second == 0)
    found: Array = np.where(same, 1.0, above / np.where(same, 1.0, below))
    return found


def _ami(tables: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Array:
    n_rows = int(rows.sum())
    single = int((rows > 0).sum() == 1) + int((columns > 0).sum() == 1)
    if single:
        return np.full(len(tables), 1.0 if single == 2 else 0.0)
    here, there = entr(rows / n_rows).sum(), entr(columns / n_rows).sum()
    information = here + there - entr(tables / n_rows).sum(axis=(1, 2))
    expected = expected_mutual_information(tables[0][rows > 0][:, columns > 0], n_rows)
    room = (here + there) / 2 - expected
    if room <= 1e-12 * max(expected, 1.0):  # every row by itself: no labels with these sizes could agree less
        return np.ones(len(tables))
    found: Array = (information - expected) / room
    return found
