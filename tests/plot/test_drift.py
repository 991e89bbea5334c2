"""Drift: how far each row has moved from its first snapshot."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from fmcluster.plot import drift
from tests.plot.test_similarity import found, mesh_of, tick_names


def test_drift_is_drawn_from_the_channel_that_went_farthest_or_by_number():
    values = np.array([[0, 0.1, 0.3], [0, 0.5, 1.2], [0, 0.2, 0.7]])
    given = found({"conv1": values[::-1] / 2, "layer1": values})
    ax = drift(given, "layer1")
    np.testing.assert_allclose(mesh_of(ax), values[[1, 2, 0]])
    assert tick_names(ax) == (["5", "7", "3"], ["epoch 0", "epoch 1", "epoch 2"])
    assert ax.get_title(loc="left") == "layer1: drift of 3 channels, median 0.70 at the last snapshot"
    same = drift(given, SimpleNamespace(name="layer1"))
    np.testing.assert_array_equal(mesh_of(same), mesh_of(ax))
    ax = drift(given, "layer1", order="index")
    np.testing.assert_allclose(mesh_of(ax), values)
    assert tick_names(ax)[0] == ["3", "5", "7"]


def test_dead_channels_are_hatched():
    ax = drift(found({"a": np.zeros((3, 2))}, dead=[("a", 5, 1), ("a", 7, 0), ("a", 7, 1)]), "a", order="index")
    assert sorted((patch.get_x(), patch.get_y()) for patch in ax.patches) == [(0, 2), (1, 1), (1, 2)]
    assert ax.get_title(loc="left").endswith("2 dead (hatched)")


def test_two_thousand_channels_have_no_names():
    values = np.random.default_rng(0).random((2048, 20))
    ax = drift(found({"layer4": values}), "layer4")
    assert tick_names(ax)[0] == []
    np.testing.assert_allclose(mesh_of(ax), values[np.argsort(-values[:, -1], kind="stable")])


@pytest.mark.slow
def test_each_of_64_channels_is_named_in_letters_that_fit_its_row():
    ax = drift(found({"conv1": np.random.default_rng(0).random((64, 9))}), "conv1")
    assert len(tick_names(ax)[0]) == 64
    ax.figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in ax.get_yticklabels()]
    assert all(not one.overlaps(other) for one, other in pairwise(boxes))
