"""How far a map can be believed."""

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from fmcluster.analysis.embedding._preservation import measure_faithfulness


def test_a_perfect_map_keeps_everything():
    values = np.random.default_rng(1).standard_normal((4, 50, 2))
    told = measure_faithfulness(values, values * 3)
    assert told.n_neighbors == 15
    assert told.neighbor_recall == 1
    assert told.neighbor_recall_chance == pytest.approx(15 / 49)
    assert told.trustworthiness == pytest.approx(1)
    assert told.motion == pytest.approx(1)
    assert told.motion_pooled == pytest.approx(1)


def test_a_random_map_keeps_what_chance_keeps():
    rng = np.random.default_rng(2)
    told = measure_faithfulness(rng.standard_normal((6, 200, 5)), rng.standard_normal((6, 200, 2)))
    assert told.neighbor_recall == pytest.approx(told.neighbor_recall_chance, abs=0.01)
    assert told.trustworthiness == pytest.approx(0.5, abs=0.05)
    assert abs(told.motion) < 0.1


def test_motion_is_measured_step_by_step():
    """Rows move in the right order within each step, but the map shows the large step as the small one."""
    true = np.zeros((3, 10, 1))
    true[1] = np.arange(10)[:, None]
    true[2] = true[1] + 100 + np.arange(10)[:, None]
    drawn = np.zeros((3, 10, 2))
    drawn[1, :, 0] = 50 * np.arange(10)
    drawn[2, :, 0] = drawn[1, :, 0] + 0.1 * np.arange(10)
    told = measure_faithfulness(true, drawn)
    assert told.motion == pytest.approx(1)
    assert told.motion_pooled < 0.5


def test_trustworthiness_is_scikit_learns_within_each_snapshot():
    rng = np.random.default_rng(3)
    vectors, positions = rng.standard_normal((2, 40, 4)), rng.standard_normal((2, 40, 2))
    expected = np.mean([trustworthiness(a, b, n_neighbors=15) for a, b in zip(vectors, positions, strict=True)])
    assert measure_faithfulness(vectors, positions).trustworthiness == pytest.approx(expected)


def test_what_cannot_be_measured_is_not_a_number():
    one = measure_faithfulness(np.random.default_rng(4).standard_normal((1, 20, 3)), np.zeros((1, 20, 2)))
    assert np.isnan(one.motion)
    assert "not available" in str(one)
    still = measure_faithfulness(np.zeros((2, 20, 3)), np.zeros((2, 20, 2)))
    assert np.isnan(still.motion)


@pytest.mark.slow
def test_faithfulness_of_many_rows_is_measured_on_some():
    rng = np.random.default_rng(5)
    values = rng.standard_normal((2, 5000, 2))
    told = measure_faithfulness(values, values)
    assert told.n_rows == 2000
    assert told.neighbor_recall == 1
    assert told.neighbor_recall_chance == pytest.approx(15 / 1999)
