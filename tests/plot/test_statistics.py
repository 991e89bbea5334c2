"""The ridges are histograms of the statistics that were handed in."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch

from fmcluster.plot._statistics import RIDGE, statistics


@dataclass(frozen=True)
class Measured:
    statistics: pd.DataFrame
    label: str = "layer4"
    quantity: str = "activation"


def measured(values: np.ndarray, *, name: str = "mean") -> Measured:
    """A layer with one statistic, of shape (n_snapshots, n_channels)."""
    rows = [
        {"snapshot": k, "epoch": k, "step": 10 * k, "channel": channel, name: value}
        for (k, channel), value in np.ndenumerate(values)
    ]
    return Measured(pd.DataFrame(rows, columns=["snapshot", "epoch", "step", "channel", name]))


def ridges(ax: Axes) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Return heights over the base, edges and base of each ridge."""
    found = [each.get_data() for each in ax.patches if isinstance(each, StepPatch)]
    return [(np.asarray(values) - base, np.asarray(edges), float(base)) for values, edges, base in found]


def counts(ax: Axes) -> list[list[int]]:
    """Return channels per bin, from the heights and the height of the highest bin that is written below."""
    highest = int(ax.get_xlabel().replace("\n", " ").split("highest bin: ")[1].split()[0])
    return [np.rint(heights * highest / RIDGE).astype(int).tolist() for heights, _, _ in ridges(ax)]


def test_each_snapshot_has_the_histogram_of_its_channels_the_first_at_the_top():
    values = np.random.default_rng(0).normal([[0.0], [1.0], [2.0]], 1.0, (3, 200))
    (ax,) = statistics(measured(values)).axes
    edges = ridges(ax)[0][1]
    assert counts(ax) == [np.histogram(each, edges)[0].tolist() for each in values]
    assert [sum(each) for each in counts(ax)] == [200, 200, 200]
    assert [base for *_, base in ridges(ax)] == [0, -1, -2]
    assert all(np.array_equal(other, edges) for _, other, _ in ridges(ax))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["epoch 0", "epoch 1", "epoch 2"]
    medians = [line.get_xdata()[0] for line in ax.lines if line.get_zorder() == 40]
    np.testing.assert_allclose(medians, np.median(values, axis=1))


def test_several_statistics_stand_side_by_side():
    layer = measured(np.ones((2, 5)))
    layer = Measured(layer.statistics.assign(zeros=[0.0, 0.25, 0.5, 1.0, 1.0] * 2, nonfinite=[0, 0, 0, 3, 1] * 2))
    figure = statistics(layer, what=["zeros", "nonfinite"])
    zeros, nonfinite = figure.axes
    assert zeros.get_xlabel().startswith("share of zeros (%)")
    assert zeros.get_xlim() == (0, 1)
    assert zeros.xaxis.get_major_formatter()(0.5).endswith("%")
    heights, edges, _ = ridges(nonfinite)[0]
    assert np.array_equal(edges[:-1] + 0.5, np.arange(-1, 6)[: len(heights)])
    assert counts(nonfinite)[0][1:5] == [3, 1, 0, 1]
    assert figure.get_suptitle() == "layer4: statistics of 5 channels over 2 snapshots, epoch 0 to 1"


def test_channels_far_from_the_rest_or_without_a_value_are_counted_at_the_edge():
    values = np.random.default_rng(1).normal(size=(2, 100))
    values[0, :2], values[0, 2], values[1, 5] = 1e6, -1e6, np.nan
    (ax,) = statistics(measured(values)).axes
    assert [text.get_text() for text in ax.texts] == ["1 below", "2 beyond", "1 without value"]
    assert [sum(each) for each in counts(ax)] == [97, 99]


@pytest.mark.parametrize("values", [np.zeros((3, 1)), np.full((3, 7), -2.5), np.full((2, 4), 1e-30)])
def test_channels_that_all_agree_are_one_bin(values):
    (ax,) = statistics(measured(values)).axes
    assert [sorted(each)[-1] for each in counts(ax)] == [values.shape[1]] * len(values)
    assert [sum(each) for each in counts(ax)] == [values.shape[1]] * len(values)


def test_a_snapshot_without_any_value_has_a_flat_ridge():
    (ax,) = statistics(measured(np.array([[np.nan, np.nan], [np.nan, np.nan]]))).axes
    assert [sum(each) for each in counts(ax)] == [0, 0]
    assert [text.get_text() for text in ax.texts] == ["2 without value"] * 2


@pytest.mark.slow
def test_of_a_hundred_snapshots_twenty_are_drawn_the_last_among_them():
    values = np.random.default_rng(2).random((100, 2048))
    figure = statistics(measured(values))
    (ax,) = figure.axes
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert len(ridges(ax)) == len(names) <= 20
    assert (names[0], names[-1]) == ("epoch 0", "epoch 99")
    assert counts(ax)[-1] == np.histogram(values[-1], ridges(ax)[-1][1])[0].tolist()
    assert f"({len(names)} of them drawn)" in figure.get_suptitle()


def test_what_cannot_be_drawn_is_refused():
    layer = measured(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"received what='median'; expected one or more of 'mean', 'std'"):
        statistics(layer, what="median")
    with pytest.raises(ValueError, match="received what='std'"):
        statistics(layer, what=["mean", "std"])
    with pytest.raises(ValueError, match="received what=no statistic"):
        statistics(layer, what=[])
    with pytest.raises(ValueError, match="'layer4' has no snapshot yet"):
        statistics(measured(np.zeros((0, 2))))


def test_one_wild_snapshot_does_not_press_the_others_into_one_bin():
    values = np.random.default_rng(3).normal(size=(8, 64))
    values[1] += 1e4
    (ax,) = statistics(measured(values)).axes
    assert [text.get_text() for text in ax.texts] == ["64 beyond"]
    assert [sum(each) for each in counts(ax)] == [64, 0, 64, 64, 64, 64, 64, 64]
    assert all(np.count_nonzero(heights) > 5 for place, heights in enumerate(counts(ax)) if place != 1)
