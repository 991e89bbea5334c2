from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch, Rectangle

from fmcluster import plot
from fmcluster.plot import cluster_palette
from fmcluster.plot._flow import NODE
from fmcluster.plot.drawing._figures import spread


@pytest.fixture(scope="module", params=[False, True], ids=["all clustered", "with noise"])
def history(request, drifting):
    return drifting(120, noise=request.param)[2]


def bands(ax):
    found = [patch for patch in ax.patches if isinstance(patch, PathPatch) and patch.get_gid() != "survive"]
    return {tuple(map(int, patch.get_gid().split(","))): patch for patch in found}


def nodes(ax):
    found = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    return {tuple(map(int, patch.get_gid().split(","))): patch for patch in found}


def test_bands_are_as_high_as_their_counts(history):
    drawn = bands(plot.flow(history))
    flow = history.flow
    counts = {(a, b, c): n for a, b, c, n in flow[["from_snapshot", "from_cluster", "to_cluster", "count"]].to_numpy()}
    assert drawn.keys() == counts.keys()
    for key, patch in drawn.items():
        corners = patch.get_path().vertices
        assert corners[7, 1] - corners[0, 1] == pytest.approx(counts[key])
        assert corners[4, 1] - corners[3, 1] == pytest.approx(counts[key])


def test_nodes_are_as_high_as_their_clusters_and_filled_by_their_bands(history):
    ax = plot.flow(history)
    drawn, flows = nodes(ax), bands(ax)
    for (snapshot, cluster), node in drawn.items():
        assert node.get_height() == history.sizes.loc[snapshot, cluster]
        leaving = [b.get_path().vertices for key, b in flows.items() if key[:2] == (snapshot, cluster)]
        arriving = [b.get_path().vertices for key, b in flows.items() if (key[0] + 1, key[2]) == (snapshot, cluster)]
        for ends in ([(v[0, 1], v[7, 1]) for v in leaving], [(v[3, 1], v[4, 1]) for v in arriving]):
            if not ends:
                continue
            ends = np.array(sorted(ends))
            np.testing.assert_allclose(ends[1:, 0], ends[:-1, 1])
            np.testing.assert_allclose([ends[0, 0], ends[-1, 1]], [node.get_y(), node.get_y() + node.get_height()])
    assert len(drawn) == (history.sizes.to_numpy() > 0).sum()
    assert {node.get_x() for node in drawn.values()} == {k - NODE / 2 for k in range(9)}


def test_colors_are_those_of_the_palette(history):
    ax = plot.flow(history)
    palette = cluster_palette(history.clusters.labels)
    assert all(to_hex(node.get_facecolor()) == palette[key[1]] for key, node in nodes(ax).items())
    assert all(to_hex(band.get_facecolor()) == palette[key[1]] for key, band in bands(ax).items())


def test_bands_of_movers_stand_out(history):
    shades = {False: set(), True: set()}
    for (_, source, target), band in bands(plot.flow(history)).items():
        shades[source != target and -1 not in (source, target)].add(band.get_alpha())
    assert len(shades[True]) == len(shades[False]) == 1
    assert shades[True].pop() > shades[False].pop()


def test_labels(history):
    ax = plot.flow(history)
    assert [tick.get_text() for tick in ax.get_xticklabels()][:3] == ["epoch 0", "epoch 1\nstep 2", "epoch 1\nstep 4"]
    assert len(ax.get_xticks()) == 9
    said = [text.get_text() for text in ax.texts]
    assert f"cluster 0 ({history.sizes.loc[0, 0]})" in said
    assert f"cluster 0 ({history.sizes.loc[8, 0]})" in said
    assert any(word.startswith("noise") for word in said) == (-1 in history.sizes.columns)
    assert ax.get_title(loc="left") == "layer4: flow of the 120 rows of the channel view between clusters"


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [3, 14, 30])
def test_names_do_not_meet(n_clusters, drifting):
    ax = plot.flow(drifting(200, n_clusters=n_clusters, noise=True)[2])
    ax.figure.draw_without_rendering()
    for side in ("left", "right"):
        boxes = sorted((t.get_window_extent().y0, t.get_window_extent().y1) for t in ax.texts if t.get_ha() == side)
        assert all(lower[1] <= upper[0] + 1 for lower, upper in pairwise(boxes))
    assert all(ax.figure.bbox.x0 <= t.get_window_extent().x0 for t in ax.texts)
    assert all(t.get_window_extent().x1 <= ax.figure.bbox.x1 for t in ax.texts)


