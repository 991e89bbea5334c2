"""The explorer's charts and pictures hold what the results and the store hold."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import KMeans

import fmcluster as fm
from fmcluster.explore._figures import (
    class_legend,
    embedding_figure,
    grid_figure,
    input_image,
    row_image,
    row_pictures,
    row_strip,
    sample_names,
)
from fmcluster.explore._questions import ContentOf
from fmcluster.plot.drawing._tiles import scale_of
from fmcluster.report.charts import embedding_chart, flow_chart
from fmcluster.report.content._layer_content import LayerContent
from fmcluster.store import Run
from tests.explore.explored_run import HOSTILE
from tests.report.test_diverged import record as record_diverging


@pytest.fixture
def content(run: Run) -> LayerContent:
    return ContentOf("2", n_clusters=3).answer(run, print)


def pixels(uri: str) -> np.ndarray:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def test_a_snapshot_that_reaches_far_beyond_the_others_has_axes_of_its_own(content: LayerContent) -> None:
    scale = np.repeat([50.0, 1.0, 1.0], content.n_rows)[:, None]
    moved = replace(content.embedding, values=content.embedding.values * scale)
    far = replace(content, make_embedding=lambda: moved)
    at, frames = far.embedding.by_snapshot(far.embedding.values), embedding_chart(far)["frames"]
    for number in range(3):
        layout = embedding_figure(far, snapshot=number, row=None, members=None)["layout"]
        ranges = [layout[axis]["range"] for axis in ("xaxis", "yaxis")]
        assert [list(each) for each in frames[number]["axes"]] == ranges
        sides = np.ptp(np.array(ranges), axis=1)
        shown = at if number == 0 else at[1:]
        margin = 0.12 * np.ptp(shown, axis=(0, 1)).max()
        np.testing.assert_allclose(sides, np.ptp(shown, axis=(0, 1)) + margin, rtol=1e-4)
    assert "axes" not in embedding_chart(content)["frames"][0]


def test_the_map_stands_where_the_embedding_puts_it_with_the_same_axes_at_all_snapshots(content: LayerContent) -> None:
    at = content.embedding.by_snapshot(content.embedding.values)
    figures = [embedding_figure(content, snapshot=place, row=4, members=[1, 2]) for place in range(3)]
    for place, figure in enumerate(figures):
        points, path, here = figure["data"]
        np.testing.assert_allclose(np.stack([points["x"], points["y"]], axis=1), at[place], rtol=1e-5)
        assert points["marker"]["color"] == [content.palette[int(label)] for label in content.labels[place]]
        strong = [row for row, value in enumerate(points["marker"]["opacity"]) if value > 0.5]
        assert strong == [1, 2]
        np.testing.assert_allclose(np.stack([path["x"], path["y"]], axis=1), at[:, 4])
        assert (here["x"], here["y"]) == ([at[place, 4, 0]], [at[place, 4, 1]])
    axes = [(figure["layout"]["xaxis"]["range"], figure["layout"]["yaxis"]["range"]) for figure in figures]
    assert axes == axes[:1] * 3


def test_under_the_flow_a_share_that_any_halving_of_the_probe_may_give_stands_in_parentheses(
    run: Run, content: LayerContent
) -> None:
    clusterer = KMeans(3, random_state=0)
    floor = fm.analysis.noise_floor(content.vectors, clusterer, clusters=content.clusters, n_splits=9)
    steps = fm.track(content.clusters, noise_floor=floor).steps
    expected = [
        f"({row.churn:.0%})" if row.churn <= row.churn_noise_floor_limit else f"{row.churn:.0%}"
        for row in steps.itertuples()
    ]
    told = [each["text"] for each in flow_chart(content)["figure"]["layout"]["annotations"]]
    assert len(expected) == 2
    assert [text for text in told if "%" in text] == expected

    # of clusterers without a noise floor, nothing is said of it
    by_hand = ContentOf("2", clusterer="AgglomerativeClustering", n_clusters=3).answer(run, print)
    assert by_hand.noise_floor is None
    assert not [e for e in flow_chart(by_hand)["figure"]["layout"]["annotations"] if e["text"].startswith("(")]


def test_each_class_has_one_color_which_the_legend_tells(run: Run) -> None:
    images = ContentOf("2", view="sample", n_clusters=3).answer(run, print)
    points = embedding_figure(images, snapshot=1, row=None, members=None, color="class")["data"][0]
    drawn = points["marker"]["color"]
    told = {entry.children[1]: entry.children[0].style["background"] for entry in class_legend(images)}
    assert set(told) == {"bees", HOSTILE}
    assert len(set(told.values())) == 2
    assert drawn == [told["bees" if index % 2 else HOSTILE] for index in range(12)]


def test_without_a_row_there_is_no_path(content: LayerContent) -> None:
    points, path, here = embedding_figure(content, snapshot=0, row=None, members=None)["data"]
    assert path["x"] == here["x"] == []
    assert set(points["marker"]["opacity"]) == {0.9}


def test_the_grid_shows_each_channel_of_the_store_on_one_scale(run: Run) -> None:
    layer = run["2"]
    figure = grid_figure(layer, snapshot=1, sample=5, chosen=7)
    sheet = pixels(figure["layout"]["images"][0]["source"])
    maps = layer.read(snapshot=1, samples=5)[0].astype(np.float32)
    scale = scale_of(maps, signed=True)
    (points,) = figure["data"]
    assert points["text"] == [f"channel {channel}" for channel in range(12)]
    for channel, (x, y) in enumerate(zip(points["x"], points["y"], strict=True)):
        middle = maps[channel, 3, 3]  # of 7 x 7: the middle of the tile
        expected = np.round(255 * np.array(scale.colors(scale.norm(middle))[:3]))
        np.testing.assert_allclose(sheet[int(y), int(x)], expected, atol=1)
    (ring,) = figure["layout"]["shapes"]
    assert ring["x0"] < points["x"][7] < ring["x1"]
    assert ring["y0"] < points["y"][7] < ring["y1"]


def test_the_strip_of_a_channel_is_its_map_at_every_snapshot(run: Run, content: LayerContent) -> None:
    pictures = [pixels(uri) for uri in row_strip(content, row=4, sample=3)]
    maps = np.stack([run["2"].read(snapshot=k, samples=3, channels=[4])[0, 0] for k in range(3)]).astype(np.float32)
    scale = scale_of(maps, signed=True)
    for picture, tile in zip(pictures, maps, strict=True):
        expected = np.round(255 * np.asarray(scale.colors(scale.norm(tile)))[..., :3])
        np.testing.assert_allclose(picture[4::9, 4::9][:7, :7], expected, atol=1)
    assert row_strip(content, row=4, sample=None) == []


@pytest.mark.parametrize("view", ["sample", "feature_map", "position"])
def test_a_row_of_one_image_shows_it(run: Run, view: str) -> None:
    content = ContentOf("2", view=view, n_rows=30, n_clusters=2).answer(run, print)
    about = content.scores.rows.iloc[7]
    shown = pixels(row_image(content, run, row=7))
    plain = pixels(input_image(run, int(about["sample"])))
    assert bool(row_strip(content, row=7, sample=0)) == (view == "feature_map")
    if view == "position":
        ys, xs = np.nonzero((shown != plain).any(axis=-1))
        middle = np.array([ys.min() + ys.max(), xs.min() + xs.max()]) / 2 / 160
        # the ring may be cut off at the border of the image
        inside = np.clip((about[["y", "x"]].to_numpy(float) + 0.5) / 7, 0.1, 0.9)
        np.testing.assert_allclose(middle, inside, atol=0.06)
    else:
        np.testing.assert_array_equal(shown, plain)


def test_images_are_named_by_index_and_class(run: Run) -> None:
    options = sample_names(run)
    assert [option["value"] for option in options] == list(range(12))
    assert options[1]["label"] == "1 (bees)"


@pytest.mark.slow
def test_what_diverged_is_not_shown_in_the_place_of_a_later_snapshot(tmp_path: Path) -> None:
    diverging = record_diverging(tmp_path / "run.zarr", broken=(1,))
    content = ContentOf("2", n_clusters=2).answer(diverging, print)
    found = row_strip(content, row=1, sample=3)
    assert len(found) == len(content.titles) == 3
    maps = np.stack([diverging["2"].read(snapshot=k, samples=3, channels=[1])[0, 0] for k in (0, 2, 3)])
    scale = scale_of(maps.astype(np.float32), signed=True)
    for picture, tile in zip(map(pixels, found), maps.astype(np.float32), strict=True):
        middle = np.round(255 * np.asarray(scale.colors(scale.norm(tile[0, 0])))[:3])
        np.testing.assert_allclose(picture[1, 1], middle, atol=1)
    assert row_pictures(content, diverging, rows=[1], snapshot=1, sample=3) != [None]


def test_pictures_in_the_place_of_points_are_the_maps_at_that_snapshot(run: Run, content: LayerContent) -> None:
    pictures = row_pictures(content, run, rows=list(range(12)), snapshot=1, sample=5, side=35)
    maps = run["2"].read(snapshot=1, samples=5)[0].astype(np.float32)
    scale = scale_of(maps, signed=True)
    for picture, tile in zip(pictures, maps, strict=True):
        expected = np.round(255 * np.asarray(scale.colors(scale.norm(tile)))[..., :3])
        np.testing.assert_allclose(pixels(picture)[2::5, 2::5], expected, atol=1)
    assert row_pictures(content, run, rows=[0, 1], snapshot=1, sample=None) == [None, None]
    figure = embedding_figure(content, snapshot=1, row=None, members=[2], pictures=[None, *pictures[1:]])
    points, images = figure["data"][0], figure["layout"]["images"]
    assert points["marker"]["opacity"] == [0.9] + [0] * 11
    assert [image["source"] for image in images] == pictures[1:]
    assert [(image["x"], image["y"]) for image in images] == list(zip(points["x"][1:], points["y"][1:], strict=True))
    assert [image["opacity"] for image in images] == [0.2, 1] + [0.2] * 9


@pytest.mark.parametrize("view", ["sample", "feature_map", "position"])
def test_rows_of_images_have_their_picture(run: Run, view: str) -> None:
    content = ContentOf("2", view=view, n_rows=30, n_clusters=2).answer(run, print)
    found = row_pictures(content, run, rows=[3, 7], snapshot=2, sample=None)
    for row, picture in zip((3, 7), found, strict=True):
        own = row_strip(content, row=row, sample=None)[2] if view == "feature_map" else None
        assert picture == (own or row_image(content, run, row=row, side=56))


def test_a_chart_says_how_many_clusters_there_are_where_that_is_not_what_was_asked_for() -> None:
    many, found = ContentOf("2", n_clusters=1000), ContentOf("2", clusterer="HDBSCAN")
    assert "KMeans (64 clusters rather than 1,000: there are not enough different rows" in many.in_words(64)
    assert "KMeans (1000) of all snapshots" in many.in_words(1000)
    assert "HDBSCAN (no cluster: all is noise) of all snapshots" in found.in_words(0)
    assert "HDBSCAN of all snapshots" in found.in_words(3)
