"""Embedding grid: one embedding per snapshot, on the same axes."""

import numpy as np
import pytest

from fmcluster import plot
from fmcluster.plot import cluster_palette
from tests.plot.test_embedding import colors, dots


@pytest.fixture(scope="module")
def found(drifting):
    return drifting(64, noise=True)


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
