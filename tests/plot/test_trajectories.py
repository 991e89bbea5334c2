import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from fmcluster import plot
from fmcluster.analysis.diagnosis._findings import Findings, Thresholds
from fmcluster.plot import cluster_palette


@pytest.fixture(scope="module")
def found(drifting):
    return drifting(64)


def lines(ax):
    return {c.get_gid(): c for c in ax.collections if isinstance(c, LineCollection)}


def labels(ax):
    return [mark.get_label() for mark in ax.get_legend().legend_handles]


def lengths(embedding):
    steps = np.diff(embedding.by_snapshot(embedding.values), axis=0)
    return np.linalg.norm(steps, axis=2).sum(axis=0)


def expected_segments(embedding, rows):
    paths = embedding.by_snapshot(embedding.values)
    return np.array([[paths[k, row], paths[k + 1, row]] for row in rows for k in range(len(paths) - 1)])


def test_segments_are_the_steps_of_the_map(found):
    embedding, clusters, _ = found
    drawn = lines(plot.trajectories(embedding, clusters))
    furthest = np.argsort(-lengths(embedding), kind="stable")
    np.testing.assert_array_equal(drawn["strong"].get_segments(), expected_segments(embedding, furthest[:24]))
    rest = np.sort(furthest[24:])
    np.testing.assert_array_equal(drawn["thin"].get_segments(), expected_segments(embedding, rest))


def test_color_is_the_last_cluster_and_older_is_fainter(found):
    embedding, clusters, _ = found
    strong = lines(plot.trajectories(embedding, clusters))["strong"]
    shades = strong.get_colors().reshape(24, 8, 4)
    last = clusters.by_snapshot(clusters.labels)[-1]
    palette = cluster_palette(clusters.labels)
    furthest = np.argsort(-lengths(embedding), kind="stable")[:24]
    assert [to_hex(shade) for shade in shades[:, 0]] == [palette[last[row]] for row in furthest]
    assert (np.diff(shades[:, :, 3], axis=1) > 0).all()


def test_marks_are_explained_and_the_furthest_numbered(found):
    embedding, clusters, _ = found
    ax = plot.trajectories(embedding, clusters)
    furthest = np.argsort(-lengths(embedding), kind="stable")[:5]
    assert [text.get_text() for text in ax.texts] == [str(row) for row in furthest]
    assert labels(ax)[:5] == ["epoch 0", "epoch 6", "24 longest, 5 numbered", "40 others", "at the last snapshot:"]
    assert ax.get_title(loc="left") == "layer4: paths in the channel view, 9 snapshots, epoch 0 to 6"
    paths = embedding.by_snapshot(embedding.values)
    starts, ends = [c for c in ax.collections if not isinstance(c, LineCollection)][-2:]
    np.testing.assert_array_equal(starts.get_offsets()[:5], paths[0, furthest])
    np.testing.assert_array_equal(ends.get_offsets()[:5], paths[-1, furthest])
    assert {to_hex(color) for color in starts.get_facecolors()} == {"#ffffff"}


def test_rows_asked_for(found):
    embedding, clusters, _ = found
    ax = plot.trajectories(embedding, clusters, rows=[3, 17])
    drawn = lines(ax)
    assert set(drawn) == {"strong"}
    order = sorted([3, 17], key=lambda row: -lengths(embedding)[row])
    np.testing.assert_array_equal(drawn["strong"].get_segments(), expected_segments(embedding, order))
    last = clusters.by_snapshot(clusters.labels)[-1][[3, 17]]
    assert labels(ax)[3:] == [f"cluster {label}" for label in np.unique(last)]


def test_colors_do_not_depend_on_the_rows_asked_for(drifting):
    embedding, clusters, _ = drifting(64, n_clusters=14)
    strong = lines(plot.trajectories(embedding, clusters, rows=[5]))["strong"]
    last = clusters.by_snapshot(clusters.labels)[-1]
    assert to_hex(strong.get_colors()[0]) == cluster_palette(clusters.labels)[last[5]]
    marks = plot.trajectories(embedding, clusters, rows=[5]).get_legend().legend_handles
    assert to_hex(marks[-1].get_color()) == cluster_palette(14)[last[5]]


def test_rows_are_named_by_their_ids(found):
    embedding, _, _ = found
    rows = embedding.rows.assign(channel=embedding.rows["channel"] + 100)
    ax = plot.trajectories(type(embedding)(**(vars(embedding) | {"rows": rows})), rows=[110])
    assert [text.get_text() for text in ax.texts] == ["110"]


def test_rows_of_two_ids_are_places(found):
    embedding, _, _ = found
    rows = embedding.rows.rename(columns={"channel": "sample"}).assign(channel=7)
    both = type(embedding)(**(vars(embedding) | {"rows": rows, "view": "feature_map"}))
    ax = plot.trajectories(both, rows=[0, 12])
    assert sorted(text.get_text() for text in ax.texts) == ["0, 7", "12, 7"]


