"""Channel evolution: channels by snapshot."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fmcluster import plot
from tests.plot.test_channel_grid import tiles, words


def test_evolution_has_a_row_per_channel_and_a_column_per_snapshot(layers):
    layer = layers["conv1"]
    figure = plot.channel_evolution(layer, sample=2, channels=[4, 9, 11])
    drawn = tiles(figure)
    assert len(drawn) == 3 * 9
    for row, channel in enumerate([4, 9, 11]):
        for snapshot in range(9):
            values = layer.activation[snapshot, 2, channel].astype(np.float32)
            np.testing.assert_array_equal(drawn[row * 9 + snapshot].get_array(), values)
    assert len({image.get_clim() for image in drawn}) == 1
    said = words(figure)
    assert [word for word in said if word.startswith("epoch")] == [
        "epoch 0", "epoch 1\nstep 2", "epoch 1\nstep 4", "epoch 1\nstep 8",
        "epoch 2", "epoch 3", "epoch 4", "epoch 5", "epoch 6",
    ]  # fmt: skip
    assert "conv1 over 9 snapshots, epoch 0 to 6" in said
    assert {"ch 4", "ch 9", "ch 11"} <= set(said)


def test_evolution_scale_for_each_channel_is_one_over_time(layers):
    drawn = tiles(plot.channel_evolution(layers["conv1"], channels=[4, 9], scale="channel"))
    assert len({image.get_clim() for image in drawn[:9]}) == 1
    assert drawn[0].get_clim() != drawn[9].get_clim()


def test_evolution_takes_the_most_active_channels(layers):
    layer = layers["layer4"]
    table = layer.statistics
    square = (table["mean"] ** 2 + table["std"] ** 2).groupby(table["channel"]).mean()
    said = words(plot.channel_evolution(layer))
    assert [word for word in said if word.startswith("ch ")] == [
        f"ch {channel}" for channel in square.sort_values(ascending=False).index[:8]
    ]


def test_evolution_of_many_snapshots_draws_some_and_says_so(layers):
    layer = layers["fc"]
    table = pd.DataFrame({"snapshot": range(36), "epoch": range(36), "step": range(0, 360, 10)})
    long = replace(layer, activation=np.concatenate([layer.activation] * 4), snapshots=table)
    said = words(plot.channel_evolution(long, channels=[0]))
    columns = [word for word in said if word.startswith("epoch ")]
    assert len(columns) <= 16
    assert (columns[0], columns[-1]) == ("epoch 0", "epoch 35")
    assert f"fc over 36 snapshots, epoch 0 to 35 ({len(columns)} of them drawn)" in said


@pytest.mark.parametrize("arguments", [{"sample": -1}, {"channels": [-1]}, {"scale": "all"}])
def test_evolution_errors(layers, arguments):
    with pytest.raises(ValueError, match="expected"):
        plot.channel_evolution(layers["conv1"], **arguments)
