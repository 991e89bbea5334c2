"""Limits of embeddings: close where most snapshots lie close together, whole where they do not."""

import numpy as np
import pytest

from fmcluster.plot.drawing import limits_of

TITLES = [f"epoch {number}" for number in range(6)]


def snapshots(*scales: float, shift: float = 0.0) -> np.ndarray:
    square = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], float) - 0.5
    return np.stack([square * scale + (shift if number == 0 else 0.0) for number, scale in enumerate(scales)])


def test_snapshots_of_about_one_size_share_all_axes_and_nothing_is_said() -> None:
    found = limits_of(snapshots(1.0, 1.5, 0.8))
    assert found.apart == ()
    assert found.times == 1
    for limits in (found.at(0), found.at(2), found.together):
        np.testing.assert_allclose(limits, [(-0.84, 0.84)] * 2)  # the largest, and 6 % of its side
    assert not found.note_at(0, titles=TITLES) + found.note_each(titles=TITLES) + found.note_together(titles=TITLES)


@pytest.mark.parametrize(("scale", "shift", "times"), [(10, 0, 10), (1, 9, 10)], ids=["larger", "far away"])
def test_a_snapshot_that_reaches_far_has_axes_of_its_own(scale: float, shift: float, times: float) -> None:
    found = limits_of(snapshots(scale, 1, 1, 1, shift=shift))
    assert found.apart == (0,)
    np.testing.assert_allclose([found.at(3), found.together], [[(-0.56, 0.56)] * 2] * 2)
    assert found.at(0) == found.whole
    assert found.times == pytest.approx(times)
    assert found.note_at(1, titles=TITLES) == "epoch 0 reaches 10 times as far, on axes of its own"
    assert found.note_at(0, titles=TITLES) == "axes 10 times as wide as those of other snapshots"
    assert found.note_together(titles=TITLES) == "epoch 0 reaches 10 times as far: cut off here"


def test_a_picture_of_all_cuts_off_nothing_where_half_of_the_snapshots_lie_apart() -> None:
    found = limits_of(snapshots(10, 1))
    assert found.apart == (0,)
    assert found.together == found.whole
    assert found.note_together(titles=TITLES) == ""
    several = limits_of(snapshots(10, 10, 1, 1, 1))
    assert several.note_each(titles=TITLES).startswith("2 snapshots, from epoch 0 on, reach up to 10 times as far")


def test_rows_that_all_lie_at_one_position_have_axes() -> None:
    (left, right), (bottom, top) = limits_of(np.zeros((3, 5, 2))).at(1)
    assert left < 0 < right
    assert bottom < 0 < top
