from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from fmcluster import track
from fmcluster.analysis._results import Clusters
from fmcluster.plot import cluster_palette
from fmcluster.plot._lifelines import lifelines

END = 0.18


def tracked(rows, *, labels, fit, layer="layer4"):
    clusters = Clusters(rows=rows, layer=layer, view="channel", fit=fit, labels=np.ravel(labels), method="KMeans")
    return track(clusters, n_permutations=0)


def moved_by_hand(drifting, labels, *, fit):
    labels = np.array(labels, dtype=np.int64)
    rows = drifting(labels.shape[1], count=len(labels))[1].rows
    return tracked(rows, labels=labels, fit=fit)


# Ten rows: 0 splits into 0 and 2; 1 survives and takes 2 in again; 3 appears out of noise and vanishes.
FOLLOWED = [
    [0, 0, 0, 0, 1, 1, 1, -1, -1, -1],
    [0, 0, 2, 2, 1, 1, 1, 3, 3, 3],
    [0, 0, 1, 1, 1, 1, 1, -1, -1, 3],
    [0, 0, 1, 1, 1, 1, 1, -1, -1, -1],
]


def lines(ax):
    return [shape for shape in ax.collections if isinstance(shape, PolyCollection)]


def line(ax, gid):
    (found,) = [shape for shape in lines(ax) if shape.get_gid() == gid]
    return found


def thickness(shape):
    """Return how thick a line is at each of its places along x."""
    corners = shape.get_paths()[0].vertices
    return {float(x): float(np.ptp(corners[corners[:, 0] == x, 1])) for x in np.unique(corners[:, 0])}


def lane(ax, name):
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    return float(ax.get_yticks()[names.index(name)])


def marks(ax, what):
    found = [curve for curve in ax.lines if curve.get_gid() == what and curve.get_linestyle() == "None"]
    return {(float(x), float(y)) for curve in found for x, y in zip(*curve.get_data(), strict=True)}


def links(ax, what):
    found = [curve for curve in ax.lines if curve.get_gid() == what and curve.get_linestyle() == "-"]
    return {tuple(map(tuple, np.transpose(curve.get_data()).tolist())) for curve in found}


@pytest.mark.parametrize("fit", ["pooled", "each"])
def test_every_life_is_a_line_as_long_and_as_thick_as_its_cluster(fit, drifting):
    clusters = drifting(64)[1]
    history = tracked(clusters.rows, labels=clusters.labels, fit=fit)
    ax = lifelines(history)
    wanted = {f"{life.born},{life.cluster}": life for life in history.lives.itertuples()}
    assert {shape.get_gid() for shape in lines(ax)} == set(wanted)
    for gid, life in wanted.items():
        along = thickness(line(ax, gid))
        died = 8 if pd.isna(life.died) else life.died
        assert (min(along), max(along)) == (life.born - END, died + END)
        for snapshot in range(life.born, died + 1):
            np.testing.assert_allclose(along[snapshot], history.sizes.loc[snapshot, life.cluster])


def test_a_line_has_the_color_of_its_cluster_and_keeps_to_its_lane(drifting):
    history = moved_by_hand(drifting, FOLLOWED, fit="each")
    ax = lifelines(history)
    palette = cluster_palette(history.clusters.labels)
    for gid, label in (("0,1", 1), ("1,3", 3), ("1,2", 2)):
        shape = line(ax, gid)
        assert to_hex(shape.get_facecolor()[0]) == palette[label]
        corners = shape.get_paths()[0].vertices
        np.testing.assert_allclose((corners[:, 1].min() + corners[:, 1].max()) / 2, lane(ax, f"cluster {label}"))


def test_clusters_of_each_snapshot_have_marks_where_they_appear_vanish_split_and_merge(drifting):
    history = moved_by_hand(drifting, FOLLOWED, fit="each")
    ax = lifelines(history)
    lanes = [lane(ax, f"cluster {label}") for label in range(4)]
    assert marks(ax, "split") == {(0 + END, lanes[0])}
    assert links(ax, "split") == {((0 + END, lanes[0]), (1 - END, lanes[part])) for part in (0, 2)}
    assert marks(ax, "merge") == {(2 - END, lanes[1])}
    assert links(ax, "merge") == {((1 + END, lanes[part]), (2 - END, lanes[1])) for part in (1, 2)}
    gone = history.transitions.query("transition == 'vanish'")
    assert marks(ax, "vanish") == {(row.from_snapshot + END, lanes[row.from_cluster]) for row in gone.itertuples()}
    new = history.transitions.query("transition == 'appear'")
    assert len(new) > 0
    assert len(gone) > 0
    assert marks(ax, "appear") == {(row.to_snapshot - END, lanes[row.to_cluster]) for row in new.itertuples()}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["appears", "vanishes", "splits", "merged"]


