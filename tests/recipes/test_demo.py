from hashlib import sha256
from pathlib import Path

import pytest
import torch

import fmcluster as fm
from fmcluster.recipes import (
    DigitImages,
    DigitSplits,
    PhaseStarted,
    SnapshotTaken,
    StepDone,
    load_digit_splits,
    run_demo,
)
from fmcluster.recipes import (
    _demo as demo,
)
from fmcluster.recipes._digits import NEW_DIGITS, OLD_DIGITS

LAYERS = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo on a few images: 2 steps of pretraining, 2 of fine-tuning, 10 probe images."""
    whole = load_digit_splits()
    few = DigitSplits(
        pretraining=DigitImages(OLD_DIGITS, whole.pretraining.indices[:16]),
        training=DigitImages(NEW_DIGITS, whole.training.indices[::25]),
        validation=DigitImages(NEW_DIGITS, whole.validation.indices[::25]),
        probe=DigitImages(NEW_DIGITS, whole.probe.indices[::10]),
    )
    monkeypatch.setattr(demo, "load_digit_splits", lambda: few)
    monkeypatch.setattr(demo, "PRETRAINING_EPOCHS", 1)
    monkeypatch.setattr(demo, "SNAPSHOTS_PER_EPOCH", (2,))
    monkeypatch.setattr(demo, "BATCH_SIZE", 8)


def equal(left: Path, right: Path) -> bool:
    first, second = (torch.load(path, weights_only=True) for path in (left, right))
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def contents(run: Path) -> dict[str, str]:
    """The digest of every file of a run."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    return {str(path.relative_to(run)): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_same_seed_gives_the_same_weights_and_files(tmp_path: Path) -> None:
    first, again = run_demo(tmp_path / "a"), run_demo(tmp_path / "b")
    assert equal(first.model_first, again.model_first)
    assert equal(first.model_last, again.model_last)
    assert first.model_last.read_bytes() == again.model_last.read_bytes()
    assert first.snapshots == again.snapshots
    assert contents(first.run) == contents(again.run)
    assert not equal(first.model_first, first.model_last)
    assert not equal(first.model_first, run_demo(tmp_path / "b", random_state=1).model_first)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_callers_random_state_and_thread_count_are_left_alone(tmp_path: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run_demo(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_run_holds_all_ten_children_and_events_tell_its_making(tmp_path: Path) -> None:
    events: list[object] = []
    result = run_demo(tmp_path / "deep" / "er", progress=events.append)
    assert result.run == tmp_path / "deep" / "er" / "run.zarr"
    run = fm.open_run(result.run)
    assert run.layers == LAYERS
    assert run.snapshots["epoch"].tolist() == [0, 1, 1]
    assert run.classes == ("5", "6", "7", "8", "9")
    assert run["conv1"].shape == (3, 10, 64, 32, 32)
    assert run.metrics["val_accuracy"].tolist() == list(result.accuracies)
    assert run["conv1"].display(0) is not None
    phases = [event for event in events if isinstance(event, PhaseStarted)]
    assert [(phase.phase, phase.steps) for phase in phases] == [("pretrain", 2), ("finetune", 2)]
    assert len([event for event in events if isinstance(event, StepDone)]) == 4
    assert [event for event in events if isinstance(event, SnapshotTaken)] == list(result.snapshots)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_stored_maps_are_those_of_the_saved_models(tmp_path: Path) -> None:
    from torchvision import models

    result = run_demo(tmp_path)
    run = fm.open_run(result.run)
    images = torch.stack([image for image, _ in demo.load_digit_splits().probe])
    for number, path in ((0, result.model_first), (2, result.model_last)):
        model = models.resnet18(num_classes=5).eval()
        model.load_state_dict(torch.load(path, weights_only=True))
        with torch.no_grad():
            expected = model.conv1(images)
            logits = model(images)
        stored = torch.from_numpy(run["conv1"].read(snapshot=number)).float()
        torch.testing.assert_close(stored, expected, rtol=1e-3, atol=1e-4)
        stored = torch.from_numpy(run["fc"].read(snapshot=number)).float()
        torch.testing.assert_close(stored, logits, rtol=2e-3, atol=1e-3)


@pytest.mark.slow
def test_the_demo_learns(whole_demo: Path) -> None:
    run = fm.open_run(whole_demo / "run.zarr")
    accuracies = run.metrics["val_accuracy"].tolist()
    assert accuracies[0] <= 0.35
    assert accuracies[-1] >= 0.9
    assert run.snapshots["epoch"].tolist() == [0, 1, 1, 1, 2, 3, 4, 5, 6]
    assert run.snapshots["step"].tolist() == [0, 4, 9, 13, 26, 39, 52, 65, 78]
