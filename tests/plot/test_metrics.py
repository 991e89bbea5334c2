"""Metrics: the numbers recorded beside the snapshots."""

import numpy as np
import pytest

from fmcluster import plot
from tests.plot.test_churn import ticks


def test_metrics_over_steps_with_epochs_ticked(run_metrics):
    frame = run_metrics
    (ax,) = plot.metrics(frame, columns=["val_accuracy"]).axes
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
    ax, _ = plot.metrics(run_metrics.assign(step=np.nan)).axes
    assert ax.lines[-1].get_xdata().tolist() == [0, 2, 3, 4, 5, 6, 7, 8]
    assert ax.get_xlabel().startswith("snapshot")


def test_another_metric_is_no_share(run_metrics):
    (ax,) = plot.metrics(run_metrics, columns=["loss"]).axes
    assert ax.get_ylabel() == "loss"
    assert "%" not in ax.get_title(loc="left")


def test_every_metric_with_a_value_has_a_panel(run_metrics):
    panels = plot.metrics(run_metrics.assign(never=np.nan)).axes
    assert [ax.get_ylabel() for ax in panels] == ["validation accuracy (%)", "loss"]


def test_a_run_without_accuracy_is_drawn(run_metrics):
    (ax,) = plot.metrics(run_metrics.drop(columns="val_accuracy")).axes
    assert ax.get_ylabel() == "loss"


def test_what_is_infinite_is_left_out(run_metrics):
    frame = run_metrics.copy()
    frame.loc[frame.index[-1], "loss"] = np.inf
    (ax,) = plot.metrics(frame, columns=["loss"]).axes
    assert np.isfinite(ax.lines[-1].get_ydata()).all()
    assert ax.get_title(loc="left") == "Loss while training, infinite at the end"


def test_no_line_leads_past_what_is_infinite_and_one_past_what_was_not_recorded(run_metrics):
    frame = run_metrics.copy()
    frame["loss"] = np.arange(len(frame), 0.0, -1)
    frame.loc[frame.index[2], "loss"], frame.loc[frame.index[4], "loss"] = np.nan, np.inf
    (ax,) = plot.metrics(frame, columns=["loss"]).axes
    drawn = [line.get_ydata().tolist() for line in ax.lines if len(line.get_xdata()) > 2]
    assert drawn == [[9, 8, 6], [4, 3, 2, 1]]


def test_one_epoch_has_one_tick(run_metrics):
    (ax,) = plot.metrics(run_metrics[run_metrics["epoch"] == 1], columns=["loss"]).axes
    assert len(ticks(ax)) == 1


@pytest.mark.parametrize("column", ["top5", "epoch", "val_accuracy"])
def test_metrics_that_are_not_there(column, run_metrics):
    without = run_metrics.assign(val_accuracy=np.nan)
    with pytest.raises(ValueError, match=rf"received the column '{column}'.*choose one of 'loss'"):
        plot.metrics(without, columns=[column])


def test_no_metrics_at_all(run_metrics):
    with pytest.raises(ValueError, match="the run has no metrics; pass metrics="):
        plot.metrics(run_metrics[["snapshot", "epoch", "step"]])
    with pytest.raises(ValueError, match="received no columns; expected one or more of 'val_accuracy', 'loss'"):
        plot.metrics(run_metrics, columns=[])
