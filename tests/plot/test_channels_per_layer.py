"""What is drawn of each layer is what `diagnose` found."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from fmcluster.analysis.diagnosis._findings import Findings, Thresholds
from fmcluster.plot import channels_per_layer, convergence

MISSING = pd.NA


def found(cka: dict[str, list[float]], *, converged: dict[str, int], floor: float = 0.98, width: int = 10) -> Findings:
    """Findings of layers: channels 0 and 1 are alike, 2, 3 and 4 too, 5 is dead (6 as well at the first snapshot)."""
    frame, channels = [], []
    for layer, values in cka.items():
        for k, value in enumerate(values):
            moment = {"layer": layer, "snapshot": k, "epoch": (k + 1) // 2, "step": 10 * k}
            words = f"{width} channels at {40 + k} places"
            frame.append(moment | {"measure": "cka_to_last", "value": value, "evidence": ""})
            frame.append(moment | {"measure": "effective_rank", "value": min(2.5 + k, width), "evidence": words})
            for channel in range(width):
                group = {0: 0, 1: 0, 2: 2, 3: 2, 4: 2}.get(channel, MISSING)
                dead = channel == 5 or (channel == 6 and k == 0)
                channels.append({"layer": layer, "snapshot": k, "channel": channel, "dead": dead, "group": group})
    table = pd.DataFrame(channels)
    return Findings(
        frame=pd.DataFrame(frame),
        channels=table.assign(duplicate_group=table.pop("group").astype("Int64")),
        layers=pd.DataFrame(
            {
                "layer": list(cka),
                "channels": width,
                "positions": 42,
                "noise_floor": floor,
                "level": 0.98,
                "converged": pd.array([converged.get(layer, MISSING) for layer in cka], dtype="Int64"),
            }
        ),
        advice=(),
        thresholds=Thresholds(),
    )


def written(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def mesh_of(ax: Axes) -> np.ndarray:
    (mesh,) = [each for each in ax.collections if isinstance(each, QuadMesh)]
    return np.asarray(np.ma.filled(mesh.get_array().astype(float), np.nan))


TWO = {"layer2": [0.5, 0.99, 1.0], "conv1": [0.99, 0.995, 1.0]}


def test_bars_are_the_shares_of_distinct_grouped_and_dead_channels_at_the_last_snapshot():
    ax = channels_per_layer(found(TWO, converged={}))
    shares = {bars.get_label(): [bar.get_width() for bar in bars] for bars in ax.containers}
    assert list(shares) == ["distinct", "grouped", "dead"]
    np.testing.assert_allclose(list(shares.values()), [[0.4, 0.4], [0.5, 0.5], [0.1, 0.1]])
    assert [bar.get_x() for bar in ax.containers[2]] == pytest.approx([0.9, 0.9])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["layer2", "conv1"]
    assert ax.yaxis_inverted()
    assert ax.get_title(loc="left") == "Channels of each layer at epoch 1, step 20"


def test_the_counts_stand_beside_the_bars():
    texts = written(channels_per_layer(found({"conv1": TWO["conv1"]}, converged={})))
    assert texts == [
        *("distinct", "4", "in groups", "5 in 2", "dead", "1", "rank", "4.5", "of", "10 channels at 42 places"),
    ]


def test_the_effective_rank_is_marked_as_a_share_of_the_channels():
    (marks,) = channels_per_layer(found(TWO, converged={})).lines
    np.testing.assert_allclose(marks.get_xdata(), [0.45, 0.45])
    assert marks.get_ydata().tolist() == [0.5, 1.5]


def test_a_rank_of_few_places_is_hollow_and_the_legend_says_so():
    given = found(TWO, converged={})
    given.layers["positions"] = [42, 19]
    ax = channels_per_layer(given)
    drawn = {line.get_gid(): line for line in ax.lines}
    assert drawn["rank"].get_ydata().tolist() == [0.5]
    assert drawn["rank of few positions"].get_ydata().tolist() == [1.5]
    assert drawn["rank of few positions"].get_markerfacecolor() == "white"
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said[-1] == "effective rank at fewer than 2 positions a channel: says little"
    whole = channels_per_layer(found(TWO, converged={}))
    assert [text.get_text() for text in whole.get_legend().get_texts()][-1] == "effective rank"
    given.layers["positions"] = [42, 20]
    assert [line.get_gid() for line in channels_per_layer(given).lines] == ["rank"]


def test_another_snapshot_can_be_asked_for():
    ax = channels_per_layer(found(TWO, converged={}), snapshot=0)
    assert [bars[0].get_width() for bars in ax.containers] == pytest.approx([0.3, 0.5, 0.2])
    np.testing.assert_allclose(ax.lines[0].get_xdata(), 0.25)
    assert ax.get_title(loc="left").endswith("at epoch 0")
    with pytest.raises(ValueError, match="received snapshot=9; expected one of 0, 1, 2: choose one of these"):
        channels_per_layer(found(TWO, converged={}), snapshot=9)
    with pytest.raises(ValueError, match="received epoch=1 and snapshot=1; expected one of them"):
        channels_per_layer(found(TWO, converged={}), epoch=1, snapshot=1)


@pytest.mark.slow
def test_a_hundred_snapshots_of_layers_with_odd_names_fit_their_figure():
    names = [f"$block{i}$.with_a_rather_long_name.conv" for i in range(20)]
    given = found(dict.fromkeys(names, [0.5] * 99 + [1.0]), converged={})
    for draw in (convergence, channels_per_layer):
        ax = draw(given)
        figure = ax.figure
        figure.draw_without_rendering()
        assert [tick.get_text() for tick in ax.get_yticklabels()] == names
        box = ax.get_tightbbox()
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert "0.50" not in written(ax)


@pytest.mark.parametrize("draw", [channels_per_layer, convergence])
def test_axes_given_are_drawn_into(draw):
    _, ax = plt.subplots()
    assert draw(found(TWO, converged={}), ax=ax) is ax
