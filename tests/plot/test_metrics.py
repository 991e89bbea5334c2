"""Metrics: the numbers recorded beside the snapshots."""

import numpy as np
import pytest

from fmcluster import plot
from tests.plot.test_churn import ticks


def test_metrics_over_steps_with_epochs_ticked(run_metrics):
    frame = run_metrics
    ax = plot.metrics(frame)
    known = frame.dropna()
    curve = ax.lines[-1]
    np.testing.assert_array_equal(curve.get_xdata(), known["step"])
    np.testing.assert_array_equal(curve.get_ydata(), known["val_accuracy"])
    assert ticks(ax) == [f"{step}\nepoch {epoch}" for epoch, step in enumerate([0, 8, 16, 24, 32, 40, 48])]
    assert [line.get_xdata()[0] for line in ax.lines[:-1]] == [0, 8, 16, 24, 32, 40, 48]
    assert ax.get_title(loc="left") == "Validation accuracy while training, 94.8% at the end"
    assert ax.get_ylabel() == "validation accuracy (%)"
    assert ax.yaxis.get_major_formatter()(0.5).endswith("%")


def test_metrics_without_steps_are_over_snapshots(run_metrics):
    ax = plot.metrics(run_metrics.assign(step=np.nan))
    assert ax.lines[-1].get_xdata().tolist() == [0, 2, 3, 4, 5, 6, 7, 8]
    assert ax.get_xlabel().startswith("snapshot")


def test_another_metric_is_no_share(run_metrics):
    ax = plot.metrics(run_metrics, column="loss")
    assert ax.get_ylabel() == "loss"
    assert "%" not in ax.get_title(loc="left")


@pytest.mark.parametrize("column", ["top5", "epoch", "val_accuracy"])
def test_metrics_that_are_not_there(column, run_metrics):
    without = run_metrics.assign(val_accuracy=np.nan)
    with pytest.raises(ValueError, match=rf"received column='{column}'.*recorded: 'val_accuracy', 'loss'"):
        plot.metrics(without, column=column)


def test_no_metrics_at_all(run_metrics):
    with pytest.raises(ValueError, match="recorded: none"):
        plot.metrics(run_metrics[["snapshot", "epoch", "step"]])
