from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from fmcluster import plot
from fmcluster.plot import cluster_palette


def dots(ax):
    return ax.collections[0]


def colors(ax):
    return [to_hex(color) for color in dots(ax).get_facecolors()]


def legend(owner):
    return {mark.get_label(): to_hex(mark.get_color()) for mark in owner.legend_handles}


@pytest.fixture(scope="module")
def found(drifting):
    return drifting(64, noise=True)


def test_all_rows_in_the_colors_of_their_clusters(found):
    embedding, clusters, _ = found
    ax = plot.embedding(embedding, clusters)
    np.testing.assert_array_equal(dots(ax).get_offsets(), embedding.values)
    palette = cluster_palette(clusters.labels)
    assert colors(ax) == [palette[label] for label in clusters.labels]
    marks = legend(ax.get_legend())
    assert marks["cluster 3"] == palette[3]
    assert list(marks)[-1] == "noise"
    assert ax.get_title(loc="left") == "layer4: channel view, 9 snapshots, epoch 0 to 6"
    assert str(embedding.faithfulness) in ax.get_xlabel()
    assert list(ax.get_xticks()) == list(ax.get_yticks()) == []


def test_one_snapshot(found):
    embedding, clusters, _ = found
    ax = plot.embedding(embedding, clusters, epoch=1)
    np.testing.assert_array_equal(dots(ax).get_offsets(), embedding.by_snapshot(embedding.values)[3])
    assert ax.get_title(loc="left") == "layer4: channel view, epoch 1, step 8"
    same = plot.embedding(embedding, clusters, snapshot=3)
    assert colors(same) == colors(ax)


def test_without_clusters_color_is_time(found):
    ax = plot.embedding(found[0])
    drawn = np.array(colors(ax)).reshape(9, 64)
    assert all(len(set(row)) == 1 for row in drawn)
    assert len(set(drawn[:, 0])) == 9
    assert legend(ax.get_legend())["epoch 1, step 4"] == drawn[2, 0]


def test_draws_into_the_axes_given(found):
    _, ax = plt.subplots()
    assert plot.embedding(found[0], found[1], ax=ax) is ax


def test_clusters_of_other_rows_are_refused(found, drifting):
    embedding, clusters, _ = found
    with pytest.raises(ValueError, match="make both from the same scores"):
        plot.embedding(embedding, replace(clusters, layer="layer3"))
    with pytest.raises(ValueError, match="received clusters of 180 rows"):
        plot.embedding_grid(embedding, drifting(20)[1])


def test_unknown_snapshot(found):
    with pytest.raises(ValueError, match="received epoch=17; expected one of 0, 1"):
        plot.embedding(found[0], epoch=17)


def test_a_snapshot_that_reaches_far_beyond_the_others_is_named_and_leaves_them_the_frame(found):
    embedding = found[0]
    scale = np.repeat([40.0] + 8 * [1.0], 64)[:, None]
    far = replace(embedding, values=embedding.values * scale)
    others = np.ptp(far.by_snapshot(far.values)[1:], axis=(0, 1))
    for ax in (plot.embedding(far), plot.embedding(far, snapshot=3), plot.trajectories(far)):
        assert np.ptp(ax.get_xlim()) < 1.3 * others.max()
        assert "epoch 0 reaches" in ax.get_xlabel()
    first = plot.embedding(far, snapshot=0)
    assert np.ptp(first.get_xlim()) > 10 * others[0]
    assert "times as wide as those of other snapshots" in first.get_xlabel()
    assert "reaches" not in plot.embedding(embedding).get_xlabel()
    titles = [panel.get_title(loc="left") for panel in plot.embedding_grid(far).axes[:2]]
    assert "times as wide" in titles[0]
    assert titles[1] == "epoch 1, step 2"
