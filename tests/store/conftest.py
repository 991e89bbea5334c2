"""A small run of known contents, and a process to write it that can be killed."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("writer_process.py")


@pytest.fixture(scope="session")
def contents() -> ModuleType:
    """What the run holds: see `writer_process.py`."""
    spec = importlib.util.spec_from_file_location("writer_process", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference(contents: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, written without interruption; not to be changed."""
    path = tmp_path_factory.mktemp("reference") / "run.zarr"
    contents.record(path, mode="x")
    return path


@pytest.fixture
def stored(reference: Path, tmp_path: Path) -> Path:
    """A copy of the run, to do with as one likes."""
    return Path(shutil.copytree(reference, tmp_path / "run.zarr"))


@pytest.fixture(scope="session")
def killed_writer() -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that records the run in a process of its own, and kills it right before the n-th event of a kind.

    It answers with how the process ended, and with all events up to then.
    """
    with subprocess.Popen([sys.executable, str(SCRIPT)], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(path: Path, *, mode: str, kill_at: tuple[str, int] = ("", 0)) -> dict[str, Any]:
            process.stdin.write(json.dumps({"path": str(path), "mode": mode, "kill_at": kill_at}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()
