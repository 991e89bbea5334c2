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


def test_grid_shares_limits_and_colors(found):
    embedding, clusters, _ = found
    figure = plot.embedding_grid(embedding, clusters)
    panels = figure.axes
    assert [panel.get_title(loc="left") for panel in panels[:3]] == ["epoch 0", "epoch 1, step 2", "epoch 1, step 4"]
    assert len(panels) == 9
    assert len({(panel.get_xlim(), panel.get_ylim()) for panel in panels}) == 1
    palette = cluster_palette(clusters.labels)
    for panel, points, labels in zip(
        panels, embedding.by_snapshot(embedding.values), clusters.by_snapshot(clusters.labels), strict=True
    ):
        np.testing.assert_array_equal(dots(panel).get_offsets(), points)
        assert colors(panel) == [palette[label] for label in labels]
    assert len(figure.legends) == 1
    assert all(panel.get_legend() is None for panel in panels)


def test_grid_without_clusters_needs_no_legend(found):
    assert plot.embedding_grid(found[0]).legends == []


@pytest.mark.parametrize(("count", "panels"), [(1, 1), (4, 6)])
def test_grid_of_few_snapshots(count, panels, drifting):
    figure = plot.embedding_grid(*drifting(20, count=count)[:2])
    assert len(figure.axes) == panels
    assert sum(panel.axison for panel in figure.axes) == count


def test_legend_does_not_cover_a_panel(drifting):
    figure = plot.embedding_grid(*drifting(100, n_clusters=30, noise=True)[:2])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert all(panel.get_window_extent().x1 <= box.x0 for panel in figure.axes)
    assert figure.bbox.x1 >= box.x1
    assert figure.bbox.y0 <= box.y0


def test_clusters_of_other_rows_are_refused(found, drifting):
    embedding, clusters, _ = found
    with pytest.raises(ValueError, match="make both from the same scores"):
        plot.embedding(embedding, replace(clusters, layer="layer3"))
    with pytest.raises(ValueError, match="received clusters of 180 rows"):
        plot.embedding_grid(embedding, drifting(20)[1])


def test_unknown_snapshot(found):
    with pytest.raises(ValueError, match="received epoch=17; expected one of 0, 1"):
        plot.embedding(found[0], epoch=17)
