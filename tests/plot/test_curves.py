import matplotlib.pyplot as plt
import numpy as np
import pytest

from fmcluster import plot


def ticks(ax):
    return [tick.get_text() for tick in ax.get_xticklabels()]


def test_churn_is_the_share_that_moved(drifting):
    history = drifting(64)[2]
    ax = plot.churn(history)
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], history.steps["churn"])
    assert ticks(ax)[:4] == ["epoch 1\nstep 2", "epoch 1\nstep 4", "epoch 1\nstep 8", "epoch 2"]
    assert ax.get_ylim()[0] == 0
    assert "%" in ax.get_ylabel()
    assert [text.get_text() for text in ax.texts] == [f"{share:.0%}" for share in history.steps["churn"]]


def test_churn_that_is_not_defined_is_left_out(drifting):
    history = drifting(64)[2]
    steps = history.steps.assign(churn=[np.nan, *history.steps["churn"][1:]])
    ax = plot.churn(type(history)(**(vars(history) | {"steps": steps})))
    assert len(ax.texts) == 7


def test_churn_of_one_snapshot_is_refused(drifting):
    history = drifting(64)[2]
    with pytest.raises(ValueError, match="expected 2 or more"):
        plot.churn(type(history)(**(vars(history) | {"steps": history.steps.iloc[:0]})))


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


def test_explained_variance_is_cumulative(scores):
    ax = plot.explained_variance(scores)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.cumsum(scores.explained_variance_ratio))
    assert ax.lines[0].get_xdata().tolist() == list(range(1, 51))
    assert ax.get_title(loc="left") == "layer4: channel view, 50 components hold 93.5% of the variance"


@pytest.mark.parametrize("draw", [plot.churn, plot.metrics, plot.explained_variance])
def test_axes_given(draw, drifting, run_metrics, scores):
    _, ax = plt.subplots()
    thing = {plot.churn: drifting(10)[2], plot.metrics: run_metrics, plot.explained_variance: scores}[draw]
    assert draw(thing, ax=ax) is ax