def test_a_cluster_that_survives_by_another_name_goes_over_to_its_lane(drifting):
    labels = [[0] * 6 + [1] * 4, [5] * 6 + [1] * 4]
    history = moved_by_hand(drifting, labels, fit="each")
    ax = lifelines(history)
    before, after = [shape for shape in lines(ax) if shape.get_gid() == "0,0"]
    palette = cluster_palette(6)
    assert [to_hex(shape.get_facecolor()[0]) for shape in (before, after)] == [palette[0], palette[5]]
    corners = before.get_paths()[0].vertices
    arriving = np.unique(corners[corners[:, 0] == 1, 1])
    np.testing.assert_allclose(arriving, lane(ax, "cluster 5") + np.array([-3, 3]))
    assert len(history.lives) == 2


def test_a_pooled_cluster_without_members_for_a_time_is_dotted_there(drifting):
    labels = [[0] * 6 + [1] * 4, [0] * 10, [0] * 6 + [1] * 4]
    history = moved_by_hand(drifting, labels, fit="pooled")
    ax = lifelines(history)
    at = lane(ax, "cluster 1")
    (gap,) = [curve for curve in ax.lines if curve.get_gid() == "gap"]
    assert np.transpose(gap.get_data()).tolist() == [[0 + END, at], [2 - END, at]]
    assert marks(ax, "vanish") == {(0 + END, at)}
    assert marks(ax, "appear") == {(2 - END, at)}
    assert {shape.get_gid() for shape in lines(ax)} == {"0,0", "0,1", "2,1"}
    assert ax.get_title(loc="left") == "layer4: lives of 2 clusters of the channel view, 2 there at the end"


def test_noise_is_grey_below_and_has_no_marks(drifting):
    clusters = drifting(64, noise=True)[1]
    history = tracked(clusters.rows, labels=clusters.labels, fit="pooled")
    ax = lifelines(history)
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == [f"cluster {label}" for label in range(8)] + ["noise"]
    assert lane(ax, "noise") == max(ax.get_yticks())
    shape = line(ax, "noise")
    assert to_hex(shape.get_facecolor()[0]) == cluster_palette(1)[-1]
    for snapshot, members in history.sizes[-1].items():
        np.testing.assert_allclose(thickness(shape)[snapshot], members)
    assert ax.get_legend() is None
    assert not ax.lines


@pytest.mark.slow
def test_members_at_the_end_stand_on_the_right(drifting):
    history = moved_by_hand(drifting, FOLLOWED, fit="each")
    ax = lifelines(history)
    assert {(text.get_text(), text.xy[1]) for text in ax.texts} == {
        ("2", lane(ax, "cluster 0")),
        ("5", lane(ax, "cluster 1")),
        ("3", lane(ax, "noise")),
    }


def test_lanes_do_not_overlap(drifting):
    clusters = drifting(64)[1]
    history = tracked(clusters.rows, labels=clusters.labels, fit="pooled")
    ax = lifelines(history)
    edges = []
    for shape in lines(ax):
        corners = shape.get_paths()[0].vertices[:, 1]
        edges.append((corners.min(), corners.max()))
    edges.sort()
    assert all(below[0] > above[1] for above, below in pairwise(edges))
    bottom, top = ax.get_ylim()
    assert top <= edges[0][0]
    assert edges[-1][1] <= bottom


@pytest.mark.slow
def test_names_that_would_overlap_are_left_out(drifting):
    labels = np.tile(np.arange(150), (3, 1))
    ax = lifelines(moved_by_hand(drifting, labels, fit="pooled"))
    height = ax.get_window_extent().height / 100 * 72
    apart = np.diff(ax.get_yticks()) / abs(np.diff(ax.get_ylim())[0]) * height
    assert 2 < len(ax.get_yticks()) < 150
    assert apart.min() > 10
    assert len(lines(ax)) == 150


def test_a_layer_name_is_not_read_as_mathematics(drifting):
    clusters = drifting(10)[1]
    ax = lifelines(tracked(clusters.rows, labels=clusters.labels, fit="pooled", layer="a_$b$"))
    assert ax.get_title(loc="left").startswith("a_$b$: ")
    ax.figure.canvas.draw()


def test_all_noise_has_no_clusters(drifting):
    ax = lifelines(moved_by_hand(drifting, np.full((2, 6), -1), fit="each"))
    assert [shape.get_gid() for shape in lines(ax)] == ["noise"]
    assert "0 clusters" in ax.get_title(loc="left")


def test_lives_in_one_snapshot_are_refused(drifting):
    with pytest.raises(ValueError, match=r"received the history of 1 snapshot; expected 2 or more: record more"):
        lifelines(moved_by_hand(drifting, [[0, 1, 1]], fit="pooled"))


def test_lives_on_given_axes(drifting):
    _, ax = plt.subplots()
    assert lifelines(moved_by_hand(drifting, FOLLOWED, fit="pooled"), ax=ax) is ax