@pytest.mark.parametrize("top", [0, 64, 1000])
def test_extremes_of_top(found, top):
    drawn = lines(plot.trajectories(found[0], top=top))
    assert set(drawn) == {"thin" if top == 0 else "strong"}


def test_two_snapshots(drifting):
    ax = plot.trajectories(*drifting(10, count=2)[:2])
    assert len(lines(ax)["strong"].get_segments()) == 10


def test_refusals(found, drifting):
    with pytest.raises(ValueError, match="expected 2 or more"):
        plot.trajectories(drifting(10, count=1)[0])
    with pytest.raises(
        ValueError, match=r"received channel 64; expected one or more of the 64 in the embed\w+ \(0 to 63\)"
    ):
        plot.trajectories(found[0], rows=[64])
    with pytest.raises(ValueError, match="received no channel"):
        plot.trajectories(found[0], rows=[])
    with pytest.raises(ValueError, match="received top=-1"):
        plot.trajectories(found[0], top=-1)
    with pytest.raises(ValueError, match="same scores"):
        plot.trajectories(found[0], drifting(10)[1])


def findings_of(embedding, drift, *, threshold=0.5, layer="layer4"):
    channels = embedding.rows[["snapshot", "channel"]].assign(layer=layer, drift=drift)
    layers = pd.DataFrame({"layer": [layer]})
    return Findings(pd.DataFrame(), channels, layers, (), Thresholds(drift=threshold))


def test_a_drift_leaves_out_what_moved_less(found):
    embedding, clusters, _ = found
    length = lengths(embedding)
    least = float(np.median(length))
    ax = plot.trajectories(embedding, clusters, top=10, drifted=least)
    order = np.argsort(-length, kind="stable")[:32]
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["strong"].get_segments(), expected_segments(embedding, order[:10]))
    np.testing.assert_array_equal(drawn["thin"].get_segments(), expected_segments(embedding, np.sort(order[10:])))
    assert labels(ax)[0] == f"32 of 64 rows with\na path over {least:.3g}"
    assert labels(ax)[3:5] == ["10 longest, 5 numbered", "22 others"]


def test_findings_tell_which_channels_drifted(found):
    embedding, _, _ = found
    # each channel is farthest from its first response at another snapshot
    drift = np.zeros((9, 64))
    drift[np.arange(64) % 8 + 1, np.arange(64)] = np.linspace(0, 1, 64)
    moved = np.flatnonzero(np.linspace(0, 1, 64) > 0.75)
    ax = plot.trajectories(embedding, drifted=findings_of(embedding, drift.ravel(), threshold=0.75), top=0)
    np.testing.assert_array_equal(lines(ax)["thin"].get_segments(), expected_segments(embedding, moved))
    assert labels(ax)[0] == "16 of 64 rows with\na drift over 0.75"
    asked = plot.trajectories(embedding, rows=[3, 60], drifted=findings_of(embedding, drift.ravel(), threshold=0.75))
    np.testing.assert_array_equal(lines(asked)["strong"].get_segments(), expected_segments(embedding, [60]))
    assert labels(asked)[0] == "1 of 2 rows with\na drift over 0.75"


def test_nothing_over_the_drift_is_said(found):
    ax = plot.trajectories(*found[:2], drifted=1e9)
    assert not lines(ax)
    assert labels(ax)[0] == "0 of 64 rows with\na path over 1e+09"


def test_drifts_of_something_else_are_refused(found):
    embedding = found[0]
    other = findings_of(embedding, 0.5, layer="conv1")
    with pytest.raises(
        ValueError, match=r"findings of layers \['conv1'\], and an embedding of the channel view of 'layer4'"
    ):
        plot.trajectories(embedding, drifted=other)
    with pytest.raises(TypeError, match="received drifted='much'; expected a number"):
        plot.trajectories(embedding, drifted="much")
    with pytest.raises(ValueError, match="received drifted=-1"):
        plot.trajectories(embedding, drifted=-1)


def test_arrows_point_along_the_longest_step_of_strong_paths(found):
    embedding, clusters, _ = found
    ax = plot.trajectories(embedding, clusters, rows=range(64))
    arrows = [patch for patch in ax.patches if patch.get_gid() == "arrow"]
    assert arrows
    paths = embedding.by_snapshot(embedding.values).swapaxes(0, 1)
    steps = np.diff(paths, axis=1)
    size = np.linalg.norm(steps, axis=2)
    longest = steps[np.arange(64), size.argmax(axis=1)]
    for arrow in arrows:
        start, end = arrow._posA_posB
        way = (np.array(end) - np.array(start)) / 0.01
        assert np.abs(longest - way).sum(axis=1).min() < 1e-6


def test_frame_of_rows_is_left_alone(found):
    before = found[0].rows.copy()
    plot.trajectories(found[0])
    pd.testing.assert_frame_equal(before, found[0].rows)
