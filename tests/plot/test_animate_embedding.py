import gc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.animation import FuncAnimation
from matplotlib.colors import to_rgb

from fmcluster import plot
from fmcluster.plot import cluster_palette


def frames(animation):
    return list(animation.new_frame_seq())


def show(animation, frame):
    """Draw a frame, and return the figure."""
    animation._func(frame)
    return animation._fig


def words(figure):
    return [text.get_text() for text in figure.texts]


@pytest.fixture(scope="module")
def found(drifting):
    return drifting(64)


def points(figure):
    return figure.axes[0].collections[0]


def test_rows_rest_at_the_snapshots_and_go_straight_between(found):
    embedding, clusters, _ = found
    animation = plot.animate_embedding(embedding, clusters)
    assert isinstance(animation, FuncAnimation)
    places = embedding.by_snapshot(embedding.values)
    for snapshot in range(9):
        np.testing.assert_allclose(points(show(animation, float(snapshot))).get_offsets(), places[snapshot])
    half = points(show(animation, 3.5)).get_offsets()
    np.testing.assert_allclose(half, (places[3] + places[4]) / 2)
    early = points(show(animation, 3.2)).get_offsets()
    along = (early - places[3]) / (places[4] - places[3])
    np.testing.assert_allclose(along, along.flat[0])
    assert 0 < along.flat[0] < 0.2
    np.testing.assert_allclose(points(show(animation, 8.0)).get_offsets(), places[8])


def test_frames_pass_every_snapshot_in_order(found):
    order = frames(plot.animate_embedding(found[0], between=4))
    assert order == sorted(order)
    assert {frame for frame in order if frame == int(frame)} == set(map(float, range(9)))
    assert sum(frame != int(frame) for frame in order) == 8 * 4
    assert order.count(8.0) > order.count(7.0) > 1


def test_the_title_names_the_snapshot_and_a_mark_moves_along_the_line_of_time(found):
    animation = plot.animate_embedding(found[0])
    figure = show(animation, 2.0)
    assert figure.axes[0].get_title(loc="left") == "layer4: channel view, epoch 1, step 4"
    (now,) = [line for line in figure.axes[1].lines if line.get_gid() == "now"]
    show(animation, 2.4)
    assert now.get_xdata() == [2.4]
    assert figure.axes[0].get_title(loc="left").endswith("epoch 1, step 4")
    show(animation, 2.6)
    assert figure.axes[0].get_title(loc="left").endswith("epoch 1, step 8")


def test_colors_are_those_of_the_clusters_and_go_over_on_the_way(found):
    embedding, clusters, _ = found
    animation = plot.animate_embedding(embedding, clusters)
    palette, labels = cluster_palette(clusters.labels), clusters.by_snapshot(clusters.labels)
    before, after = (np.array([to_rgb(palette[int(label)]) for label in labels[k]]) for k in (0, 1))
    np.testing.assert_allclose(points(show(animation, 0.0)).get_facecolor()[:, :3], before)
    np.testing.assert_allclose(points(show(animation, 0.5)).get_facecolor()[:, :3], (before + after) / 2)
    np.testing.assert_allclose(points(show(animation, 1.0)).get_facecolor()[:, :3], after)
    said = [text.get_text() for text in animation._fig.axes[0].get_legend().get_texts()]
    assert said == [f"cluster {label}" for label in range(8)]


def test_a_map_of_one_snapshot_does_not_move(found, drifting):
    with pytest.raises(ValueError, match="expected 2 or more: record more, or draw `embedding`"):
        plot.animate_embedding(drifting(10, count=1)[0])
    with pytest.raises(ValueError, match="received between=-1"):
        plot.animate_embedding(found[0], between=-1)
    with pytest.raises(ValueError, match="same scores"):
        plot.animate_embedding(found[0], drifting(10)[1])


def panel(figure):
    """Return the axes of the tiles: those with most images."""
    return max(figure.axes, key=lambda ax: len(ax.images))


@pytest.mark.slow
def test_what_is_dropped_unseen_warns_of_nothing(found, layers):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.animate_embedding(found[0])
        plot.animate_grid(layers["fc"])
        gc.collect()


def test_axes_follow_a_snapshot_that_lies_far_from_the_others(found):
    embedding = found[0]
    places = embedding.by_snapshot(embedding.values).copy()
    places[0] *= 20
    animation = plot.animate_embedding(replace(embedding, values=places.reshape(-1, 2)))
    widths = []
    for frame in frames(animation):
        figure = show(animation, frame)
        figure.canvas.draw()
        ax = figure.axes[0]
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        x, y = np.asarray(points(figure).get_offsets()).T
        assert left < x.min() <= x.max() < right
        assert bottom < y.min() <= y.max() < top
        widths.append(right - left)
        said = ax.get_xlabel()
        assert ("times as wide as those of other snapshots" in said) == (frame <= 0.5)
        assert ("epoch 0 reaches" in said) == (frame > 0.5)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 5
    box = {tuple(np.round(show(animation, frame).axes[0].get_position().bounds, 6)) for frame in (0.0, 0.4, 8.0)}
    assert len(box) == 1
