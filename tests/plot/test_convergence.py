"""Convergence: CKA of each layer to its last snapshot."""

from itertools import pairwise

import numpy as np

from fmcluster.plot import convergence
from tests.plot.test_channels_per_layer import TWO, found, mesh_of, written


def test_convergence_is_the_cka_of_each_layer_in_its_order():
    ax = convergence(found(TWO, converged={"layer2": 1, "conv1": 0}))
    np.testing.assert_allclose(mesh_of(ax), list(TWO.values()))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["layer2", "conv1"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["epoch 0", "epoch 1\nstep 10", "epoch 1\nstep 20"]
    assert written(ax)[:6] == ["0.50", "0.99", "1.00", "0.99", "0.99", "1.00"]


def test_the_line_stands_where_each_layer_has_converged_or_behind_the_last_snapshot():
    ax = convergence(found(TWO | {"fc": [0.1, 0.2, 1.0]}, converged={"layer2": 1, "conv1": 0}))
    line = ax.lines[-1]
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [
        (1, 0),
        (1, 1),
        (0, 1),
        (0, 2),
        (3, 2),
        (3, 3),
    ]
    assert written(ax)[9:] == [
        *("converged from", "epoch 1, step 10", "epoch 0", "not converged"),
        *("at CKA of", "0.980", "0.980", "0.980"),
        *("noise floor", "0.980", "0.980", "0.980"),
    ]


def test_what_is_not_defined_is_grey_and_a_floor_may_be_missing():
    ax = convergence(found({"dead": [np.nan, np.nan], "low": [-0.3, 1.0]}, converged={}, floor=np.nan))
    np.testing.assert_allclose(mesh_of(ax), [[np.nan, np.nan], [-0.3, 1.0]])
    assert written(ax)[:2] == ["-0.30", "1.00"]
    assert written(ax)[-2:] == ["none", "none"]
    assert ax.collections[0].norm.vmin == -0.3


def test_the_headings_of_the_table_do_not_meet():
    ax = convergence(found(TWO, converged={"layer2": 1, "conv1": 0}))
    ax.figure.canvas.draw()
    headings = {text.get_text(): text.get_window_extent() for text in ax.texts}
    parts = [headings[name] for name in ("converged from", "at CKA of", "noise floor")]
    assert all(left.x1 < right.x0 for left, right in pairwise(parts))


def test_of_one_snapshot_no_layer_has_converged():
    ax = convergence(found({"conv1": [1.0]}, converged={}))
    (mesh,) = (each for each in ax.collections if hasattr(each, "get_cmap") and each.get_array() is not None)
    assert mesh.get_array().ravel().tolist() == [1.0]
    assert "not converged" in [text.get_text() for text in ax.texts]
