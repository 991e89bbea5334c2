"""Products of all pairs of vectors: against NumPy's own, and on a cluster bit for bit what they are here."""

from concurrent.futures import Executor
from functools import partial
from operator import itemgetter

import numpy as np
import pytest

from fmcluster.analysis._parallel import keep_each
from fmcluster.analysis.representation import all_pairs, all_pairs_on_cluster

SIZE = 70_001  # more than one step, and no multiple of it


def unit_vectors(seed: int, *, count: int) -> list[np.ndarray]:
    """Return vectors of unit length, of which the second is zero."""
    values = np.random.default_rng(seed).normal(size=(count, SIZE))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    values[1] = 0
    return list(values.astype(np.float32))


def test_products_are_those_of_numpy_and_nan_where_a_vector_is_zero() -> None:
    rows, columns = unit_vectors(0, count=4), unit_vectors(1, count=3)
    expected = np.stack(rows).astype(np.float64) @ np.stack(columns).T
    expected[1], expected[:, 1] = np.nan, np.nan
    np.testing.assert_allclose(all_pairs(rows, columns), expected, rtol=0, atol=1e-12)
    assert all_pairs(rows, rows)[0, 0] == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_a_cluster_finds_the_same_bits(cluster: Executor) -> None:
    seeds = [0, 1, 2]
    rows, columns = unit_vectors(0, count=8), [each for seed in (1, 2) for each in unit_vectors(seed, count=8)]
    made = keep_each(partial(unit_vectors, count=8), seeds, executor=cluster)
    everything = rows + columns
    np.testing.assert_array_equal(
        all_pairs_on_cluster(made, itemgetter(slice(None))), all_pairs(everything, everything)
    )
    np.testing.assert_array_equal(
        all_pairs_on_cluster(made, itemgetter(slice(None)), n_rows=8), all_pairs(rows, columns)
    )