def transitions_of(history):
    """Add the transitions that `track` finds by the labels, and a split and a merge."""
    steps = [
        *[(k, k + 1, c, c, "survive", 0.9) for k in range(8) for c in range(8)],
        *[(1, 2, 3, 0, "split", 0.4), (1, 2, 3, 5, "split", 0.4), (4, 5, 6, 2, "merge", 0.6), (4, 5, 2, 2, "merge", 1)],
        *[(2, 3, 7, None, "vanish", 0.3), (6, 7, None, 1, "appear", np.nan)],
    ]
    columns = ["from_snapshot", "to_snapshot", "from_cluster", "to_cluster", "transition", "overlap"]
    frame = pd.DataFrame(steps, columns=columns).astype({"from_cluster": "Int64", "to_cluster": "Int64"})
    return replace(history, transitions=frame)


@pytest.mark.slow
def test_transitions_are_marked_beside_their_nodes(history):
    ax = plot.flow(transitions_of(history))
    drawn = nodes(ax)
    marks = {curve.get_gid(): curve.get_xydata() for curve in ax.lines}
    beside = {"split": ((1, 3), 1), "vanish": ((2, 7), 1), "merge": ((5, 2), -1), "appear": ((7, 1), -1)}
    assert marks.keys() == beside.keys()
    for what, (place, side) in beside.items():
        ((x, y),) = marks[what]
        assert y == pytest.approx(drawn[place].get_y() + drawn[place].get_height() / 2)
        assert NODE / 2 < side * (x - place[0]) < 0.5
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said == ["survives", "appears", "vanishes", "splits", "merged"]


def test_a_line_goes_through_the_bands_in_which_clusters_survive(history):
    ax = plot.flow(transitions_of(history))
    survive = [patch.get_path().vertices for patch in ax.patches if patch.get_gid() == "survive"]
    flows = bands(ax)
    staying = {key: band.get_path().vertices for key, band in flows.items() if key[1] == key[2] != -1}
    assert len(survive) == len(staying)
    middles = [((v[0, 1] + v[7, 1]) / 2, (v[3, 1] + v[4, 1]) / 2) for v in staying.values()]
    drawn = [(line[0, 1], line[3, 1]) for line in survive]
    np.testing.assert_allclose(*(sorted(np.round(ends, 6).tolist()) for ends in (drawn, middles)))


@pytest.mark.slow
def test_marks_can_be_left_out_and_are_left_out_where_there_are_none(history):
    for ax in (plot.flow(transitions_of(history), transitions=False), plot.flow(history)):
        assert not ax.lines
        assert ax.get_legend() is None
        assert not [patch for patch in ax.patches if patch.get_gid() == "survive"]


def test_the_legend_of_marks_stands_clear_of_the_title(history):
    ax = plot.flow(transitions_of(history))
    ax.figure.draw_without_rendering()
    legend = ax.get_legend().get_window_extent()
    title = next(text for text in ax.get_children() if getattr(text, "get_text", str)() == ax.get_title(loc="left"))
    assert legend.y1 <= title.get_window_extent().y0 + 1
    assert legend.y0 >= ax.bbox.y1 - 1


def test_axes_given(history):
    _, ax = plt.subplots(figsize=(3, 3))
    assert plot.flow(history, ax=ax) is ax
    assert len(ax.get_xticks()) < 9


def test_one_snapshot_is_refused(drifting):
    clusters = drifting(10, count=1)[1]
    two = drifting(10, count=2)[2]
    with pytest.raises(ValueError, match="expected 2 or more"):
        plot.flow(type(two)(**(vars(two) | {"clusters": clusters})))


def test_spread_keeps_order_and_distance():
    places = np.sort(np.random.default_rng(0).random(20))
    moved = spread(places, apart=0.04)
    assert (np.diff(moved) >= 0.04 - 1e-12).all()
    np.testing.assert_array_equal(spread(places * 100, apart=1e-6), places * 100)
