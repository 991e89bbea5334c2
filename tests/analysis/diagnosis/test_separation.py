"""Nearest neighbors against scikit-learn, and halves of a layer against its channels."""

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from fmcluster.analysis.diagnosis._separation import half_grams, halves, leave_one_out_accuracy
from fmcluster.vectors._vectors import Vectors
from tests.analysis.array_source import ArraySource


def sample_view(maps):
    return Vectors(ArraySource(maps[None].astype(np.float32)), "sample", (0,), np.arange(len(maps)))


@pytest.mark.parametrize("n_neighbors", [1, 5])
@pytest.mark.parametrize("apart", [0, 1.5])
def test_the_accuracy_is_that_of_leaving_one_out(n_neighbors, apart):
    rng = np.random.default_rng(0)
    labels = np.repeat([4, 7], 30)  # two classes and an odd number: no ties
    values = rng.normal(size=(60, 5)) + apart * (labels == 7)[:, None]
    expected = cross_val_score(KNeighborsClassifier(n_neighbors), values, labels, cv=LeaveOneOut()).mean()
    found, chance, spread = leave_one_out_accuracy(values @ values.T, labels, n_neighbors=n_neighbors)
    assert found == pytest.approx(expected)
    assert abs(chance - 0.5) < 0.06
    assert 0 < spread < 0.15
    centered = values - values.mean(axis=0)
    assert leave_one_out_accuracy(centered @ centered.T, labels, n_neighbors=n_neighbors)[0] == pytest.approx(expected)


def test_of_classes_with_as_many_neighbors_the_nearest_wins():
    values = np.array([[0.0], [1.0], [-1.5], [10.0], [10.5]])
    labels = np.array([1, 1, 0, 2, 2])  # row 0 asks one neighbor of class 1, then one of class 0
    assert leave_one_out_accuracy(values @ values.T, labels, n_neighbors=2)[0] == pytest.approx(4 / 5)


def test_more_neighbors_than_there_are_is_all_of_them():
    values, labels = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 0, 1])
    assert leave_one_out_accuracy(values @ values.T, labels, n_neighbors=50)[0] == pytest.approx(3 / 4)


def test_every_half_meets_its_complement_once():
    found = halves(8)
    assert len(found) == 35
    assert all(sorted(one + other) == list(range(8)) and len(one) == 4 for one, other in found)
    assert len({tuple(one) for one, _ in found}) == 35
    assert halves(2) == [([0], [1])]
    assert halves(0) == []


@pytest.mark.parametrize(("n_channels", "expected"), [(1, 0), (2, 2), (3, 2), (7, 6), (8, 8), (21, 8)])
@pytest.mark.parametrize("block_bytes", [1 << 20, 200])
def test_groups_of_channels_add_up_to_the_layer_and_leave_dead_ones_out(n_channels, expected, block_bytes):
    maps = np.random.default_rng(1).normal(size=(6, n_channels + 1, 3, 2))
    alive = np.arange(n_channels + 1) != 1
    found = half_grams(sample_view(maps), alive=alive, block_bytes=block_bytes, random_state=0)
    assert found.shape == (expected, 6, 6)
    if expected:
        rows = maps[:, alive].reshape(6, -1)
        rows = rows - rows.mean(axis=0)
        np.testing.assert_allclose(found.sum(axis=0), rows @ rows.T, rtol=1e-5, atol=1e-5)
        sizes = [np.trace(gram) for gram in found]
        assert max(sizes) < 3 * min(sizes) + 60  # no group is empty
        assert min(sizes) > 0


def test_another_seed_draws_other_halves():
    maps = np.random.default_rng(1).normal(size=(6, 20, 3, 2))
    first, again, other = (
        half_grams(sample_view(maps), alive=np.ones(20, bool), block_bytes=1 << 20, random_state=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
