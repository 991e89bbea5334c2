"""The clusters of positions over an image, against the labels and the picture that they are drawn from."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from fmcluster.analysis._results import Clusters
from fmcluster.plot._position_clusters import position_clusters
from fmcluster.plot.drawing._palette import cluster_palette


@dataclass(frozen=True)
class Pictured:
    samples: pd.DataFrame
    pictures: np.ndarray | None
    label: str = "layer3"
    feature_map_shape: tuple[int, int, int] = (12, 3, 4)
    output_shape: tuple[int, ...] = (12, 3, 4)
    crop: tuple[tuple[int, int], tuple[int, int]] | None = None

    def display(self, sample: int) -> np.ndarray | None:
        return None if self.pictures is None else self.pictures[self.samples.index.get_loc(sample)]


@pytest.fixture
def layer() -> Pictured:
    rng = np.random.default_rng(0)
    samples = pd.DataFrame({"class_name": ["ant", "bee"]}, index=pd.Index([5, 8], name="sample"))
    return Pictured(samples, rng.integers(0, 256, (2, 15, 20, 3), dtype=np.uint8))


def clustered(count: int = 4, *, lowest: int = 0, highest: int = 5) -> Clusters:
    places = pd.MultiIndex.from_product([[5, 8], range(3), range(4)], names=["sample", "y", "x"]).to_frame(index=False)
    table = pd.DataFrame({"snapshot": range(count), "epoch": range(count), "step": np.arange(count) * 3})
    rows = table.merge(places, how="cross")
    labels = np.random.default_rng(2).integers(lowest, highest + 1, len(rows))
    return Clusters(rows=rows, layer="layer3", view="position", fit="pooled", labels=labels, method="KMeans")


def overlays(figure):
    return [image for ax in figure.axes for image in ax.images if image.get_gid() == "overlay"]


def words(figure):
    return [text.get_text() for text in figure.texts]


def test_overlays_hold_the_labels_of_the_sample_in_their_places(layer):
    clusters = clustered()
    drawn = overlays(position_clusters(clusters, layer, sample=8))
    expected = clusters.labels.reshape(4, 2, 3, 4)[:, 1]
    assert len(drawn) == 4
    for overlay, labels in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(overlay.get_array(), labels)


@pytest.mark.slow
def test_colors_are_those_of_the_palette_noise_among_them(layer):
    clusters = clustered(lowest=-1, highest=13)
    palette = cluster_palette(clusters.labels)
    overlay = overlays(position_clusters(clusters, layer, sample=5, alpha=0.4))[0]
    for label, color in palette.items():
        assert overlay.cmap(overlay.norm(label)) == pytest.approx(to_rgba(color))
    assert overlay.get_alpha() == 0.4


def test_the_plain_image_stands_first_and_a_grey_one_under_every_overlay(layer):
    figure = position_clusters(clustered(), layer, sample=8)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), layer.pictures[1])
    gray = layer.pictures[1] @ np.array([0.299, 0.587, 0.114])
    for ax in figure.axes[1:]:
        under, over = ax.images
        np.testing.assert_allclose(under.get_array(), gray)
        assert over.zorder >= under.zorder
        assert over.get_gid() == "overlay"


def test_titles_and_legend_say_what_is_seen(layer):
    clusters = clustered(lowest=-1)
    figure = position_clusters(clusters, layer, sample=8)
    assert "layer3: clusters of positions over 4 snapshots, epoch 0 to 3" in words(figure)
    assert any("6 clusters by KMeans" in word and "3 x 4 positions on sample 8 (bee)" in word for word in words(figure))
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["input", "epoch 0", "epoch 1", "epoch 2", "epoch 3"]
    present = np.unique(clusters.labels[clusters.rows["sample"] == 8])
    listed = [text.get_text() for text in figure.legends[0].get_texts()]
    assert listed == [f"cluster {label}" for label in present if label >= 0] + ["noise"]


def test_under_each_picture_stands_the_share_of_places_that_changed_noise_left_out(layer):
    clusters = clustered(lowest=-1)
    figure = position_clusters(clusters, layer, sample=8)
    labels = clusters.labels.reshape(4, 2, 12)[:, 1]
    expected = [""]
    for before, after in pairwise(labels):
        known = (before >= 0) & (after >= 0)
        expected.append(f"{np.mean(before[known] != after[known]):.0%} changed")
    assert [ax.get_xlabel() for ax in figure.axes[1:]] == expected


def test_a_cropped_layer_covers_the_part_of_the_image_that_was_kept(layer):
    cropped = replace(layer, output_shape=(12, 6, 8), crop=((3, 6), (2, 6)))
    figure = position_clusters(clustered(), cropped, sample=8)
    assert tuple(overlays(figure)[0].get_extent()) == (0.25, 0.75, 1.0, 0.5)
    assert figure.axes[1].get_xlim() == (0, 1)
    assert figure.axes[1].get_ylim() == (1, 0)


def test_places_that_were_not_drawn_stay_free(layer):
    whole = clustered()
    kept = (whole.rows["x"] != 2).to_numpy()
    part = replace(whole, rows=whole.rows[kept].reset_index(drop=True), labels=whole.labels[kept])
    mask = np.ma.getmaskarray(overlays(position_clusters(part, layer, sample=8))[0].get_array())
    np.testing.assert_array_equal(mask, np.broadcast_to(np.arange(4) == 2, (3, 4)))


def test_of_many_snapshots_some_are_drawn_and_it_says_so(layer):
    figure = position_clusters(clustered(100), layer, sample=8)
    count = len(overlays(figure))
    assert 2 <= count <= 11
    assert figure.axes[-1].get_title(loc="left") == "epoch 99"
    assert f"layer3: clusters of positions over 100 snapshots, epoch 0 to 99 ({count} of them drawn)" in words(figure)


def test_without_a_picture_the_clusters_stand_alone(layer):
    figure = position_clusters(clustered(), replace(layer, pictures=None), sample=8)
    assert [len(ax.images) for ax in figure.axes] == [1] * 4
    assert overlays(figure)[0].get_alpha() is None
    assert any("no picture" in word for word in words(figure))


@pytest.mark.parametrize(("count", "highest"), [(1, 0), (4, 5), (11, 40)])
def test_no_text_or_legend_leaves_the_page_or_meets_a_picture(layer, count, highest):
    figure = position_clusters(clustered(count, highest=highest), layer, sample=8)
    figure.draw_without_rendering()
    axes = [part for ax in figure.axes for part in (ax, ax.title, ax._left_title, ax.xaxis.label)]
    boxes = [part.get_window_extent() for part in [*figure.texts, *axes[1:], *figure.legends]]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(ax.get_window_extent()) for ax in figure.axes)
    assert not any(legend.overlaps(text.get_window_extent()) for text in figure.texts)


def test_names_with_dollars_are_names_not_formulas(layer, tmp_path):
    odd = replace(layer, label="a$\\frac$b", samples=layer.samples.assign(class_name="$\\frac$"))
    position_clusters(replace(clustered(), layer="a$\\frac$b"), odd, sample=8).savefig(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sample": 6}, r"received sample=6; expected one of the 2 clustered samples \(5 to 8\)"),
        ({"sample": 8, "alpha": 0}, "received alpha=0; expected above 0"),
    ],
)
def test_errors_say_what_to_do(layer, arguments, said):
    with pytest.raises(ValueError, match=said):
        position_clusters(clustered(), layer, **arguments)


def test_another_view_layer_or_several_runs_are_refused(layer):
    clusters = clustered()
    channels = replace(clusters, rows=clusters.rows.drop(columns=["y", "x"]), view="sample")
    with pytest.raises(ValueError, match="received clusters of the 'sample' view; expected the 'position' view"):
        position_clusters(channels, layer, sample=8)
    with pytest.raises(ValueError, match=r"several runs; .* pass `clusters\.of_run\(0\)`"):
        position_clusters(replace(clusters, rows=clusters.rows.assign(run=0)), layer, sample=8)
    with pytest.raises(ValueError, match="received clusters of 'layer3' and layer 'fc'"):
        position_clusters(clusters, replace(layer, label="fc"), sample=8)
    with pytest.raises(ValueError, match="expected channels, height and width"):
        position_clusters(clusters, replace(layer, output_shape=(12,)), sample=8)
