"""Model inputs: several tensors, keyword arguments, and what a caller's function makes of a batch."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import fmcluster as fm
from fmcluster.capture.inputs._inputs import ModelInputs, as_inputs

GENERATOR = torch.Generator().manual_seed(3)
LEFT = torch.rand(7, 3, 8, 8, generator=GENERATOR)
RIGHT = torch.rand(7, 3, 8, 8, generator=GENERATOR)


class Two(nn.Module):
    """A model of two inputs, the second of them by name only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, left: torch.Tensor, *, right: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(left - 2 * right).mean((2, 3)))


class Pairs(Dataset[Any]):
    def __init__(self, right: torch.Tensor = RIGHT) -> None:
        self.right = right

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        return LEFT[index], self.right[index], index % 3


def by_name(batch: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    return (batch[0],), {"right": batch[1]}


def expected_of(model: nn.Module) -> np.ndarray:
    parts = [slice(0, 4), slice(4, 7)]
    with torch.no_grad():
        return torch.cat([model.conv(LEFT[part] - 2 * RIGHT[part]) for part in parts]).half().numpy()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_function_makes_what_the_model_is_called_with(wrapped: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Two()
    probe = fm.with_index(Pairs()) if wrapped else Pairs()
    with fm.Recorder(model, tmp_path / "run.zarr", probe=probe, to_inputs=by_name, batch_size=4) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    np.testing.assert_array_equal(run["conv"].read(epoch=0), expected_of(model))
    assert run.samples["label"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    np.testing.assert_array_equal(run["conv"].display(3)[0, 0], np.round(LEFT[3, :, 0, 0].numpy() * 255))


def test_gradients_come_back_from_several_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Two()
    path, both = tmp_path / "run.zarr", ("activation", "gradient")
    recorder = fm.Recorder(model, path, probe=Pairs(), to_inputs=by_name, batch_size=7, record=both, dtype="float32")
    with recorder:
        recorder.snapshot(epoch=0, loss=lambda out, labels: (out[:, 0] * labels).sum())
    maps = model.conv(LEFT - 2 * RIGHT)
    loss = (model.fc(maps.mean((2, 3)))[:, 0] * (torch.arange(7) % 3)).sum()
    (gradient,) = torch.autograd.grad(loss, [maps])
    np.testing.assert_array_equal(fm.open_run(path)["conv"].gradient.read(epoch=0), gradient.numpy())


def test_a_change_of_the_second_input_is_noticed(tmp_path: Path) -> None:
    data = Pairs(RIGHT.clone())
    with (
        pytest.raises(fm.CaptureError, match="probe sample 5 is not what it was"),
        fm.Recorder(Two(), tmp_path / "run.zarr", probe=data, to_inputs=by_name) as recorder,
    ):
        recorder.snapshot(epoch=0)
        data.right[5, 0, 0, 0] += 1
        recorder.snapshot(epoch=1)


def test_of_a_mapping_the_model_is_given_what_it_takes_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Two()
    items = [{"left": LEFT[i], "right": RIGHT[i], "label": i % 2, "weight": torch.ones(1)} for i in range(7)]
    with fm.Recorder(model, tmp_path / "run.zarr", probe=items, batch_size=4) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    np.testing.assert_array_equal(run["conv"].read(epoch=0), expected_of(model))
    assert run.samples["label"].tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_estimates_and_replays_call_the_model_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Two()
    recorder = fm.Recorder(model, tmp_path / "other.zarr", probe=Pairs(), to_inputs=by_name, batch_size=4)
    assert recorder.estimate().layers["layer"].tolist() == ["conv", "fc"]
    states = {0: model.state_dict()}
    fm.replay(
        model, tmp_path / "run.zarr", checkpoints=states, probe=DataLoader(Pairs(), batch_size=4), to_inputs=by_name
    )
    np.testing.assert_array_equal(fm.open_run(tmp_path / "run.zarr")["conv"].read(epoch=0), expected_of(model))


@pytest.mark.parametrize("made", [None, LEFT, (LEFT, RIGHT), ((LEFT,), None), ((LEFT,), {1: RIGHT}), ((LEFT,), {}, 3)])
def test_what_is_not_args_and_kwargs_is_refused(made: object) -> None:
    with pytest.raises(TypeError, match=r"expected \(args, kwargs\)"):
        as_inputs(made)


def test_inputs_without_a_tensor_are_refused() -> None:
    with pytest.raises(TypeError, match="without a tensor"):
        as_inputs(((1, "two"), {}))


def test_only_what_has_a_row_for_each_sample_is_cut() -> None:
    inputs = ModelInputs((LEFT, [torch.ones(2, 2), 5]), {"mask": torch.arange(7), "scale": torch.tensor(2.0)})
    part = inputs.rows(slice(1, 4))
    assert [tuple(tensor.shape) for tensor in part.tensors()] == [(3, 3, 8, 8), (2, 2), (3,), ()]
    assert (len(inputs), len(part), part.args[1][1]) == (7, 3, 5)


def test_a_recorder_can_be_sent_to_another_process_before_it_is_entered(tmp_path: Path) -> None:
    recorder = pickle.loads(pickle.dumps(fm.Recorder(Two(), tmp_path / "run.zarr", probe=Pairs(), to_inputs=by_name)))
    with recorder:
        recorder.snapshot(epoch=0)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0]
