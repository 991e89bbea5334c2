"""For all tests: on request, a skipped test is a failed run; and no test waits for the disk."""

import gc
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before any library asks: processes share the cores, threads would wait
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
if not Path("/dev/nvidiactl").exists():  # before Triton is imported: its kernels run in its interpreter, on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, for tests that are marked `browser`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as runner:
        launched = runner.chromium.launch(executable_path=chromium, args=flags)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def whole_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo, which nobody writes into: ``FMCLUSTER_DEMO``, or trained once for all processes."""
    if "FMCLUSTER_DEMO" in os.environ:
        return Path(os.environ["FMCLUSTER_DEMO"])
    from filelock import FileLock

    from fmcluster.recipes import run_demo

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with FileLock(shared / "demo.lock"):
        if not (shared / "demo").exists():
            run_demo(shared / "training").run.parent.rename(shared / "demo")
    return shared / "demo"


@pytest.fixture(scope="session")
def import_benchmark() -> Callable[[str], ModuleType]:
    """A function that imports a script of the benchmarks, which import one another by name."""
    folder = Path(__file__).parent.parent / "benchmarks"

    def find(name: str) -> ModuleType:
        sys.path.insert(0, str(folder))
        try:
            return import_module(name)
        finally:
            sys.path.remove(str(folder))

    return find


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, so none has to wait until its files would survive that."""
    monkeypatch.setattr(os, "fsync", lambda handle: os.fstat(handle))
    monkeypatch.setattr("fmcluster.store.files._disk._flush_file_system", lambda folder: folder.stat())


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    """What one test draws is not there in the next."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="a skipped test fails the run")


# what takes a minute is begun first: begun last, other processes would wait for it with nothing to do
TAKES_LONG = ("tests/test_benchmarks.py", "tests/test_notebooks.py", "tests/test_proof.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(TAKES_LONG))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the million objects that imports make out of every search for garbage, now and later: none of them is."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--fail-on-skip") or exitstatus != pytest.ExitCode.OK or reporter is None:
        return
    if skipped := reporter.stats.get("skipped"):
        reporter.write_line(f"{len(skipped)} tests were skipped, which --fail-on-skip forbids", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
