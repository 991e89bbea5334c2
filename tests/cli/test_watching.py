"""Following a run while it is recorded: each committed snapshot is seen, and none that is not."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.cli._watch import follow, until_interrupted
from fmcluster.store import LayerSpec, RunWriter
from fmcluster.store.format._metadata import UNFINISHED


class Slowly:
    """A run that is recorded a snapshot at a time."""

    def __init__(self, path: Path) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.probe = [(image, place % 2) for place, image in enumerate(torch.rand(8, 3, 8, 8))]
        self.path = path

    def record(self, *, epochs: list[int], mode: str | None = None) -> None:
        mode = mode or ("a" if self.path.exists() else "x")
        with fm.Recorder(self.model, self.path, layers=["0"], probe=self.probe, mode=mode) as recorder:
            for epoch in epochs:
                recorder.snapshot(epoch=epoch)
                for parameter in self.model.parameters():
                    parameter.data += 0.1


def wait_for(condition, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.slow
def test_what_follows_sees_every_commit_once_and_ends_when_it_is_told(tmp_path: Path) -> None:
    slowly, stop, seen = Slowly(tmp_path / "run.zarr"), Event(), []
    slowly.record(epochs=[0])
    done: list[int] = []
    watcher = Thread(
        target=lambda: done.append(
            follow(str(slowly.path), lambda run: seen.append(run.epochs), interval=0.02, stop=stop)
        )
    )
    watcher.start()
    wait_for(lambda: seen == [[0]])
    slowly.record(epochs=[1])
    wait_for(lambda: len(seen) == 2)
    time.sleep(0.2)
    stop.set()
    watcher.join(10)
    assert seen == [[0], [0, 1]]
    assert done == [2]


def test_a_run_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run at"):
        follow(str(tmp_path / "nowhere.zarr"), lambda run: None, interval=0.01, stop=Event())


@pytest.mark.slow
def test_what_follows_waits_for_a_recording_that_has_begun(tmp_path: Path) -> None:
    """Its recorder holds the lock: there is no folder, then one without commits, then a snapshot."""
    slowly, stop, seen, failed = Slowly(tmp_path / "run.zarr"), Event(), [], []

    def watch() -> None:
        try:
            follow(str(slowly.path), lambda run: seen.append(run.epochs), interval=0.01, stop=stop)
        except Exception as error:
            failed.append(error)

    watcher = Thread(target=watch)
    with RunWriter(slowly.path) as writer:
        watcher.start()
        time.sleep(0.1)
        slowly.path.mkdir()
        (tmp_path / "root").write_bytes(UNFINISHED)
        (tmp_path / "root").rename(slowly.path / "zarr.json")  # at once, as a recorder does it
        time.sleep(0.1)
        writer.create([LayerSpec("0", (6, 6, 6), "float16", "Conv2d")], n_samples=8, shard_samples=8, kind="probe")
        time.sleep(0.1)
        assert failed == seen == []
        assert watcher.is_alive()
    slowly.record(epochs=[0], mode="w")
    wait_for(lambda: seen == [[0]])
    stop.set()
    watcher.join(10)
    assert failed == []


def test_what_follows_ends_where_a_recording_was_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    path.mkdir()
    (path / "zarr.json").write_bytes(UNFINISHED)
    with pytest.raises(fm.StoreError, match="Record it again"):
        follow(str(path), lambda run: None, interval=0.01, stop=Event())


def test_an_interruption_ends_the_block_also_where_its_exception_is_lost() -> None:
    before = signal.getsignal(signal.SIGINT)
    with until_interrupted() as stop:
        with suppress(KeyboardInterrupt):  # as in a finalizer
            signal.raise_signal(signal.SIGINT)
        assert stop.wait(10)
    with until_interrupted():
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_the_page_follows_a_training_and_ctrl_c_ends_it_in_order(tmp_path: Path) -> None:
    slowly, page = Slowly(tmp_path / "run.zarr"), tmp_path / "page.html"
    slowly.record(epochs=[0])
    command = [str(Path(sys.executable).with_name("fmcluster")), "report", str(slowly.path), "-o", str(page), "--watch"]
    with subprocess.Popen(
        [*command, "--interval", "0.2", "--clusters", "2"], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as watching:
        try:
            for epochs in ([], [1], [2]):
                if epochs:
                    slowly.record(epochs=epochs)
                last = 1 + (epochs[0] if epochs else 0)
                whole = f"<dd>{last}, epoch 0"
                wait_for(lambda whole=whole: page.is_file() and whole in page.read_text(), seconds=120)
                text = page.read_text()
                assert text.rstrip().endswith("</html>")
                assert '<meta http-equiv="refresh" content="1">' in text
            watching.send_signal(signal.SIGINT)
            told, _ = watching.communicate(timeout=60)
        finally:
            watching.kill()
    assert watching.returncode == 130
    assert "Stopped watching" in told
    assert not list(tmp_path.glob(".*"))
