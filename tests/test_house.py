"""House rules: tiers, light imports, rooms with a public list, tests that mirror them, no file that outgrew them."""

import ast
import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "fmcluster").rglob("*.py"))


@pytest.mark.slow
def test_tiers_import_only_what_is_under_them():
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import fmcluster", {"torch", "zarr", "numba", "umap", "matplotlib", "sklearn", "pandas"}),
        ("from fmcluster import open_run", {"torch", "numba", "umap", "matplotlib", "sklearn"}),
        ("from fmcluster import plot", {"torch", "zarr", "umap"}),
        ("from fmcluster import compare, diagnose, pca, similarity, top_images, track", {"torch", "umap"}),
        ("import fmcluster.cli", {"torch", "zarr", "numba", "umap", "matplotlib", "sklearn", "pandas"}),
        pytest.param(
            "from fmcluster import Recorder", {"umap", "matplotlib", "sklearn", "plotly"}, marks=pytest.mark.slow
        ),
    ],
)
def test_imports_are_as_light_as_they_can_be(statement, absent):
    script = f"{statement}; import sys; print(*sorted({absent!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not out.split()


def test_the_package_names_what_the_design_names():
    import fmcluster

    verbs = {"Recorder", "open_run", "pca", "embed", "cluster", "track", "write_report"}
    assert set(fmcluster.__all__) >= verbs | {"plot", "StoreError", "CaptureError"}
    for name in fmcluster.__all__:
        assert getattr(fmcluster, name) is not None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_outgrows_the_house(path):
    assert len(path.read_text().splitlines()) <= 400
    assert path.name != "utils.py"


@pytest.mark.parametrize("path", [p for p in MODULES if ">>>" in p.read_text()], ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_in_docstrings_are_right(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = import_module(".".join(part for part in parts if part != "__init__"))
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.mark.parametrize("path", MODULES[1:], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_begins_with_what_it_holds(path):
    """A noun phrase, a colon, and what is in it: no question, which a search would not find."""
    said = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
    assert ": " in said or path.name == "_compat.py", said
    assert said.split()[0] not in {"How", "What", "When", "Where", "Whether", "Which", "Who", "Whose", "Why"}, said
    assert said.endswith(".") or path.name == "_compat.py", said


@pytest.mark.slow
def test_public_functions_take_two_positional_parameters_at_most():
    """Commands of the command line aside, as typer makes options of their parameters; and the trainers' own hooks."""
    too_many = []
    for path in MODULES:
        if any(path.is_relative_to(ROOT / "fmcluster" / part) for part in ("cli", "capture/trainers")):
            continue
        tree = ast.parse(path.read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for node in [*tree.body, *(member for each in classes for member in each.body)]:
            if not isinstance(node, ast.FunctionDef):
                continue
            public = not node.name.startswith("_") or node.name == "__init__"
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            if public and len([name for name in names if name not in ("self", "cls")]) > 2:
                too_many.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}({', '.join(names)})")
            if public and node.args.kwarg is not None:
                too_many.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}(**{node.args.kwarg.arg})")
    assert not too_many, "\n".join(too_many)


def imported(path):
    """Return what a module of the package imports from the package, as absolute names of modules."""
    here = path.relative_to(ROOT).with_suffix("").parts
    package = here[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or (
            node.level == 0 and not (node.module or "").startswith("fmcluster")
        ):
            continue
        start = package[: len(package) - node.level + 1] if node.level else ()
        base = ".".join((*start, *([node.module] if node.module else [])))
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_imports_from_inside_a_room(path):
    """`a.b._x` is for the modules of `a.b` and of the rooms in it; others take what `a/b/__init__.pyi` lists."""
    here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    reached = []
    for name in imported(path):
        for room, _, rest in ((name[:at], ".", name[at + 1 :]) for at in range(len(name)) if name[at] == "."):
            if rest.startswith("_") and not rest.startswith("__") and not here.startswith(f"{room}."):
                reached.append(name)
    assert sorted(set(reached)) == []


def private_uses(source):
    """Return what a module uses that another package keeps to itself: attributes, modules and names with `_` before."""

    def private(name):
        return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and private(node.attr):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls", "super()", "other", "os", "atexit"):  # os._exit is documented
                yield f"{owner}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module != "__future__":
            yield from (f"{node.module}.{a.name}" for a in node.names if private(f"{node.module}.{a.name}"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            if private(name) and name != "_fields":  # of a named tuple, documented
                yield f"{ast.unparse(node.args[0])}.{name}"


@pytest.mark.slow
def test_private_interfaces_of_others_are_in_the_compat_module_of_their_tier():
    uses = {path: sorted(set(private_uses(path.read_text()))) for path in MODULES}
    assert {str(path): found for path, found in uses.items() if found and path.name != "_compat.py"} == {}
    assert sum(bool(found) for path, found in uses.items() if path.name == "_compat.py") >= 3
    tests = {path.parent.name for path in (ROOT / "tests").glob("*/test_compat.py")}
    assert tests == {path.parent.name for path in MODULES if path.name == "_compat.py"}
    source = "from torch._C import a\nfrom umap import _b\ntensor._version\ngetattr(model, '_orig_mod')\nself._own"
    assert sorted(private_uses(source)) == ["model._orig_mod", "tensor._version", "torch._C.a", "umap._b"]


@pytest.mark.parametrize("stub", sorted((ROOT / "fmcluster").rglob("__init__.pyi")), ids=lambda p: str(p.parent.name))
def test_a_room_lists_what_it_has(stub):
    """Each name of the list comes from the module named, and no module of the room shares a name with a function."""
    for module, name in re.findall(r"^from (\.[\w.]*) import (\w+)", stub.read_text(), flags=re.MULTILINE):
        package = import_module(".".join(stub.parent.relative_to(ROOT).parts))
        found = getattr(package, name)
        assert found is not None, (module, name)
        assert not (stub.parent / f"{name}.py").exists() or module == ".", name


def test_what_a_tier_offers_has_a_test_that_is_its_namesake():
    """Of `fmcluster/plot/_flow.py` that is `tests/plot/test_flow.py`; what only a room uses is tested through these."""
    missing = set()
    for tier in (ROOT / "fmcluster").glob("*/__init__.pyi"):
        package = import_module(f"fmcluster.{tier.parent.name}")
        for name in re.findall(r"import (\w+) as", tier.read_text()):
            source = getattr(getattr(package, name), "__module__", "")
            inside = Path(*source.removeprefix("fmcluster.").split("."))
            namesake = ROOT / "tests" / inside.parent / f"test_{inside.name.removeprefix('_')}.py"
            if source.startswith("fmcluster.") and not namesake.exists():
                missing.add(str(namesake.relative_to(ROOT)))
    assert sorted(missing) == []
