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

        def run(
            path: Path | str,
            *,
            mode: str,
            kill_at: tuple[str, int] = ("", 0),
            environment: dict[str, str] | None = None,
        ) -> dict[str, Any]:
            request = {"path": str(path), "mode": mode, "kill_at": kill_at, "environment": environment or {}}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Any]:
    """A server of the S3 protocol, as `tests.store.bucket` has it."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    from tests.store.bucket import s3_server

    with s3_server() as running:
        yield running


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch, s3_server: Any, tmp_path: Path) -> None:
    """What finds the server, which fails in no way yet; temporary folders are the test's own."""
    from tests.store.bucket import environment_of

    for key, value in environment_of(s3_server).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    s3_server.plan.clear()
    s3_server.failed.clear()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A URL of the test's own."""
    return f"s3://bucket/{tmp_path.name}/run.zarr"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are not made again."""
    monkeypatch.setattr("fmcluster.store.files._object_store._RETRIES", {"max_retries": 0})
    monkeypatch.setattr("fmcluster.store.files._object_store._ATTEMPTS", 1)
