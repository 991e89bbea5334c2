"""Pointing at a channel, choosing a cluster, following a band: what the page shows is what the store holds."""

import base64
import io
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

import fmcluster as fm
from tests.report.small_report import Parsed, Written
from tests.report.test_browser import MAP, Opened, open_report
from tests.waiting import until

pytestmark = pytest.mark.browser

PANEL, GROUP = '.inspect[data-layer="0"]', '.group[data-layer="0"]'


@pytest.fixture
def opened(browser: Any, written: Written) -> Iterator[Opened]:
    opened = open_report(browser, written)
    opened.tab("conv1")
    yield opened
    assert opened.complaints == []
    assert opened.requests == []
    opened.page.context.close()


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)


def shown(opened: Opened, sheet: int) -> np.ndarray:
    """Return what a row of maps shows, ndarray of (64, width, 4)."""
    uri = opened.page.evaluate(
        f"() => document.querySelectorAll('{PANEL} canvas.maps')[{sheet}].toDataURL('image/png')"
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA")).astype(int)


def tiles_of(written: Written, row: int, sheet: int) -> list[np.ndarray]:
    """Return the tiles of a channel in a sheet, blown up to 64 pixels."""
    sprites = written.parsed.data["sprites"][0]
    data = base64.b64decode(sprites["sheets"][sheet].partition(",")[2])
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    tiles = []
    for column in range(len(sprites["columns"])):
        place = row * len(sprites["columns"]) + column
        top = place // sprites["across"] * sprites["height"]
        left = place % sprites["across"] * sprites["width"]
        tile = whole[top : top + sprites["height"], left : left + sprites["width"]]
        tiles.append(tile.repeat(64 // sprites["height"], axis=0).repeat(64 // sprites["width"], axis=1))
    return tiles


def assert_shows(opened: Opened, written: Written, row: int) -> None:
    def as_expected() -> None:
        for sheet in range(2):
            picture = shown(opened, sheet)
            for column, tile in enumerate(tiles_of(written, row, sheet)):
                drawn = picture[:, 68 * column : 68 * column + 64, :3]
                assert np.abs(drawn - tile).mean() < 1

    until(opened.page, as_expected)
    other = tiles_of(written, (row + 1) % 10, 0)[0]
    assert np.abs(shown(opened, 0)[:, :64, :3] - other).mean() > 5


def alone(opened: Opened) -> int:
    places = opened.points()
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(len(places))
    return int(apart.min(axis=1).argmax())


def point_at(opened: Opened, row: int) -> None:
    point = opened.page.locator(f"{MAP} .point").nth(row)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2 - 3, box["y"] + box["height"] / 2)
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_at_first_the_channel_that_changed_most_is_shown(opened: Opened, written: Written) -> None:
    assert_shows(opened, written, written.parsed.data["most_moved"][0])


def test_hovering_shows_the_maps_of_the_channel_and_a_click_keeps_them(opened: Opened, written: Written) -> None:
    first, row = written.parsed.data["most_moved"][0], alone(opened)
    if row == first:
        pytest.fail("the point that stands alone is shown already")
    point_at(opened, row)
    assert_shows(opened, written, row)
    opened.page.mouse.move(5, 5)
    assert_shows(opened, written, first)
    point_at(opened, row)
    assert_shows(opened, written, row)
    point_at(opened, row)  # what is shown now can have moved it
    opened.page.wait_for_timeout(400)
    opened.page.mouse.down()
    opened.page.wait_for_timeout(100)  # as long as a finger takes; a busy page misses what is shorter
    opened.page.mouse.up()
    opened.page.wait_for_timeout(500)
    opened.page.mouse.move(5, 5)
    opened.page.wait_for_timeout(400)
    assert_shows(opened, written, row)
    frames = written.parsed.data["layers"][0]["embedding"]["frames"]
    path = opened.page.evaluate(f"() => {{const d = document.querySelector('{MAP}').data[1]; return [d.x, d.y]}}")
    assert path == [[frame["x"][row] for frame in frames], [frame["y"][row] for frame in frames]]
    chips = opened.page.locator(f"{PANEL} .chips li").all_inner_texts()
    titles, labels = written.parsed.data["titles"], [frame["cluster"][row] for frame in frames]
    stays = [list(stay) for _, stay in groupby(range(len(labels)), key=labels.__getitem__)]
    assert chips == [
        f"{' to '.join(titles[at] for at in dict.fromkeys([stay[0], stay[-1]]))}: cluster {labels[stay[0]]}"
        for stay in stays
    ]


def test_all_channels_follow_the_slider_and_a_click_shows_one_closely(opened: Opened, written: Written) -> None:
    mosaic = opened.page.locator('.mosaic[data-layer="0"]')
    opened.view("All channels")
    ends = written.parsed.data["layers"][0]["embedding"]["frames"][-1]["cluster"]
    order = sorted(range(10), key=lambda row: (ends[row], row))
    for snapshot in (2, 0, 1):
        opened.page.locator('.player[data-layer="0"] input').fill(str(snapshot))
        tiles = [tiles_of(written, row, 0)[snapshot][::4, ::4] for row in order]  # as in the sheet, 16 x 16
        title = written.parsed.data["titles"][snapshot]

        def as_expected(tiles: list[np.ndarray] = tiles, title: str = title) -> None:
            assert opened.page.locator('.moment[data-layer="0"]').inner_text() == title
            drawn = pixels(mosaic.evaluate("canvas => canvas.toDataURL('image/png')"))
            for rank, tile in enumerate(tiles):
                middles = (3.5 * np.arange(16) + 1.75).astype(int)
                here = drawn[:56, 58 * rank : 58 * rank + 56]
                np.testing.assert_array_equal(here[middles][:, middles], tile)

        until(opened.page, as_expected)
    mosaic.click(position={"x": 58 * 7 + 28, "y": 28})
    assert_shows(opened, written, order[7])


def test_the_list_of_channels_works_with_the_keyboard(opened: Opened, written: Written) -> None:
    opened.page.locator(f"{PANEL} .which").focus()
    opened.page.keyboard.press("Home")
    assert_shows(opened, written, 0)
    opened.page.keyboard.press("ArrowDown")
    assert_shows(opened, written, 1)


def members(opened: Opened) -> list[int]:
    return [
        int(row)
        for row in opened.page.eval_on_selector_all(f"{GROUP} button[data-row]", "a => a.map(b => b.dataset.row)")
    ]


def strong(opened: Opened) -> list[int]:
    opacity = opened.page.evaluate(f"() => document.querySelector('{MAP}').data[0].marker.opacity")
    return [row for row, value in enumerate(opacity) if value > 0.5]


def test_a_cluster_shows_exactly_its_members_at_the_snapshot_shown(opened: Opened, written: Written) -> None:
    frames = written.parsed.data["layers"][0]["embedding"]["frames"]
    pick = opened.page.locator('#layer-0 .pick[data-cluster="1"]')
    pick.focus()
    opened.page.keyboard.press("Enter")
    for snapshot in (2, 0, 2):
        opened.page.locator('.player[data-layer="0"] input').fill(str(snapshot))
        expected = [row for row, label in enumerate(frames[snapshot]["cluster"]) if label == 1]
        assert members(opened) == expected
        assert strong(opened) == expected
    assert pick.get_attribute("aria-pressed") == "true"
    opened.page.locator(f"{GROUP} button[data-row]").first.click()
    assert opened.page.locator(PANEL).get_attribute("data-row") == str(members(opened)[0])
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator(GROUP).is_visible()
    assert strong(opened) == list(range(10))
    assert pick.get_attribute("aria-pressed") == "false"


def test_a_band_of_the_flow_shows_exactly_the_channels_that_go_that_way(opened: Opened, written: Written) -> None:
    charts = written.parsed.data["layers"][0]
    frames = charts["embedding"]["frames"]
    flow = '[data-layer="0"][data-chart="flow"]'
    place = 0
    opened.view("Flow")
    link = opened.page.locator(f"{flow} .sankey-link").nth(place)
    link.scroll_into_view_if_needed()
    # in the middle of the band: where its outline is filled
    spot = link.evaluate(
        """path => {
          const svg = path.ownerSVGElement, box = path.getBBox(), to = path.getScreenCTM();
          for (let i = 1; i < 40; i++) {
            const at = new DOMPoint(box.x + box.width / 2, box.y + box.height * i / 40);
            if (path.isPointInFill(at)) { const s = at.matrixTransform(to); return [s.x, s.y]; }
          }
        }"""
    )
    opened.page.mouse.move(spot[0] - 1, spot[1])
    opened.page.mouse.move(*spot)
    opened.page.mouse.click(*spot)
    opened.page.locator(GROUP).wait_for(state="visible")
    ways = {
        tuple(row for row in range(10) if frames[a]["cluster"][row] == here and frames[b]["cluster"][row] == there)
        for a, b, here, there in charts["flow"]["moves"]
    }
    assert tuple(members(opened)) in ways
    assert strong(opened) == members(opened)
    heading = opened.page.locator(f"{GROUP} h3").inner_text()
    assert heading.endswith(f"({len(members(opened))})")


def test_without_a_mouse_a_band_is_chosen_by_its_name_and_clusters_without_members_are_not_offered(
    opened: Opened, written: Written
) -> None:
    charts = written.parsed.data["layers"][0]
    frames = charts["embedding"]["frames"]
    opened.view("Flow")
    opened.page.locator("#layer-0 .band").focus()
    opened.page.keyboard.press("ArrowDown")
    number, name = charts["flow"]["bands"][0]
    a, b, here, there = charts["flow"]["moves"][number]
    going = [row for row in range(10) if frames[a]["cluster"][row] == here and frames[b]["cluster"][row] == there]
    assert members(opened) == going
    assert f"({len(going)})" in name
    opened.page.locator("#layer-0 .band").select_option("")
    assert not opened.page.locator(GROUP).is_visible()
    for snapshot in (0, 2):
        opened.page.locator('.player[data-layer="0"] input').fill(str(snapshot))
        offered = opened.page.locator("#layer-0 .pick:visible").evaluate_all("all => all.map(p => p.dataset.cluster)")
        assert offered == sorted({str(label) for label in frames[snapshot]["cluster"]})
        title = opened.page.locator('.shown-at[data-layer="0"]').text_content()
        assert title == written.parsed.data["titles"][snapshot]


def test_the_images_are_those_of_top_images_with_a_ring_where_they_answer(opened: Opened, written: Written) -> None:
    found = fm.top_images(written.run["conv1"], k=8, snapshots=[0, 2])
    row = written.parsed.data["most_moved"][0]
    rows = opened.page.locator(f"{PANEL} .shown")
    assert rows.count() == 2
    for end in range(2):
        samples = found.samples[end, row].tolist()
        label = rows.nth(end).get_attribute("aria-label")
        assert label.endswith(": " + ", ".join(f"sample {sample}" for sample in samples))
        drawn = pixels(rows.nth(end).evaluate("canvas => canvas.toDataURL('image/png')"))
        for rank, sample in enumerate(samples):
            size = (64, 64)
            image = Image.fromarray(written.run.display(sample)).resize((56, 56), Image.Resampling.BOX).resize(size)
            here = drawn[:, 68 * rank : 68 * rank + 64]
            down, along = 64 * found.fractions[end, row, rank]
            ys, xs = np.mgrid[:64, :64] + 0.5
            far = np.hypot(ys - down, xs - along) > 12
            assert np.abs(here - np.asarray(image))[far].mean() < 25
            ring = np.abs(np.hypot(ys - down, xs - along) - 7) < 0.6
            assert here[ring].mean() > 225


@pytest.mark.parametrize("view", ["sample", "feature_map", "position"])
def test_in_other_views_a_row_shows_its_image(view: str, browser: Any, written: Written, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    fm.write_report(
        written.run,
        page,
        layers=["conv1"],
        view=view,
        n_clusters=3,
        reducer=PCA(2, random_state=0),
        diagnosis=False,
        cache=None,
    )
    parsed = Parsed(page.read_text(encoding="utf-8"))
    opened = open_report(browser, Written(written.run, page, parsed, []))
    (shown,) = parsed.data["shown_images"][0]
    for row in (3, 0):
        opened.page.locator(f"{PANEL} .which").select_option(str(row))
        sample, down, along = shown["rows"][row][0]
        canvas = opened.page.locator(f"{PANEL} .shown")
        assert canvas.get_attribute("aria-label") == f"the image: sample {sample}"
        image = Image.fromarray(written.run.display(sample)).resize((56, 56), Image.Resampling.BOX).resize((64, 64))
        ys, xs = np.mgrid[:64, :64] + 0.5
        away = np.hypot(ys - 64 * down, xs - 64 * along) if view == "position" else np.full((64, 64), np.inf)

        def as_expected(image: Image.Image = image, away: np.ndarray = away, canvas: Any = canvas) -> None:
            drawn = pixels(canvas.evaluate("canvas => canvas.toDataURL('image/png')"))
            apart = np.abs(drawn[:, :64] - np.asarray(image))
            if view == "position":
                assert drawn[:, :64][np.abs(away - 7) < 0.6].mean() > 225
                apart = apart[away > 12]
            assert apart.mean() < 25

        until(opened.page, as_expected)
    assert opened.page.locator(f"{PANEL} canvas[data-sheet]").count() == (view == "feature_map")
    pick = opened.page.locator("#layer-0 .pick:visible").first  # of those that have members
    pick.click()
    frames = parsed.data["layers"][0]["embedding"]["frames"]
    label = int(pick.get_attribute("data-cluster"))
    assert members(opened) == [row for row, each in enumerate(frames[2]["cluster"]) if each == label]
    assert opened.page.locator(f"{GROUP} button canvas").count() == len(members(opened))
    assert opened.complaints == []
    opened.page.context.close()
