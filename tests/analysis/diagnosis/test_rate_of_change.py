"""The rate of change: against CKA of arrays, and by hand."""

from itertools import pairwise

import numpy as np
import pytest

from fmcluster.analysis.diagnosis._rate_of_change import (
    Change,
    Movement,
    ToEnd,
    change_to_end,
    check_steps,
    frozen_from,
)
from fmcluster.analysis.metrics import linear_cka


def changes(arrays, *, random_state):
    movement = Movement(with_errors=True, random_state=random_state)
    for each in arrays:
        movement.add(each @ each.T)
    return movement.change


def test_changes_are_what_cka_of_the_arrays_says_with_and_without_images():
    rng = np.random.default_rng(0)
    first, noise = rng.normal(size=(2, 40, 7))
    arrays = [first, first + 0.3 * noise, 2 * first + 0.3 * noise]
    found = changes(arrays, random_state=3)
    expected = [1 - linear_cka(a, b) for a, b in pairwise(arrays)]
    assert np.isnan(found.value[0])
    np.testing.assert_allclose(found.value[1:], expected, atol=1e-12)
    groups = np.array_split(np.random.default_rng(3).permutation(40), 10)
    without = [1 - linear_cka(np.delete(arrays[0], each, 0), np.delete(arrays[1], each, 0)) for each in groups]
    np.testing.assert_allclose(found.without[1], without, atol=1e-12)


@pytest.mark.slow
def test_the_error_is_about_the_spread_over_other_images():
    rng = np.random.default_rng(0)
    steps = np.array([0.0, 1.0, 2.0])

    def drawn():
        first, noise = rng.normal(size=(2, 60, 20)) * np.linspace(3, 0.2, 20)
        return [first, first + 0.5 * noise, first + 0.6 * noise]

    def to_end():
        still = Change(np.array([np.nan, 0, 0]), np.zeros((3, 10)))
        return change_to_end(changes(drawn(), random_state=0), still, steps=steps, rest_steps=steps, steps_left=0)

    found = [to_end() for _ in range(60)]
    spread = np.std([each.excess[1] for each in found])
    assert 0.7 * spread < np.mean([each.error[1] for each in found]) < 1.5 * spread


def test_rates_are_continued_to_the_end_beyond_those_at_rest():
    change = Change(np.array([np.nan, 0.2, 0.03]), np.array([[np.nan] * 2, [0.1, 0.3], [0.02, 0.04]]))
    rest = Change(np.array([np.nan, 0.04]), np.array([[np.nan] * 2, [0.03, 0.05]]))
    found = change_to_end(change, rest, steps=np.array([0.0, 10, 20]), rest_steps=np.array([0.0, 20]), steps_left=30)
    # 0.02 and 0.003 a step, 40 and 30 steps left; at rest 0.002 a step
    np.testing.assert_allclose(found.value[1:], [0.8, 0.09])
    np.testing.assert_allclose(found.at_rest, [0.002 * 50, 0.08, 0.06])
    np.testing.assert_allclose(found.excess[1:], [0.72, 0.03])
    # without each group 40 (0.01 - 0.0015) and 40 (0.03 - 0.0025): the jackknife of two is half of the difference
    np.testing.assert_allclose(found.error[1], (1.1 - 0.34) / 2)
    np.testing.assert_allclose(found.upper[1], 0.72 + 1.96 * 0.38)


def to_end(excess, error):
    nothing = np.full(len(excess), np.nan)
    return ToEnd(nothing, nothing, np.array(excess), np.full(len(excess), error))


@pytest.mark.parametrize(
    ("excess", "error", "steps_left", "expected"),
    [
        ([np.nan, 0.3, 0.04, 0.01, 0.0], 0.001, 0, 2),
        ([np.nan, 0.01, 0.3, 0.01, 0.0], 0.001, 0, 3),  # it may not move again
        ([np.nan, 0.01, 0.01, 0.3, 0.0], 0.001, 0, None),  # nothing is left at the end, whatever it did
        ([np.nan, 0.01, 0.01, 0.3, 0.02], 0.001, 50, 4),
        ([np.nan, 0.3, 0.04, 0.01, 0.0], 0.02, 0, 3),  # clearly, over these images
        ([np.nan, 0.01], 0.001, 50, None),  # one rate is not enough
        ([np.nan] * 4, np.nan, 0, None),  # nothing was recorded at rest
    ],
)
def test_a_layer_can_be_frozen_from_where_on_it_stays_under_the_tolerance(excess, error, steps_left, expected):
    assert frozen_from(to_end(excess, error), tolerance=0.05, steps_left=steps_left) == expected


def test_too_few_images_have_no_error_and_are_not_judged():
    arrays = np.random.default_rng(0).normal(size=(3, 6, 5))
    change = changes(arrays, random_state=0)
    steps = np.arange(3.0)
    found = change_to_end(change, change, steps=steps, rest_steps=steps, steps_left=1)
    assert np.isnan(found.error).all()
    assert frozen_from(found, tolerance=0.05, steps_left=1) is None


@pytest.mark.parametrize("steps", [[0.0], [0.0, 0.0], [-1.0, 5.0], [7.0, 3.0]])
def test_steps_have_to_grow(steps):
    with pytest.raises(ValueError, match=r"a rate of change needs steps that grow.*step="):
        check_steps(np.array(steps))
