"""Event files: what TensorBoard reads of them, and what is left where they cannot be written."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmcluster.export._event_file import EventFile, write_events

tensorboard = pytest.importorskip("tensorboard")


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"histograms": 0, "images": 0}).Reload()


def add_all(events: EventFile) -> None:
    values = np.random.default_rng(0).normal(size=1000)
    events.add_scalar("loss", 0.25, step=3)
    events.add_histogram("values", values, step=3)
    events.add_histogram("large", values * 1e37, step=3)
    events.add_image("picture", np.arange(48, dtype=np.uint8).reshape(4, 4, 3), step=3)
    events.add_text("prose", "said", step=3)


def test_tensorboard_reads_what_its_own_writer_writes(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with write_events(tmp_path / "ours", suffix=".x") as events:
        add_all(events)
        assert not list((tmp_path / "ours").glob("*tfevents*"))  # nobody finds half of it
    (written,) = (tmp_path / "ours").iterdir()
    assert written.name.startswith("events.out.tfevents.")
    assert written.suffix == ".x"
    values = np.random.default_rng(0).normal(size=1000)
    with SummaryWriter(str(tmp_path / "theirs")) as writer:
        writer.add_scalar("loss", 0.25, 3)
        writer.add_histogram("values", values, 3)
        writer.add_histogram("large", values * 1e37, 3, bins="sturges")
        writer.add_image("picture", np.arange(48, dtype=np.uint8).reshape(4, 4, 3), 3, dataformats="HWC")
        writer.add_text("prose", "said", 3)
    ours, theirs = read(tmp_path / "ours"), read(tmp_path / "theirs")
    assert ours.Tags() == theirs.Tags()
    assert [(each.step, each.value) for each in ours.Scalars("loss")] == [(3, 0.25)]
    for kind, name in (("Histograms", "values"), ("Histograms", "large"), ("Images", "picture")):
        one, other = getattr(ours, kind)(name), getattr(theirs, kind)(name)
        assert [{**vars(each), "wall_time": 0} for each in one] == [{**vars(each), "wall_time": 0} for each in other]


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 1e-17, 1e-9, 1.0])
def test_large_values_that_are_much_alike_have_a_histogram(spread: float, tmp_path: Path) -> None:
    values = 1e37 * (1 + spread * np.linspace(0, 1, 50))
    with write_events(tmp_path, suffix=".x") as events:
        events.add_histogram("large", values, step=0)
    ((histogram,),) = (read(tmp_path).Histograms("large"),)
    assert sum(histogram.histogram_value.bucket) == 50
    assert max(histogram.histogram_value.bucket_limit) >= values.max()


def test_two_files_in_a_second_have_names_of_their_own(tmp_path: Path) -> None:
    for _ in range(3):
        with write_events(tmp_path, suffix=".x") as events:
            events.add_scalar("loss", 1.0, step=0)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no file that takes nothing")  # noqa: PTH110
def test_a_full_disk_is_an_error_here_and_not_a_traceback_of_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a: opened(Path("/dev/full") if path.name == "whole" else path, *a))
    with pytest.raises(OSError, match="No space left") as raised, write_events(tmp_path / "new", suffix=".x") as events:
        for step in range(10_000):
            events.add_scalar("loss", 1.0, step=step)
    assert raised.value.errno == errno.ENOSPC
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
