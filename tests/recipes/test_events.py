"""Events of a recipe: what its caller hears of the training, in the order in which it happens."""

from dataclasses import FrozenInstanceError

import pytest

from fmcluster.recipes import PhaseStarted, SnapshotTaken, StepDone
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
