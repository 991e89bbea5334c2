"""The demo on a disk that fills up once the run is recorded, before its report is written."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmcluster.cli import main
from fmcluster.recipes import DemoResult
from fmcluster.store import open_run, verify

from .small_cli_run import write_run

DISK = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path | None]:
    """A small file system of its own; None where this process may mount none."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    allowed = shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield folder if allowed else None
    if allowed:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["the disk is full", "files cannot grow"])
def test_a_disk_that_fills_up_during_the_report_is_one_sentence_and_half_of_no_page(
    what: str,
    disk: Path | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is recorded is made up here: the training takes minutes, and `tests/faults` fills the disk under it."""
    if what == "the disk is full" and disk is None:
        pytest.skip("this process may mount no file system")
    output = (tmp_path if what == "files cannot grow" or disk is None else disk) / "demo"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def recorded(folder: Path, **_: object) -> DemoResult:
        folder.mkdir()
        run = write_run(folder / "run.zarr", channels=8)
        if what == "files cannot grow":
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, limit[1]))
        else:
            (folder / "ballast").write_bytes(bytes(shutil.disk_usage(folder).free - 4096))
        return DemoResult(run=run, model_first=folder, model_last=folder, snapshots=())

    monkeypatch.setattr("fmcluster.recipes.run_demo", recorded)
    monkeypatch.setattr("sys.argv", ["fmcluster", "demo", "-o", str(output)])
    monkeypatch.setattr("warnings.filters", [("default", None, UserWarning, None, 0)])
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    *before, error = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert error.startswith(f"error: the page cannot be written to {output}/report.html: the system says ")
    assert len(before) == 1
    assert before[0].startswith(f"warning: the result is not saved in {output}/run.zarr.results: ")
    assert not list(output.glob("*.html"))
    assert not [file for file in output.rglob(".*") if file.is_file()]
    assert verify(open_run(output / "run.zarr")) == []
