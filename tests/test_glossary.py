"""Glossary: what `docs/architecture.md` rules out is in no name, option, file name, heading, docstring or page."""

import ast
import re
from pathlib import Path

import pytest
import typer.main

from fmcluster.cli import app

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fmcluster"
STUBS = sorted(PACKAGE.rglob("__init__.pyi"))
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
# the recipes' `--seed` is the glossary's own exception
SEEDS = {"train --seed", "demo --seed"}
# a pass over data that are read, not of a model; and what modules do with what they are given
IDIOMS = re.compile(r"in place|in one streaming pass|one pass over|only pass on")


def glossary() -> dict[str, tuple[str, ...]]:
    """Return each word that is ruled out, with the words that may stand before it."""
    page = (ROOT / "docs/architecture.md").read_text()
    table = page.split("## Words", 1)[1].split("\n## ", 1)[0]
    out: dict[str, tuple[str, ...]] = {}
    for row in re.findall(r"^\|(?! *say|-)(.+)\|$", table, flags=re.MULTILINE):
        never = row.split("|")[-1]
        for word, after in re.findall(r"`(\w+)`(?: \(but after ([^)]+)\))?", never):
            out[word] = tuple(re.findall(r"`(\w+)`", after))
    return out


WORDS = glossary()


def ruled_out(name: str) -> list[str]:
    """Return the words of a name that are ruled out: singular or plural, in any case."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    parts = [part.lower() for part in parts]
    found = []
    for before, part in zip(["", *parts], parts, strict=False):
        for word, allowed in WORDS.items():
            if part in (word, f"{word}s") and before not in allowed:
                found.append(part)
    return found


def parameters(module: Path) -> list[str]:
    """Return the names that a caller may write: public functions, classes, methods, parameters and attributes."""
    names = []
    for node in ast.parse(module.read_text()).body:
        members = node.body if isinstance(node, ast.ClassDef) else []
        for each in (node, *members):
            if isinstance(each, ast.FunctionDef | ast.ClassDef) and not each.name.startswith("_"):
                names.append(each.name)
            if isinstance(each, ast.FunctionDef) and (not each.name.startswith("_") or each.name == "__init__"):
                names += [argument.arg for argument in (*each.args.args, *each.args.kwonlyargs)]
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                names.append(each.target.id)
    return [name for name in names if not name.startswith("_")]


def test_the_glossary_is_read():
    assert {"place", "settled", "exemplar", "medoid", "opacity", "likeness", "map", "floor"} <= set(WORDS)
    assert ruled_out("noise_floor") == []
    assert ruled_out("split_floor") == ["floor"]
    assert ruled_out("FeatureMaps") == []
    assert ruled_out("FusedMap") == ["map"]


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names(stub):
    public = re.findall(r"import \w+ as (\w+)", stub.read_text())
    assert {name: ruled_out(name) for name in public if ruled_out(name)} == {}


@pytest.mark.parametrize(
    "module", sorted({*PACKAGE.rglob("*.py")} - {*PACKAGE.rglob("__init__.py")}), ids=lambda p: str(p.relative_to(ROOT))
)
def test_names_that_a_caller_writes(module):
    assert {name: ruled_out(name) for name in parameters(module) if ruled_out(name)} == {}


def choices(module: Path) -> list[str]:
    """Return the words that a caller may choose among: those of every `Literal`."""
    literals = [
        node
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal")
    ]
    return [each.value for node in literals for each in ast.walk(node.slice) if isinstance(each, ast.Constant)]


@pytest.mark.slow
def test_words_that_a_caller_chooses_among():
    found = {str(path): [str(each) for each in choices(path)] for path in PACKAGE.rglob("*.py")}
    assert sum(map(len, found.values())) > 40
    # of `fit`, where all snapshots together are meant
    wrong = {path: [word for word in words if ruled_out(word) and word != "pooled"] for path, words in found.items()}
    assert {path: words for path, words in wrong.items() if words} == {}


@pytest.mark.parametrize(
    "module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)) + " begins"
)
def test_what_a_module_says_it_holds(module):
    said = (ast.get_docstring(ast.parse(module.read_text())) or "").splitlines()[0]
    assert ruled_out(IDIOMS.sub("", said)) == []


@pytest.mark.parametrize("folder", ["fmcluster", "tests", "benchmarks", "docs", "notebooks"])
def test_file_names(folder):
    files = [path for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    assert {str(path.relative_to(ROOT)): ruled_out(path.stem) for path in files if ruled_out(path.stem)} == {}


def test_commands_and_their_options():
    command = typer.main.get_command(app)
    options = [f"{name} {option}" for name, each in command.commands.items() for p in each.params for option in p.opts]
    options += [
        f"plot {choice}" for p in command.commands["plot"].params for choice in getattr(p, "choices", None) or ()
    ]
    assert len(options) > 40
    assert {option: ruled_out(option) for option in options if ruled_out(option) and option not in SEEDS} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_in_the_text(page):
    """What is written as code names something of the face, but in the glossary itself."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).split("\n## Words")[0]
    names = set(re.findall(r"`([a-z_]+)`", text))
    assert {name for name in names if ruled_out(name)} == set()


# plain English: to pass an argument; seeds of random numbers; two runs that are told apart; a linear map
PLAIN = {"pass", "seed", "told"}
MEANT = re.compile(
    r"in[ -](?:the )?place|takes? (?:its|the) place|map-style|linear map|maps names|map each"
    r"|pooled (?:fit|k-means)|[\"']pooled[\"']|\(pooled\)|`[^`]*`",
    flags=re.IGNORECASE,
)


def prose_ruled_out(text: str) -> list[str]:
    """Return what is ruled out of a text in whole sentences, each word with the one before it."""
    words = re.findall(r"[^\W_]+", MEANT.sub(" ", " ".join(text.split())))
    return [
        f"{before} {word}"
        for before, word in zip(["", *words], words, strict=False)
        for never, after in WORDS.items()
        if never not in PLAIN and word.lower() in (never, f"{never}s") and before.lower() not in after
    ]


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: f"{path.relative_to(ROOT)} in words")
def test_prose_of_a_module(module):
    """Docstrings, and every other text of more than one word: errors, captions, help."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip()
    ]
    assert [found for text in texts for found in prose_ruled_out(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.relative_to(ROOT)} in words")
def test_prose_of_a_page(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).split("\n## Words")[0]
    assert prose_ruled_out(text) == []


@pytest.mark.parametrize("page", sorted(PACKAGE.rglob("*.j2")), ids=lambda path: f"{path.name} in words")
def test_prose_of_a_template(page):
    assert prose_ruled_out(re.sub(r"<[^>]*>|\{%.*?%\}|\{\{.*?\}\}", " ", page.read_text(), flags=re.DOTALL)) == []


def test_prose_is_read():
    assert prose_ruled_out("A feature map is changed in place; the noise\nfloor of pooled k-means.") == []
    assert prose_ruled_out("The maps of one image.") == ["The maps"]
    assert prose_ruled_out("What it settled on, and its floor.") == ["it settled", "its floor"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    assert headings
    assert {heading: ruled_out(heading) for heading in headings if ruled_out(heading)} == {}
