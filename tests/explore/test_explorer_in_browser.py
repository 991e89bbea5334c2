"""The explorer in a real browser."""

import base64
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fmcluster.explore import build_app
from fmcluster.explore._bounded_server import BoundedServer
from fmcluster.explore._questions import ContentOf
from fmcluster.plot.drawing._tiles import scale_of
from fmcluster.store import Run
from tests.waiting import at_rest, until

pytestmark = pytest.mark.browser

LONG = 120_000


class Opened:
    """The page, what it complained of, and whom it asked."""

    def __init__(self, browser: Any, address: str, *, width: int) -> None:
        self.page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(request.url))
        self.page.goto(address)
        self.wait_for_points(12)
        self.page.wait_for_selector("#closely .tile")

    def wait_for_points(self, count: int) -> None:
        self.page.wait_for_function(
            f"() => document.querySelectorAll('#embedding .trace:first-child .point').length === {count}", timeout=LONG
        )

    def points(self) -> np.ndarray:
        return np.array(
            self.page.eval_on_selector_all(
                "#embedding .trace:first-child .point",
                "all => all.map(p => p.getBoundingClientRect()).map(b => [b.x + b.width / 2, b.y + b.height / 2])",
            )
        )

    def choose(self, control: str, option: str) -> None:
        self.page.click(f"#{control}")
        self.page.locator(".dash-dropdown-option").get_by_text(option, exact=True).click()


@pytest.fixture
def address(run: Run) -> Iterator[str]:
    server = BoundedServer("127.0.0.1", port=0, app=build_app(run).server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def shown(opened: Opened) -> list[np.ndarray]:
    uris = opened.page.eval_on_selector_all("#closely .tile", "all => all.map(image => image.src)")
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)
        for uri in uris
    ]


def expected(run: Run, channel: int, sample: int) -> list[np.ndarray]:
    maps = np.stack([run["2"].read(snapshot=k, samples=sample, channels=[channel])[0, 0] for k in range(3)])
    scale = scale_of(maps.astype(np.float32), signed=True)
    return [np.round(255 * np.asarray(scale.colors(scale.norm(tile)))[..., :3]) for tile in maps.astype(np.float32)]


def assert_shows(opened: Opened, run: Run, channel: int, sample: int) -> None:
    opened.page.wait_for_function(f"() => document.querySelector('#closely h3').textContent === 'channel {channel}'")
    tiles = expected(run, channel, sample)

    def as_expected() -> None:
        for picture, tile in zip(shown(opened), tiles, strict=True):
            np.testing.assert_allclose(picture[4::9, 4::9][:7, :7], tile, atol=1)

    until(opened.page, as_expected)


def test_the_whole_way_through_the_page(browser: Any, address: str, run: Run) -> None:
    opened = Opened(browser, address, width=1280)
    page = opened.page

    # the slider moves the points; the keyboard moves the slider
    before = at_rest(page, opened.points)
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("input[aria-hidden]").count() == 0  # the keyboard reaches them
    page.get_by_role("slider", name="snapshot").focus()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('#when').textContent === 'epoch 0'")

    def have_moved() -> None:
        assert np.abs(opened.points() - before).max() > 3

    until(page, have_moved)

    # a click on a point shows that channel's maps on the chosen image
    places = at_rest(page, opened.points)
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(len(places))
    channel = int(apart.min(axis=1).argmax())
    page.mouse.click(*places[channel])
    assert_shows(opened, run, channel, 0)
    opened.choose("sample", "5 (bees)")
    assert_shows(opened, run, channel, 5)

    # another layer and view are computed when they are asked for
    opened.choose("layer", "0")
    opened.wait_for_points(10)
    opened.choose("view", "sample")
    opened.wait_for_points(12)
    page.wait_for_function("() => document.querySelector('#closely h3').textContent.startsWith('sample')")
    assert page.locator("#closely img").count() == 1

    # a mistake is told, and nothing else happens
    page.fill("#n_clusters", "0")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#status').textContent.includes('n_clusters')")
    page.fill("#n_clusters", "4")
    page.keyboard.press("Enter")

    # all layers, when asked for
    page.click("#compare")
    page.wait_for_selector("#layers .heatmaplayer image", state="attached", timeout=LONG)
    assert page.evaluate("() => document.querySelector('#layers .js-plotly-plot').data[0].z.length") == 2
    page.wait_for_selector("#findings li, #findings p")

    assert opened.complaints == []
    assert {url.split("/")[2] for url in opened.asked if url.startswith("http")} == {address.split("/")[2]}
    page.context.close()


