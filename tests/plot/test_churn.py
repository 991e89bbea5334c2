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


def with_steps(history, **columns):
    steps = history.steps.assign(**columns)
    return type(history)(**(vars(history) | {"steps": steps, "noise_floor": "halves of the samples"}))


def limits(ax):
    return {line.get_gid(): line.get_segments() for line in ax.collections}


def test_churn_stands_beside_its_floor_and_null_where_they_are_known(drifting):
    floor = [0.1, 0.2, np.nan, 0.15, 0.1, 0.1, 0.1, 0.1]
    history = with_steps(drifting(64)[2], churn_noise_floor=floor, churn_null=np.linspace(0.85, 0.9, 8))
    ax = plot.churn(history)
    drawn = limits(ax)
    known = np.flatnonzero(np.isfinite(floor))
    np.testing.assert_allclose([ends[:, 0].mean() for ends in drawn["churn_noise_floor"]], known)
    np.testing.assert_allclose([ends[0, 1] for ends in drawn["churn_noise_floor"]], np.array(floor)[known])
    np.testing.assert_allclose([ends[1, 1] for ends in drawn["churn_null"]], history.steps["churn_null"])
    assert ax.get_ylim()[1] > 0.9
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "churn",
        "noise floor: no change at all (halves of the samples)",
        "null: labels with nothing in common",
    ]
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], history.steps["churn"])


@pytest.mark.parametrize("columns", [{}, {"churn_noise_floor": np.nan, "churn_null": np.nan}])
def test_churn_without_floor_and_null_has_neither_marks_nor_legend(columns, drifting):
    ax, bare = plot.churn(with_steps(drifting(64)[2], **columns)), plot.churn(drifting(64)[2])
    assert limits(ax) == {}
    assert ax.get_legend() is None
    assert ax.get_ylim() == bare.get_ylim()


def test_a_share_is_written_above_a_mark_that_would_cross_it(drifting):
    history = drifting(64)[2]
    share = history.steps["churn"].to_numpy()
    ax = plot.churn(with_steps(history, churn_null=share + 0.004))
    np.testing.assert_allclose([text.xy[1] for text in ax.texts], share + 0.004)
    assert [text.get_text() for text in ax.texts] == [f"{value:.0%}" for value in share]
    ax = plot.churn(with_steps(history, churn_null=0.9))
    np.testing.assert_allclose([text.xy[1] for text in ax.texts], share)


def test_churn_of_many_steps_in_a_small_panel_names_the_first_and_the_last(drifting):
    _, ax = plt.subplots(figsize=(3, 3))
    plot.churn(drifting(64)[2], ax=ax)
    assert (ticks(ax)[0], ticks(ax)[-1]) == ("epoch 1\nstep 2", "epoch 6")
    assert 2 <= len(ticks(ax)) < 8
    assert "\n" in ax.get_title(loc="left")


@pytest.mark.parametrize("draw", [plot.churn, plot.explained_variance])
def test_axes_given(draw, drifting, scores):
    _, ax = plt.subplots()
    thing = {plot.churn: drifting(10)[2], plot.explained_variance: scores}[draw]
    assert draw(thing, ax=ax) is ax
