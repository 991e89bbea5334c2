"""Sheets of feature maps: the tiles are the maps in the store, on the scale of their channel."""

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from fmcluster.plot.drawing._tiles import NOT_FINITE_COLOR, scale_of
from fmcluster.report.content._layer_content import LayerContent, Settings, make_layer_content
from fmcluster.report.content._sprites import (
    SHEETS_BYTES,
    _draw_sheets,
    _least_bytes,
    _shade,
    choose_images,
    make_sprites,
)
from tests.report.small_report import Written

COLORS = scale_of(np.array([-1.0, 1.0], np.float32), signed=True).colors
SETTINGS = Settings(view="channel", n_clusters=3, reducer=PCA(2, random_state=0), random_state=0, max_bytes=1 << 30)


@pytest.fixture(scope="module")
def content(written: Written) -> LayerContent:
    return make_layer_content(written.run["conv1"], SETTINGS, announce=lambda what: None, cache=None)


def pixels(uri: str) -> np.ndarray:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def tile_of(sprites: Any, sheet: int, row: int, column: int) -> np.ndarray:
    place = row * len(sprites.columns) + column
    top, left = place // sprites.across * sprites.height, place % sprites.across * sprites.width
    return pixels(sprites.sheets[sheet].uri)[top : top + sprites.height, left : left + sprites.width]


def test_every_tile_is_its_map_in_the_store_on_the_scale_of_its_channel(
    written: Written, content: LayerContent
) -> None:
    samples = [3, 4]
    sprites = make_sprites(content, samples=samples, max_bytes=1 << 20)
    assert (sprites.height, sprites.width) == (16, 16)
    layer = written.run["conv1"]
    maps = np.stack([layer.read(snapshot=k, samples=samples) for k in range(3)]).astype(np.float64)
    for channel in range(10):
        here = maps[:, :, channel]
        limit = np.percentile(np.abs(here)[here != 0], 99.5)
        for sheet in range(2):
            for column in range(3):
                along = np.clip((here[column, sheet] + limit) / (2 * limit), 0, 1)
                shades = np.round(31 * along) / 31
                drawn = tile_of(sprites, sheet, channel, column)
                expected = np.round(255 * COLORS(shades)[..., :3])
                # on the border between two shades, the last digit decides
                assert (np.abs(drawn - expected).max(axis=-1) <= 1).mean() > 0.97


def test_values_that_are_not_finite_have_a_color_of_their_own(written: Written, content: LayerContent) -> None:
    maps = written.run["conv1"].read(snapshot=0, samples=[0])[:, :, None].astype(np.float32)
    maps[0, 0, 0, 3, 5] = np.nan
    shades, palette = _shade(maps, [scale_of(row, signed=True) for row in np.moveaxis(maps, 1, 0)])
    assert np.argwhere(shades == len(palette) - 1).tolist() == [[0, 0, 0, 3, 5]]
    expected = np.round(255 * np.array(mpl.colors.to_rgb(NOT_FINITE_COLOR))).astype(int).tolist()
    assert list(palette[-1]) == expected


def test_tiles_get_smaller_until_they_fit_and_there_are_none_where_nothing_fits(content: LayerContent) -> None:
    large = make_sprites(content, samples=[0, 1, 2], max_bytes=1 << 20)
    whole = sum(len(sheet.uri) for sheet in large.sheets)
    small = make_sprites(content, samples=[0, 1, 2], max_bytes=whole // 2)
    assert sum(len(sheet.uri) for sheet in small.sheets) <= whole // 2
    assert small.width < large.width
    assert make_sprites(content, samples=[0, 1, 2], max_bytes=200) is None
    assert make_sprites(content, samples=[], max_bytes=1 << 20) is None


@pytest.mark.parametrize("smooth", [1, 6])
def test_tiles_are_left_untried_only_where_their_sheets_would_be_larger(smooth: int) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(2, 96, 3, 24 // smooth, 24 // smooth)).astype(np.float32)
    maps = np.maximum(coarse, 0).repeat(smooth, axis=3).repeat(smooth, axis=4)
    scales = [scale_of(maps[:, row], signed=False) for row in range(96)]
    _, size = _draw_sheets(maps, scales, across=30, max_bytes=1 << 30)
    foretold = _least_bytes(maps, scales, tile=(24, 24))
    assert 0.4 * size < foretold < size
    assert _least_bytes(maps[:, :20], scales[:20], tile=(24, 24)) == 0  # of so few, it takes no less than the sheets


@pytest.mark.slow
def test_a_row_that_is_a_map_has_its_tiles_on_one_sheet(written: Written) -> None:
    settings = Settings("feature_map", 3, PCA(2, random_state=0), 0, 1 << 30)
    content = make_layer_content(written.run["conv1"], settings, announce=lambda what: None, cache=None)
    sprites = make_sprites(content, samples=[0], max_bytes=1 << 20)
    assert [sheet.title for sheet in sprites.sheets] == ["the feature map"]
    rows = content.scores.rows.iloc[: content.n_rows]
    for row in (0, 57, content.n_rows - 1):
        sample, channel = rows[["sample", "channel"]].iloc[row]
        layer = written.run["conv1"]
        maps = [layer.read(snapshot=k, samples=[sample], channels=[channel])[0, 0] for k in range(3)]
        here = np.stack(maps).astype(np.float64)
        limit = np.percentile(np.abs(here)[here != 0], 99.5)
        for column in range(3):
            shades = np.round(31 * np.clip((here[column] + limit) / (2 * limit), 0, 1)) / 31
            drawn = tile_of(sprites, 0, row, column)
            assert (np.abs(drawn - np.round(255 * COLORS(shades)[..., :3])).max(axis=-1) <= 1).mean() > 0.97


def test_rows_that_are_no_maps_have_no_sheets(written: Written) -> None:
    settings = Settings("sample", 3, PCA(2, random_state=0), 0, 1 << 30)
    images = make_layer_content(written.run["conv1"], settings, announce=lambda what: None, cache=None)
    assert make_sprites(images, samples=[0], max_bytes=1 << 20) is None


def test_images_are_the_one_asked_for_then_other_classes_then_the_first(written: Written) -> None:
    # labels of the twelve images alternate: 1, 0, 1, ...
    assert choose_images(written.run, sample=5) == [5, 0, 1]
    assert choose_images(written.run, sample=0) == [0, 1, 2]
    assert choose_images(written.run, sample=None) == []


def test_the_page_of_twenty_snapshots_stays_under_its_budget_of_sheets(written: Written) -> None:
    data = written.parsed.data
    assert sum(len(uri) for layer in data["sprites"] if layer for uri in layer["sheets"]) <= SHEETS_BYTES
    for layer, section in zip(data["sprites"], data["layers"], strict=True):
        assert layer is None or len(section["embedding"]["names"]) == len(section["embedding"]["frames"][0]["x"])


def test_the_bands_of_the_flow_say_between_what_they_go(written: Written, content: LayerContent) -> None:
    moves = written.parsed.data["layers"][0]["flow"]["moves"]
    columns = ["from_snapshot", "to_snapshot", "from_cluster", "to_cluster"]
    assert moves == content.history.flow[columns].to_numpy().tolist()
