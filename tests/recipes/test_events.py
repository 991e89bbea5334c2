"""Events of a recipe: what its caller hears of the training, in the order in which it happens."""

import itertools
from dataclasses import FrozenInstanceError

import pytest
from PIL import Image

from fmcluster.recipes import FilesSkipped, PhaseStarted, SnapshotTaken, StepDone, finetune
from fmcluster.store import open_run
from tests.recipes.test_training import make_model, train


def test_events_come_in_the_order_of_the_training() -> None:
    recorder, events = train(make_model(), snapshots_per_epoch=[2, 1])
    kinds = [type(event) for event in events]
    first = [PhaseStarted, SnapshotTaken, *[StepDone] * 2, SnapshotTaken, *[StepDone] * 3, SnapshotTaken]
    assert kinds == [*first, *[StepDone] * 5, SnapshotTaken]
    taken = [event for event in events if isinstance(event, SnapshotTaken)]
    assert [(event.accuracy, event.loss) for event in taken] == [
        (metrics["val_accuracy"], metrics["val_loss"]) for _, _, metrics in recorder.calls
    ]
    assert {(event.epoch, event.phase) for event in events if isinstance(event, StepDone)} == {
        (1, "finetune"),
        (2, "finetune"),
    }


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        PhaseStarted(phase="pretrain", epochs=1, steps=3).steps = 4


@pytest.mark.slow
def test_files_that_are_skipped_are_told_first_and_noted_in_the_run(tmp_path) -> None:
    for part, name, number in itertools.product(("train", "val"), ("ants", "bees"), range(2)):
        file = tmp_path / "data" / part / name / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (0, number, 0)).save(file)
    broken = tmp_path / "data" / "train" / "bees" / "1.png"
    broken.write_bytes(b"no picture")
    events: list[object] = []
    done = finetune(
        tmp_path / "data",
        output=tmp_path / "run.zarr",
        weights="none",
        epochs=1,
        layers=["fc"],
        skip_broken=True,
        progress=events.append,
    )
    assert events[0] == FilesSkipped((str(broken),))
    assert open_run(done.run).provenance[0]["notes"]["files skipped"] == 1
