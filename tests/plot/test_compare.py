"""Comparison: the picture shows the numbers that `fmcluster.compare` found."""

import numpy as np
import pandas as pd

from fmcluster import plot
from fmcluster.analysis import Comparison


def made(*, epochs=(0, 1, 2), other_epochs=(0, 2), accuracy=True):
    """Two layers, whose CKA at epochs (a, b) is 1 - a / 10 - b / 100; the second is of unlike shape."""
    pairs = [
        (layer, 0, i, epoch, 10 * epoch, 1, j, other, 10 * other, 1 - epoch / 10 - other / 100 - number / 2)
        for number, layer in enumerate(["conv1", "fc"])
        for i, epoch in enumerate(epochs)
        for j, other in enumerate(other_epochs)
    ]
    columns = ["layer", "run", "snapshot", "epoch", "step", "other_run", "other_snapshot", "other_epoch", "other_step"]
    matches = pd.DataFrame(
        {
            "layer": "conv1",
            "other_run": 1,
            "channel": range(5),
            "other_channel": pd.array([4, 3, 2, 1, None], dtype="Int64"),
            "correlation": [0.2, 0.4, 0.6, 0.8, np.nan],
        }
    )
    metrics = pd.DataFrame(
        [(0, i, e, 10 * e, 0.5 + e / 10) for i, e in enumerate(epochs)]
        + [(1, i, e, 10 * e, 0.4) for i, e in enumerate(other_epochs)],
        columns=["run", "snapshot", "epoch", "step", "val_accuracy"],
    )
    runs = {"run": [0, 1], "name": ["one.zarr", "two.zarr"], "path": ["a/one.zarr", "b/two.zarr"], "snapshots": [3, 2]}
    return Comparison(
        runs=pd.DataFrame(runs),
        samples=np.arange(4),
        scores={},
        frame=pd.DataFrame(pairs, columns=[*columns, "cka"]),
        matches=matches,
        metrics=metrics if accuracy else metrics.drop(columns="val_accuracy"),
    )


def test_the_cells_are_the_layers_at_the_epochs_that_both_have():
    figure = plot.compare(made())
    similar = figure.axes[0]
    drawn = similar.collections[0].get_array()
    np.testing.assert_allclose(drawn, [[1.0, 0.78], [0.5, 0.28]])
    assert [label.get_text() for label in similar.get_yticklabels()] == ["conv1", "fc"]
    assert [label.get_text() for label in similar.get_xticklabels()] == ["0", "2"]
    assert similar.get_title(loc="left") == "CKA of each layer, run 1 with run 0"


def test_of_an_epoch_with_several_snapshots_the_last_is_drawn():
    comparison = made(epochs=(0, 2, 2), other_epochs=(2,))
    comparison.frame.loc[comparison.frame["snapshot"] == 1, "cka"] = 0.123
    drawn = plot.compare(comparison).axes[0].collections[0].get_array()
    np.testing.assert_allclose(drawn, [[0.78], [0.28]])


def test_matched_channels_are_summed_up_beside_their_number():
    panel = next(ax for ax in plot.compare(made()).axes if ax.get_title(loc="left").startswith("Matched"))
    thin, thick, dot = panel.lines
    np.testing.assert_allclose(thin.get_xdata(), np.quantile([0.2, 0.4, 0.6, 0.8], [0.05, 0.95]))
    np.testing.assert_allclose(thick.get_xdata(), np.quantile([0.2, 0.4, 0.6, 0.8], [0.25, 0.75]))
    np.testing.assert_allclose(dot.get_xdata(), [0.5])
    assert [text.get_text() for text in panel.texts] == ["4 of 5", "of unlike shape"]


def test_metrics_are_a_curve_per_run():
    figure = plot.compare(made())
    panel = next(ax for ax in figure.axes if ax.get_ylabel() == "validation accuracy (%)")
    assert [list(line.get_xdata()) for line in panel.lines] == [[0, 1, 2], [0, 2]]
    assert [list(line.get_ydata()) for line in panel.lines] == [[0.5, 0.6, 0.7], [0.4, 0.4]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["run 0: one.zarr", "run 1: two.zarr"]


def test_without_metrics_there_is_no_panel_for_them():
    assert len(plot.compare(made(accuracy=False)).axes) == 3  # two panels and a color bar


def test_runs_without_a_common_epoch_are_compared_at_their_last_snapshots():
    found = made(epochs=(0, 1), other_epochs=(3,))
    figure = plot.compare(found)
    similar = figure.axes[0]
    assert [label.get_text() for label in similar.get_xticklabels()] == ["1 | 3"]
    assert similar.get_xlabel() == "epoch of run 0 | of run 1"
    last = found.frame[(found.frame["epoch"] == 1) & (found.frame["other_epoch"] == 3)]
    (mesh,) = similar.collections
    np.testing.assert_array_equal(mesh.get_array().ravel(), last["cka"])
