from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import fmcluster as fm
from tests.report.small_report import HOSTILE, Written
from tests.waiting import at_rest

pytestmark = pytest.mark.browser

MAP = '[data-layer="0"][data-chart="embedding"]'
SLIDER = '.player[data-layer="0"] input'
PLAY = '.player[data-layer="0"] button'


@dataclass
class Opened:
    """A page, and what it should not do."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def points(self) -> np.ndarray:
        """Return where the points of the first map are drawn, in pixels."""
        places = self.page.eval_on_selector_all(
            f"{MAP} .point", "all => all.map(p => {const b = p.getBoundingClientRect(); return [b.x, b.y]})"
        )
        return np.array(places)

    def tab(self, name: str, *, inside: str = "#details > .tablist") -> None:
        """Open a panel by its tab."""
        self.page.locator(inside).get_by_role("tab", name=name, exact=True).click()

    def view(self, name: str) -> None:
        """Open a view of the first layer."""
        self.tab(name, inside="#layer-0 .tablist")

    def converge(self) -> None:
        self.page.wait_for_timeout(900)  # a move takes 600 ms
        at_rest(self.page, self.points)


def open_report(browser: Any, written: Written, *, width: int = 1280, scheme: str = "light") -> Opened:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_offline(True)
    opened = Opened(context.new_page())

    def on_route(route: Any) -> None:
        if not route.request.url.startswith(("file:", "data:")):
            opened.requests.append(route.request.url)
        route.continue_()

    context.route("**/*", on_route)
    opened.page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("dialog", lambda dialog: opened.complaints.append(f"dialog: {dialog.message}"))
    opened.page.goto(written.path.as_uri())
    opened.page.wait_for_selector("html[data-drawn]", state="attached")
    return opened


@pytest.fixture
def opened(browser: Any, written: Written) -> Iterator[Opened]:
    opened = open_report(browser, written)
    opened.tab("conv1")
    yield opened
    assert opened.complaints == []
    assert opened.requests == []
    opened.page.context.close()


def test_the_page_draws_every_chart_and_asks_for_nothing(opened: Opened, written: Written) -> None:
    data = written.parsed.data
    expected = sum(len(charts) for charts in data["layers"]) + len(data["metrics"]) + len(data["similarity"])
    assert opened.page.locator(".chart .main-svg").first.is_visible()
    assert opened.page.eval_on_selector_all(
        ".chart", "all => all.filter(d => d.querySelector('.main-svg')).length"
    ) == (expected)
    assert opened.page.locator(f"{MAP} .point").count() == 10
    assert opened.page.eval_on_selector_all("img", "all => all.every(i => i.complete && i.naturalWidth > 0)")


def test_what_the_reader_looks_at_is_drawn_first(browser: Any, written: Written) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 2600})
    page.add_init_script(
        "window.order = []; document.addEventListener('drawn', e => {"
        "const {top, bottom} = e.target.getBoundingClientRect();"
        "const seen = getComputedStyle(e.target).visibility !== 'hidden';"
        "order.push([seen && top < innerHeight && bottom > 0, document.documentElement.dataset.ready === 'yes'])}"
        ", true)"
    )
    page.goto(written.path.as_uri())
    page.wait_for_selector("html[data-drawn]", state="attached")
    in_view, ready = (list(column) for column in zip(*page.evaluate("order"), strict=True))
    page.close()
    count = sum(in_view)
    assert 0 < count < len(in_view)
    assert in_view == [True] * count + [False] * (len(in_view) - count)
    assert ready == [not each for each in in_view]


def test_the_slider_moves_the_points_to_where_the_results_put_them(opened: Opened, recomputed: Any) -> None:
    embedding, clusters, _ = recomputed
    before = opened.points()
    opened.page.locator(SLIDER).fill("0")
    opened.converge()
    after = opened.points()
    assert np.abs(after - before).max() > 5
    # Pixels are the positions up to one scale for both axes and an offset.
    at = embedding.by_snapshot(embedding.values)[0] * [1, -1]
    scale = np.ptp(after, axis=0) / np.ptp(at, axis=0)
    np.testing.assert_allclose(scale[0], scale[1], rtol=0.02)
    drawn = (after - after.mean(axis=0)) / scale.mean()
    np.testing.assert_allclose(drawn, at - at.mean(axis=0), atol=0.01 * np.ptp(at))
    palette = {"-".join(str(int(c[i : i + 2], 16)) for i in (1, 3, 5)): k for k, c in _palette(clusters).items()}
    fills = opened.page.eval_on_selector_all(f"{MAP} .point", "all => all.map(p => getComputedStyle(p).fill)")
    shown = [palette["-".join(part.strip() for part in fill[4:-1].split(","))] for fill in fills]
    assert shown == clusters.by_snapshot(clusters.labels)[0].tolist()


def test_paths_go_through_the_positions_at_all_snapshots(opened: Opened, recomputed: Any) -> None:
    embedding, clusters, _ = recomputed
    positions, labels = embedding.by_snapshot(embedding.values), clusters.by_snapshot(clusters.labels)
    traces = opened.page.evaluate(
        '() => document.querySelector(\'[data-layer="0"][data-chart="trajectories"]\').data.map('
        "({mode, meta, x, y, customdata}) => ({mode, meta, x: [...x], y: [...y], customdata}))"
    )
    seen = []
    for trace in traces:
        at = np.array([trace["x"], trace["y"]], dtype=float).T
        about = trace["customdata"]
        rows = [int(each[0].removeprefix("channel ")) for each in about if each is not None]
        if trace["mode"] != "lines":
            end = 0 if trace["meta"].endswith("start") else 2
            np.testing.assert_allclose(at, positions[end, rows], rtol=1e-5)
            assert [each[1] for each in about] == [f"cluster {label}" for label in labels[end, rows]]
            continue
        for place, row in enumerate(rows[::3]):
            np.testing.assert_allclose(at[4 * place : 4 * place + 3], positions[:, row], rtol=1e-5)
            assert np.isnan(at[4 * place + 3]).all()
            assert [each[1] for each in about[4 * place : 4 * place + 3]] == [f"cluster {k}" for k in labels[:, row]]
            seen.append(row)
    assert sorted(seen) == list(range(10))


def test_the_arrow_keys_move_the_slider_and_the_axes_stay(opened: Opened) -> None:
    ranges = f"() => {{const l = document.querySelector('{MAP}')._fullLayout; return [l.xaxis.range, l.yaxis.range]}}"
    axes, before = opened.page.evaluate(ranges), opened.points()
    opened.page.locator(SLIDER).focus()
    opened.page.keyboard.press("ArrowLeft")
    opened.converge()
    assert opened.page.locator('.player[data-layer="0"] output').inner_text() == "epoch 1, step 4"
    assert opened.page.locator(SLIDER).get_attribute("aria-valuetext") == "epoch 1, step 4"
    assert np.abs(opened.points() - before).max() > 3
    assert opened.page.evaluate(ranges) == axes


def test_play_goes_from_the_first_snapshot_to_the_last_and_stops(opened: Opened) -> None:
    opened.page.evaluate(
        f"""() => {{
          const slider = document.querySelector('{SLIDER}'), button = document.querySelector('{PLAY}');
          window.seen = [];
          setInterval(() => {{
            const now = button.textContent + ' ' + slider.value;
            if (window.seen.at(-1) !== now) window.seen.push(now);
          }}, 20);
        }}"""
    )
    opened.page.locator(PLAY).focus()
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_function("() => window.seen.length > 2 && window.seen.at(-1).startsWith('Play')")
    seen = opened.page.evaluate("() => window.seen")
    assert [each for each in seen if each.startswith("Pause")] == ["Pause 0", "Pause 1"]
    assert seen[-1] == "Play 2"


def test_pause_stops_the_play(opened: Opened) -> None:
    opened.page.locator(PLAY).click()
    opened.page.locator(PLAY).click()
    shown = opened.page.locator(SLIDER).input_value()
    opened.page.wait_for_timeout(1500)
    assert opened.page.locator(SLIDER).input_value() == shown
    assert opened.page.locator(PLAY).inner_text() == "Play"


def test_hovering_names_the_channel_at_the_snapshot_shown(opened: Opened, recomputed: Any) -> None:
    _, clusters, _ = recomputed
    opened.page.locator(SLIDER).fill("0")
    opened.converge()
    places = opened.points()
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(len(places))
    alone = int(apart.min(axis=1).argmax())
    point = opened.page.locator(f"{MAP} .point").nth(alone)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2 - 3, box["y"] + box["height"] / 2)
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    text = opened.page.locator(f"{MAP} .hovertext").first.text_content()
    label = clusters.by_snapshot(clusters.labels)[0, alone]
    assert text == f"channel {alone}cluster {label}epoch 0"


HEAT = '[data-similarity="{}"]'


def _mesh(opened: Opened, which: str) -> np.ndarray:
    shown = opened.page.evaluate(f"() => document.querySelector('{HEAT.format(which)}').data[0].z")
    return np.array(shown, dtype=np.float64)


def test_the_heat_maps_show_what_their_controls_choose(opened: Opened, written: Written) -> None:
    cka = fm.similarity(written.run)
    opened.tab("Layers compared")
    np.testing.assert_allclose(_mesh(opened, "layers"), cka.between_layers(2), atol=5.1e-4)
    opened.page.locator("#similarity-snapshot").focus()
    opened.page.keyboard.press("Home")
    np.testing.assert_allclose(_mesh(opened, "layers"), cka.between_layers(0), atol=5.1e-4)
    assert opened.page.locator("output[for=similarity-snapshot]").inner_text() == "epoch 0"
    last = written.run.layers[-1]
    opened.page.locator("#similarity-layer").select_option(label=last)
    np.testing.assert_allclose(_mesh(opened, "snapshots"), cka.between_snapshots(last), atol=5.1e-4)


def test_a_link_to_evidence_unfolds_it(opened: Opened) -> None:
    opened.tab("Evidence")
    assert not opened.page.locator("#evidence-0 table").is_visible()
    opened.page.locator('#evidence a[href="#evidence-0"]').click()
    opened.page.locator("#evidence-0 table").wait_for(state="visible")


def test_a_hostile_class_name_is_shown_as_text(opened: Opened) -> None:
    opened.tab("About")
    assert HOSTILE in opened.page.locator("#main").inner_text()
    assert opened.page.locator("script").count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_does_not_overflow(browser: Any, written: Written, scheme: str) -> None:
    opened = open_report(browser, written, width=390, scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    assert opened.page.evaluate(
        "[...document.querySelectorAll('main *')].every(e => e.closest('.scroll') || "
        "e.closest('.chart') || e.closest('.tablist') || e.getBoundingClientRect().right <= 391)"
    )
    assert opened.complaints == []
    opened.page.context.close()


def test_dark_charts_have_light_ink_and_paper_has_dark_ink(browser: Any, written: Written) -> None:
    opened = open_report(browser, written, scheme="dark")
    ink = "() => getComputedStyle(document.querySelector('.chart .annotation-text')).fill"
    assert opened.page.evaluate(ink) == "rgb(232, 234, 237)"
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate(ink) == "rgb(0, 0, 0)"
    opened.page.context.close()


def _palette(clusters: Any) -> dict[int, str]:
    from fmcluster.plot import cluster_palette

    return cluster_palette(clusters.labels)


def test_the_first_screen_answers_the_four_questions(opened: Opened) -> None:
    """What it is, what changed, what channels respond to, and what follows: all within 900 pixels."""
    for name in ("overview", "change", "responses", "findings"):
        box = opened.page.locator(f"#{name}").bounding_box()
        assert box["height"] > 0
        assert box["y"] + box["height"] <= 900, name


def test_the_first_screen_of_a_phone_answers_them_in_short(browser: Any, written: Written) -> None:
    opened = open_report(browser, written, width=390)
    for part in (".lead", *(f".short li:has([href='#{name}'])" for name in ("change", "responses", "findings"))):
        box = opened.page.locator(part).bounding_box()
        assert box["height"] > 0, part
        assert box["y"] + box["height"] <= 900, part
    change = opened.page.locator("#change .claim").inner_text()
    assert change.startswith(opened.page.locator(".short li").first.inner_text().removeprefix("What changed most: "))
    opened.page.set_viewport_size({"width": 1280, "height": 900})
    assert not opened.page.locator(".short").is_visible()
    opened.page.context.close()


def test_a_phone_scrolls_no_way_but_down(browser: Any, written: Written) -> None:
    opened = open_report(browser, written, width=390)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.page.context.close()


SELECTED = "() => [...document.querySelectorAll('#details > .tablist [aria-selected=true]')].map(e => e.textContent)"
VISIBLE = "() => [...document.querySelectorAll('#details > .panel')].map(e => getComputedStyle(e).visibility)"


def test_one_panel_at_a_time_is_opened_with_the_arrow_keys(opened: Opened) -> None:
    tabs = opened.page.locator("#details > .tablist [role=tab]")
    names = tabs.all_inner_texts()
    assert names[0] == "conv1"
    assert names[-1] == "About"
    opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Shift+Tab")
    for key, expected in [("ArrowRight", names[1]), ("ArrowLeft", "conv1"), ("ArrowLeft", "About"), ("Home", "conv1")]:
        opened.page.keyboard.press(key)
        assert opened.page.evaluate(SELECTED) == [expected]
        assert opened.page.evaluate("() => document.activeElement.textContent") == expected
        assert opened.page.evaluate(VISIBLE).count("visible") == 1
    assert [tab.get_attribute("tabindex") for tab in tabs.all()] == ["0"] + ["-1"] * (len(names) - 1)
    assert opened.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert opened.page.evaluate("document.documentElement.scrollHeight") < 3 * 900


def test_a_tab_that_is_clicked_low_in_the_window_shows_its_panel_in_view(browser: Any, written: Written) -> None:
    page = open_report(browser, written).page
    page.evaluate("() => document.documentElement.style.setProperty('scroll-behavior', 'auto')")
    tops = "() => [...document.querySelectorAll('#details > .tablist')].map(e => e.getBoundingClientRect().top)[0]"
    page.evaluate("() => scrollTo(0, 0)")
    page.set_viewport_size({"width": 1280, "height": int(page.evaluate(tops)) + 60})
    page.locator("#details > .tablist [role=tab]").first.click()
    page.wait_for_function(f"() => ({tops})() < innerHeight / 4")


def test_on_paper_and_without_scripts_all_panels_are_there(browser: Any, written: Written) -> None:
    opened = open_report(browser, written)
    opened.page.emulate_media(media="print")
    heights = (
        "() => [...document.querySelectorAll('.panel:not(.on-screen)')].map(e => e.getBoundingClientRect().height)"
    )
    assert min(opened.page.evaluate(heights)) > 50
    assert set(opened.page.evaluate(VISIBLE)) == {"visible"}
    assert not opened.page.locator(".on-screen").first.is_visible()
    on_demand = opened.page.locator("#layer-0 details.on-demand")
    assert not on_demand.is_visible()
    on_demand.evaluate("each => { each.open = true; }")
    assert on_demand.locator("table").is_visible()
    assert not opened.page.locator(".tablist").first.is_visible()
    opened.page.context.close()
    bare = browser.new_context(java_script_enabled=False)
    page = bare.new_page()
    page.goto(written.path.as_uri())
    for name in ("#layer-0 .captions", "#evidence > .scroll table", "#when", "#made", "#glossary", "nav.plain"):
        assert page.locator(name).is_visible(), name
    assert not page.locator(".chart").first.is_visible()
    bare.close()


def test_nothing_is_wider_than_the_paper_and_charts_fill_it(browser: Any, written: Written) -> None:
    opened = open_report(browser, written)
    page = opened.page
    styles = (  # "more" comes and goes a moment after a size did
        "() => [...document.querySelectorAll('html, main *')]"
        ".map(e => String(e.className).replace(' more', '') + e.style.cssText).join()"
    )
    page.evaluate(  # as of many snapshots
        "() => document.querySelectorAll('#evidence details tr').forEach("
        "row => { for (let n = 0; n < 7; n++) row.append(row.lastElementChild.cloneNode(true)); })"
    )
    before = page.evaluate(styles)
    for event in ("beforeprint", "afterprint", "beforeprint"):
        page.evaluate(f"() => dispatchEvent(new Event('{event}'))")
        if event == "afterprint":
            assert page.evaluate(styles) == before
    page.emulate_media(media="print")
    shares = page.evaluate(
        "() => [...document.querySelectorAll('.chart.plane, .chart.flow')]"
        ".map(e => e.getBoundingClientRect().width / e.closest('.card').getBoundingClientRect().width)"
    )
    assert len(shares) == 3 * page.locator(".layer").count() > 0
    assert min(shares) > 0.9
    assert max(shares) <= 1
    paper = page.evaluate("() => document.body.getBoundingClientRect().right")
    beyond = (
        f"() => [...document.querySelectorAll('main .scroll *')].filter(e => !e.closest('.chart') "
        f"&& e.getBoundingClientRect().right > {paper} + 1).map(e => e.closest('.card').innerText.slice(0, 30))"
    )
    assert page.evaluate(beyond) == []
    page.context.close()


def test_terms_say_what_they_mean_to_pointer_keyboard_and_touch(opened: Opened) -> None:
    term, tip = opened.page.locator("#change .term").first, opened.page.locator("#tip")
    meaning = term.get_attribute("data-meaning")
    term.hover()
    assert meaning in tip.inner_text()
    opened.page.mouse.move(5, 5)
    assert not tip.is_visible()
    term.focus()
    assert meaning in tip.inner_text()
    assert term.get_attribute("aria-describedby") == "tip"
    opened.page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_what_a_term_means_stays_beside_it_where_its_focus_scrolls_the_page(browser: Any, written: Written) -> None:
    page = open_report(browser, written).page
    page.set_viewport_size({"width": 1280, "height": 300})
    page.evaluate("() => scrollTo(0, 0)")
    term, tip = page.locator("#findings .term, #responses .term").last, page.locator("#tip")
    term.evaluate("(e) => e.focus()")
    page.wait_for_function("() => scrollY > 0")
    page.wait_for_timeout(1000)
    assert tip.is_visible()
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_on_a_phone_what_was_chosen_stays_in_view(browser: Any, written: Written) -> None:
    opened = open_report(browser, written, width=390)
    opened.tab("conv1")
    opened.page.locator("#layer-0 .pick:visible").first.click()
    box = opened.page.locator('.group[data-layer="0"]').bounding_box()
    assert 0 < box["y"] < 900 - 60
    opened.page.locator('.side[data-layer="0"] .away').click()
    assert not opened.page.locator('.side[data-layer="0"].kept').count()
    opened.page.context.close()
