"""A run from checkpoints is the run that would have been recorded."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm


@pytest.fixture
def trained(net: nn.Module, data: list, tmp_path: Path) -> dict[int, Path]:
    """Three epochs, recorded as they were trained, and saved."""
    images, labels = torch.stack([d[0] for d in data]), torch.tensor([d[1] for d in data])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    saved = {}
    with fm.Recorder(net, tmp_path / "live.zarr", probe=data, batch_size=4) as recorder:
        for epoch in (0, 1, 10):
            recorder.snapshot(epoch=epoch)
            saved[epoch] = tmp_path / f"epoch{epoch}.pt"
            torch.save(net.state_dict(), saved[epoch])
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    return saved


@pytest.mark.slow
def test_it_is_the_same_bit_for_bit(trained, net, data, tmp_path):
    model = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    before = copy.deepcopy(model.state_dict())
    shuffled = {epoch: trained[epoch] for epoch in (10, 0, 1)}
    fm.replay(model, tmp_path / "again.zarr", checkpoints=shuffled, probe=data, batch_size=4)
    live, again = fm.open_run(tmp_path / "live.zarr"), fm.open_run(tmp_path / "again.zarr")
    assert again.epochs == [0, 1, 10]
    for name in live.layers:
        for snapshot in range(3):
            one, other = (run[name].read(snapshot=snapshot) for run in (live, again))
            np.testing.assert_array_equal(one.view(np.uint16), other.view(np.uint16))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the model's own weights are gone"
    assert not torch.equal(live_weights := torch.load(trained[10], weights_only=True)["fc.weight"], after["fc.weight"])
    assert live_weights.shape == after["fc.weight"].shape


def test_steps_metrics_and_wrapped_state_dicts(trained, net, data, tmp_path):
    states = {epoch: torch.load(path, weights_only=True) for epoch, path in trained.items()}
    wrapped = {
        (1, 3): {"state_dict": {f"module.{name}": value for name, value in states[0].items()}, "epoch": 1},
        (1, 7): {"model": states[1]},
    }
    fm.replay(net, tmp_path / "b.zarr", checkpoints=wrapped, probe=data, metrics={(1, 7): {"val_accuracy": 0.5}})
    run = fm.open_run(tmp_path / "b.zarr")
    assert run.snapshots[["epoch", "step"]].to_numpy().tolist() == [[1, 3], [1, 7]]
    assert run.metrics["val_accuracy"].isna().tolist() == [True, False]


def test_a_missing_checkpoint_is_found_before_anything_is_recorded(trained, net, data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt; nothing was recorded"):
        fm.replay(net, tmp_path / "c.zarr", checkpoints={0: trained[0], 1: "nowhere.pt"}, probe=data)
    assert not (tmp_path / "c.zarr").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"fc.weight": torch.zeros(4, 6)},
            r"epoch 1 \(.*bad\.pt\) does not hold this model's weights: its 1 keys are fc.weight; of",
        ),
        (torch.zeros(3), "it holds a Tensor; expected a state dict"),
        (b"not a checkpoint", "cannot be read as weights"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named_and_earlier_snapshots_stay(
    content, message, trained, net, data, tmp_path
):
    bad = tmp_path / "bad.pt"
    if isinstance(content, bytes):
        bad.write_bytes(content)
    else:
        torch.save(content, bad)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=message):
        fm.replay(net, tmp_path / "d.zarr", checkpoints={0: trained[0], 1: bad}, probe=data)
    assert fm.open_run(tmp_path / "d.zarr").epochs == [0]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_checkpoints_run_no_code(net, data, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"fc.weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        fm.replay(net, tmp_path / "e.zarr", checkpoints={0: tmp_path / "evil.pt"}, probe=data)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["1", 1.0, True, (1,), (1, "2")])
def test_keys_are_epochs(key, net, data, tmp_path):
    with pytest.raises(ValueError, match="expected an epoch, or"):
        fm.replay(net, tmp_path / "f.zarr", checkpoints={key: net.state_dict()}, probe=data)


def test_no_checkpoint_is_refused(net, data, tmp_path):
    with pytest.raises(ValueError, match="checkpoints is empty"):
        fm.replay(net, tmp_path / "g.zarr", checkpoints={}, probe=data)


@pytest.mark.slow
def test_more_checkpoints_than_max_bytes_allows_are_refused_before_anything_is_recorded(
    net: nn.Module, data: list, tmp_path: Path
) -> None:
    path, state = tmp_path / "run.zarr", net.state_dict()
    nbytes = fm.Recorder(net, path, probe=data).estimate().nbytes
    options = {"checkpoints": dict.fromkeys(range(3), state), "probe": data}
    with pytest.raises(ValueError, match="3 snapshots of 10 samples would take"):
        fm.replay(net, path, max_bytes=3 * nbytes - 1, **options)
    assert list(tmp_path.iterdir()) == []
    fm.replay(net, path, max_bytes=3 * nbytes, **options)
    assert len(fm.open_run(path)) == 3


@pytest.mark.slow
def test_one_that_was_cut_off_goes_on_with_the_same_arguments(trained, net, data, tmp_path):
    fm.replay(net, tmp_path / "whole.zarr", checkpoints=trained, probe=data, batch_size=4)
    some = {epoch: trained[epoch] for epoch in (0, 1)}
    fm.replay(net, tmp_path / "cut.zarr", checkpoints=some, probe=data, batch_size=4)
    for _ in range(2):  # the second time nothing is left to do
        fm.replay(net, tmp_path / "cut.zarr", checkpoints=trained, probe=data, batch_size=4, mode="a")
        whole, cut = (fm.open_run(tmp_path / name) for name in ("whole.zarr", "cut.zarr"))
        assert cut.epochs == whole.epochs == [0, 1, 10]
        for name in whole.layers:
            np.testing.assert_array_equal(cut[name].read(epoch=10), whole[name].read(epoch=10))


@pytest.mark.slow
def test_a_checkpoint_from_between_recorded_ones_is_refused(trained, net, data, tmp_path):
    some = {epoch: trained[epoch] for epoch in (0, 10)}
    fm.replay(net, tmp_path / "run.zarr", checkpoints=some, probe=data, batch_size=4)
    with pytest.raises(ValueError, match=r"holds epoch 1, step 0, which .* does not, .* epoch 10, step 0"):
        fm.replay(net, tmp_path / "run.zarr", checkpoints=trained, probe=data, batch_size=4, mode="a")
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 10]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_quantized_models_own_weights_are_replayed_and_put_back(prefix: str, tmp_path: Path) -> None:
    def quantized(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), {nn.Linear})

    net, other = quantized(0), quantized(1)
    before = net[1].weight().dequantize()
    images = [torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    state = {prefix + name: value for name, value in other.state_dict().items()}
    fm.replay(net, tmp_path / "run.zarr", checkpoints={3: state}, probe=images, dtype="float32")
    expected = other(torch.stack(images)).detach().numpy()
    np.testing.assert_array_equal(fm.open_run(tmp_path / "run.zarr")["1"].read(epoch=3), expected)
    assert torch.equal(net[1].weight().dequantize(), before)