def test_points_are_searched_for_drawn_around_and_pointed_at(browser: Any, address: str) -> None:
    opened = Opened(browser, address, width=1280)
    page = opened.page
    at_rest(page, opened.points)

    # by name
    page.fill("#search", "7")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#chosen h3')?.textContent === '1 of 12 points'")
    assert page.locator("#chosen .tiles button").all_inner_texts() == ["channel 7"]

    # with a line around two of them
    places = at_rest(page, opened.points)
    first = int(np.argsort(np.abs(places - places.mean(axis=0)).sum(axis=1))[-1])
    x, y = places[first]
    page.mouse.move(x - 14, y - 14)
    page.mouse.down()
    for right, down in ((14, -14), (14, 14), (-14, 14), (-14, -14)):
        page.mouse.move(x + right, y + down, steps=4)
    page.mouse.up()
    inside = [row for row, place in enumerate(places) if np.abs(place - (x, y)).max() < 14]
    page.wait_for_function(
        "names => [...document.querySelectorAll('#chosen .tiles span')].map(s => s.textContent).join() === names",
        arg=",".join(f"channel {row}" for row in inside),
    )

    # a click on one of the pictures looks at it closely, with its neighbors then and now
    page.locator("#chosen .tiles button").first.click()
    page.wait_for_function(f"() => document.querySelector('#closely h3').textContent === 'channel {inside[0]}'")
    page.wait_for_function("() => document.querySelector('#neighbors').textContent.includes('by chance it would be')")
    assert page.locator("#neighbors .tiles button img").count() == 2 * 8

    # a cluster, and all of them again
    page.locator("#legend button").first.click()
    page.wait_for_function("() => / of 12 points/.test(document.querySelector('#chosen h3').textContent)")
    page.locator("#legend button").last.click()
    page.wait_for_function("() => document.querySelector('#chosen').children.length === 0")

    # a band, without a mouse; whatever chart was last in view, who is chosen is too
    page.locator("#flow").scroll_into_view_if_needed()
    page.focus("#band")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement?.closest('.dash-dropdown-search') !== null")
    for _ in range(50):  # a key goes to what is in focus when it is pressed, and may come before the list listens
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(100)
        if page.evaluate("() => document.activeElement?.closest('.dash-dropdown-option') !== null"):
            break
    page.keyboard.press("Enter")
    page.wait_for_function("() => / of 12 points/.test(document.querySelector('#chosen h3')?.textContent)")
    assert page.evaluate(
        "() => { const {top, bottom} = document.querySelector('#chosen h3').getBoundingClientRect();"
        " return top >= 0 && bottom <= innerHeight }"
    )
    page.locator("#legend button").last.click()

    # pointing at one shows it
    page.locator("#embedding").scroll_into_view_if_needed()

    def is_shown() -> None:
        place = at_rest(page, opened.points)[first]
        page.mouse.move(*(place + 2))
        page.mouse.move(*place)
        page.wait_for_timeout(500)
        assert (page.locator("span#tip").text_content() or "").startswith(f"channel {first}cluster")

    until(page, is_shown)
    assert page.locator("#tip img").count() == 1

    # pictures in the place of dots
    opened.choose("mark", "pictures")
    page.wait_for_function(
        "() => document.querySelectorAll('#embedding .imagelayer image').length === 12", timeout=LONG
    )
    assert opened.complaints == []
    page.context.close()


def test_the_report_is_written_and_opened(browser: Any, address: str) -> None:
    opened = Opened(browser, address, width=1280)
    page = opened.page
    assert page.request.get(f"{address}report.html").status == 404
    page.click("#write")
    page.wait_for_selector("#written a", timeout=LONG)
    assert opened.complaints == []
    page.goto(f"{address}report.html")
    page.wait_for_selector("html[data-drawn]", state="attached", timeout=LONG)
    assert opened.complaints == []
    page.context.close()


def test_at_390_pixels_nothing_is_wider_than_the_page(browser: Any, address: str) -> None:
    opened = Opened(browser, address, width=390)
    assert opened.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert opened.complaints == []
    opened.page.context.close()


def test_what_an_earlier_setting_made_is_dimmed_and_says_which(
    browser: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a question has no answer, the charts are faint, a spinner turns, and each says what made it."""
    go_on, answer = threading.Event(), ContentOf.answer

    def slow(self: ContentOf, run: Run, announce: Any) -> Any:
        if self.n_clusters == 5:
            announce("clusters of five")
            assert go_on.wait(60)
        return answer(self, run, announce)

    monkeypatch.setattr(ContentOf, "answer", slow)
    page = Opened(browser, address, width=1280).page
    page.wait_for_selector("#panels:not(.stale)")
    page.fill("#n_clusters", "5")
    page.keyboard.press("Enter")
    page.wait_for_selector("#panels.stale", timeout=LONG)
    page.wait_for_selector("#status .spinner", timeout=LONG)
    assert "KMeans (8)" in page.locator("#stamp-embedding").inner_text()
    page.wait_for_function("() => getComputedStyle(document.querySelector('#embedding')).opacity < 0.5")
    go_on.set()
    page.wait_for_selector("#panels:not(.stale)", timeout=LONG)
    for name in ("embedding", "flow"):
        page.wait_for_function(f"() => document.querySelector('#stamp-{name}').innerText.includes('KMeans (5)')")
    page.wait_for_selector("#status .spinner", state="detached", timeout=LONG)
    page.context.close()
