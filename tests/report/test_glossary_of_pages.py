"""Terms on pages: marked once a block, never where they would break the page, and each with its meaning."""

from html.parser import HTMLParser

from fmcluster.report.content import GLOSSARY, mark_terms
from tests.report.small_report import Written


class Texts(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.terms: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "button":
            self.terms.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_texts_stay_as_they_are_and_each_block_explains_a_term_once() -> None:
    piece = (
        '<section title="drift"><h2>Drift</h2><p>Its drift (noise floor 0.1) &amp; drifts, adrift, drift-free.</p>'
        '<a href="#x">drift</a></section><section><p>drift</p></section>'
    )
    marked, before = Texts(mark_terms(piece)), Texts(piece)
    assert "".join(marked.texts) == "".join(before.texts)
    assert [each["data-term"] for each in marked.terms] == ["drift", "noise floor", "drift"]
    for each in marked.terms:
        assert each["data-meaning"] == GLOSSARY[each["data-term"] or ""]
    assert 'title="drift"><h2>Drift</h2>' in mark_terms(piece)


def test_no_line_ends_between_a_term_and_its_bracket_or_stop() -> None:
    marked = mark_terms("<p>least similar (CKA 0.9), by drift.</p>")
    assert '<span class="joined">(<button' in marked
    assert "</button>.</span>" in marked


def test_the_page_explains_its_terms_and_lists_them_all(written: Written) -> None:
    marked = {attributes["data-term"] for _, attributes in written.parsed.tags if "data-term" in attributes}
    assert {"noise floor", "CKA", "drift", "motion", "neighbor recall", "top images"} <= marked
    for name, meaning in GLOSSARY.items():
        assert f"{name} {' '.join(meaning.split())}" in written.parsed.text
