"""The documentation: the gallery's code runs, and the reference names everything that is public."""

import ast
import re
from collections import OrderedDict
from importlib import import_module
from pathlib import Path

import pytest
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NAMED = re.compile(r"^from \.[\w.]* ?import (\w+)", re.MULTILINE)


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A small run where the gallery looks for that of the demo, with layers of the same names."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 3, 12, 12, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = OrderedDict(conv1=nn.Conv2d(3, 16, 3, padding=1), layer2=nn.Conv2d(16, 24, 3, stride=2, padding=1))
        layers |= OrderedDict(relu=nn.ReLU(), layer4=nn.Conv2d(24, 64, 3, stride=2, padding=1))
        model = nn.Sequential(layers)
    (tmp_path / "demo").mkdir()
    with fm.Recorder(
        model, "demo/run.zarr", layers="children", probe=TensorDataset(images, torch.arange(24) % 3)
    ) as recorder:
        for epoch in range(4):
            recorder.snapshot(epoch=epoch, metrics={"val_accuracy": epoch / 4})
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.1 / (epoch + 1) * torch.randn(parameter.shape, generator=generator)


@pytest.mark.slow
def test_every_picture_of_the_gallery_is_drawn_by_its_code(demo):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "gallery.md").read_text(), flags=re.DOTALL)
    namespace, drawn = {}, []
    for block in blocks[1:]:
        *before, last = re.split(r"\n(?=\S)", block.strip())
        assert not last.startswith(")")
        drawn.append((before, last))
    exec(blocks[0], namespace)
    for before, last in drawn:
        exec("\n".join(before), namespace)
        picture = eval(last, namespace)
        assert isinstance(picture, Axes | Figure | FuncAnimation), last
        if isinstance(picture, FuncAnimation):
            picture.save("a.gif", writer="pillow", dpi=20)


def test_every_function_that_draws_is_in_the_gallery():
    text = (DOCS / "gallery.md").read_text()
    drawing = set(NAMED.findall((ROOT / "fmcluster/plot/__init__.pyi").read_text()))
    assert {name for name in drawing if f"plot.{name}(" not in text} == {"cluster_palette"}


def test_the_reference_names_everything_that_is_public():
    described = set()
    for page in (DOCS / "reference").glob("*.md"):
        described |= set(re.findall(r"^::: ([\w.]+)$", page.read_text(), flags=re.MULTILINE))
    for name in described:
        package, _, last = name.rpartition(".")
        assert hasattr(import_module(package), last) or import_module(name), name
    public = {
        f"fmcluster.{tier}.{name}"
        for tier in ("analysis", "capture", "explore", "export", "plot", "report", "store")
        for name in NAMED.findall((ROOT / "fmcluster" / tier / "__init__.pyi").read_text())
    }
    assert public - described == set()
    names = {name.rpartition(".")[2] for name in described}
    assert set(NAMED.findall((ROOT / "fmcluster/__init__.pyi").read_text())) - {"plot"} <= names


def test_every_page_is_in_the_navigation():
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} | {"reference/cli.md"}
    pages |= {f"notebooks/{page.name}" for page in (ROOT / "notebooks").glob("*.ipynb")}
    shown = set(re.findall(r": ([\w/.-]+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    assert shown == pages


NO_GUIDES = {"index.md"}


@pytest.mark.parametrize(
    "page", [page for page in sorted(DOCS.glob("*.md")) if page.name not in NO_GUIDES], ids=lambda page: page.name
)
def test_a_guide_begins_with_what_its_reader_can_do_after_it(page):
    first = page.read_text(encoding="utf-8").split("\n\n")[1]
    assert re.match(r"After reading this page you (can|know) ", first)


@pytest.mark.slow
def test_what_names_were_changed_to_is_there():
    """Each name in the right column of the changelog's table is one of the package, and those in the left are gone."""
    rows = re.findall(r"^\| (`.+) \| (`.+) \|$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert len(rows) > 15
    names, public = set(), set()
    for path in (ROOT / "fmcluster").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names |= {getattr(node, field, None) for field in ("name", "arg", "attr", "id")}
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= {node.value, *re.findall(r"[\w.]+", node.value)} if "," in node.value else {node.value}
    for stub in (ROOT / "fmcluster").rglob("__init__.pyi"):
        public |= set(NAMED.findall(stub.read_text()))
    written = [(re.findall(r"`([^`]+)`", was), re.findall(r"`([^`]+)`", now)) for was, now in rows]
    unknown = {word for _, now in written for code in now for word in re.findall(r"\b[a-zA-Z]\w+", code)} - names
    assert unknown - {"recorder", "frame", "plot"} == set()
    kept = {code for _, now in written for code in now}
    assert {code for was, _ in written for code in was if code in public and code not in kept} == set()


PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
COMMANDS = [
    pytest.param(line.strip(), id=f"{page.name}: {line.strip()[:60]}")
    for page in PAGES
    for line in dict.fromkeys(
        re.findall(r"^ {0,4}(fmcluster [a-z].*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_on_the_pages_exist_with_their_options_and_pictures(line):
    import shlex

    import typer

    from fmcluster.cli import app

    words = shlex.split(re.split(r"\s{2,}|\s#|\\$", line)[0])[1:]
    command = typer.main.get_command(app).commands[words[0]]
    known = {name for parameter in command.params for name in parameter.opts}
    used = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    assert used <= known, sorted(used - known)
    if words[0] == "plot":
        from fmcluster.cli._plot import picture_named

        assert picture_named(words[2])
