from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fmcluster.recipes import PhaseStarted, SnapshotTaken, StepDone, evaluate, train_one_epoch
from fmcluster.recipes._devices import choose_device, seeded
from fmcluster.recipes._training import make_loader, snapshot_steps, train_with_snapshots

CPU = torch.device("cpu")


class ListRecorder:
    """Keeps what a recorder is told, and the weights at that moment."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: list[tuple[int, int, dict[str, float]]] = []
        self.weights: list[torch.Tensor] = []

    def snapshot(self, *, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        self.calls.append((epoch, step, dict(metrics)))
        self.weights.append(next(self.model.parameters()).detach().clone())


def make_images(count: int = 20) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 1, 4, 4, generator=generator)
    return TensorDataset(images, (images.mean(dim=(1, 2, 3)) > 0).long())


def make_model() -> nn.Module:
    with seeded(0, device=CPU):
        return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 2))


def train(model: nn.Module, *, snapshots_per_epoch: list[int]) -> tuple[ListRecorder, list[object]]:
    recorder, events = ListRecorder(model), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = make_images()
    train_with_snapshots(
        model,
        recorder,
        train_loader=make_loader(images, batch_size=4, shuffle=True, random_state=5),
        val_loader=make_loader(images, batch_size=8, shuffle=False),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1),
        snapshots_per_epoch=snapshots_per_epoch,
        device=CPU,
        progress=events.append,
    )
    return recorder, events


def test_snapshots_come_before_within_and_after_epochs() -> None:
    recorder, events = train(make_model(), snapshots_per_epoch=[2, 1])
    assert [call[:2] for call in recorder.calls] == [(0, 0), (1, 2), (1, 5), (2, 10)]
    assert events[0] == PhaseStarted(phase="finetune", epochs=2, steps=10)
    assert [event.step for event in events if isinstance(event, StepDone)] == list(range(1, 11))
    taken = [event for event in events if isinstance(event, SnapshotTaken)]
    assert [(event.epoch, event.step) for event in taken] == [call[:2] for call in recorder.calls]


def test_metrics_tell_the_rate_in_force_and_the_loss_since_the_last_snapshot() -> None:
    recorder, events = train(make_model(), snapshots_per_epoch=[2, 1])
    metrics = [call[2] for call in recorder.calls]
    assert set(metrics[0]) == {"val_accuracy", "val_loss", "learning_rate"}
    assert set(metrics[1]) == {"val_accuracy", "val_loss", "learning_rate", "train_loss"}
    assert [each["learning_rate"] for each in metrics] == pytest.approx([0.1, 0.1, 0.1, 0.01])
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert metrics[1]["train_loss"] == pytest.approx(sum(losses[:2]) / 2)
    assert metrics[2]["train_loss"] == pytest.approx(sum(losses[2:5]) / 3)


def test_more_snapshots_change_nothing_that_is_learnt() -> None:
    few, _ = train(make_model(), snapshots_per_epoch=[1, 1])
    many, _ = train(make_model(), snapshots_per_epoch=[5, 3])
    assert torch.equal(few.weights[-1], many.weights[-1])
    assert not torch.equal(few.weights[0], few.weights[-1])


@pytest.mark.parametrize("count", [0, 6])
def test_more_snapshots_than_steps_are_refused_before_training(count: int) -> None:
    model = make_model()
    before = model[2].weight.clone()
    with pytest.raises(ValueError, match=f"snapshots_per_epoch is {count}: expected 1 to 5"):
        train(model, snapshots_per_epoch=[1, count])
    assert torch.equal(before, model[2].weight)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_snapshots_are_even_and_end_with_the_epoch(steps: int) -> None:
    for count in range(1, steps + 1):
        chosen = sorted(snapshot_steps(count, steps_per_epoch=steps))
        assert len(chosen) == count
        assert chosen[-1] == steps
        gaps = {after - before for before, after in zip([0, *chosen], chosen, strict=False)}
        assert max(gaps) - min(gaps) <= 1


def test_an_epoch_trains_every_image_once() -> None:
    model, seen = make_model(), []
    loader = make_loader(make_images(10), batch_size=4, shuffle=True)
    mean = train_one_epoch(
        model,
        loader,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        criterion=nn.CrossEntropyLoss(),
        device=CPU,
        on_step=lambda loss, n_images: seen.append((loss, n_images)),
    )
    assert [n_images for _, n_images in seen] == [4, 4, 2]
    assert mean == pytest.approx(sum(loss * n_images for loss, n_images in seen) / 10)


def test_evaluation_is_exact_and_leaves_each_training_flag_and_statistic() -> None:
    model = make_model().train()
    model[0].eval()
    statistics = model[0].running_mean.clone()
    images = make_images(10)
    result = evaluate(model, make_loader(images, batch_size=3, shuffle=False), device=CPU)
    assert [module.training for module in model] == [False, True, True]
    assert model.training
    assert torch.equal(model[0].running_mean, statistics)
    with torch.no_grad():
        outputs = model(images.tensors[0])
    assert result.accuracy == int((outputs.argmax(1) == images.tensors[1]).sum()) / 10
    assert result.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, images.tensors[1])))


@pytest.mark.slow
def test_flags_come_back_when_evaluation_fails() -> None:
    model = make_model().train()
    loader = make_loader(TensorDataset(torch.zeros(2, 1, 9, 9), torch.zeros(2).long()), batch_size=2, shuffle=False)
    with pytest.raises(RuntimeError):
        evaluate(model, loader, device=CPU)
    assert all(module.training for module in model.modules())


def test_loaders_leave_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    for shuffle in (True, False):
        for _ in make_loader(make_images(), batch_size=4, shuffle=shuffle):
            pass
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        make_loader(make_images(), batch_size=0, shuffle=False)


def test_a_seeded_state_is_given_back_even_after_an_error() -> None:
    state = torch.get_rng_state()
    with seeded(3, device=CPU):
        first = torch.rand(2)
    with pytest.raises(RuntimeError), seeded(3, device=CPU):
        assert torch.equal(torch.rand(2), first)
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), state)


def test_devices_that_are_not_there_are_refused() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device(None).type in {"cpu", "cuda"}
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(ValueError, match="no device 'cuda:99'"):
        choose_device("cuda:99")
