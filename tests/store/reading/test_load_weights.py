"""Recorded weights are put into models: bit for bit, all or none."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fmcluster.store.reading._load_weights import put_into


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, dtype=dtype), nn.BatchNorm2d(4, dtype=dtype)
        self.register_buffer("mask", torch.tensor([True, False]), persistent=False)
        self.register_buffer("phase", torch.tensor([1 + 2j, 3j], dtype=torch.complex64))


def held(model: nn.Module) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    wide = {name: t.detach().float() if t.dtype == torch.bfloat16 else t.detach() for name, t in tensors.items()}
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    return {name: tensor.numpy().copy() for name, tensor in wide.items()}, dtypes


def bits(model: nn.Module) -> dict[str, bytes]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: t.detach().reshape(-1).view(torch.uint8).numpy().tobytes() for name, t in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_bit_for_bit(dtype: torch.dtype) -> None:
    source, target = Net(dtype), Net(dtype)
    with torch.no_grad():
        source.conv.bias[0], source.conv.bias[1] = float("nan"), float("inf")
        source.conv.bias.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize])[0] += 1  # NaN's payload
    source.bn.num_batches_tracked.fill_(7)
    target.requires_grad_(False)
    target.conv.weight.requires_grad_(True)
    target.conv.to(memory_format=torch.channels_last)
    pointer = target.conv.weight.data_ptr()
    values, dtypes = held(source)
    put_into(target, values, dtypes=dtypes, run="run")
    assert bits(target) == bits(source)
    assert target.conv.weight.data_ptr() == pointer
    assert [p.requires_grad for p in target.parameters()] == [True, False, False, False]


@pytest.mark.parametrize(
    ("recorded", "model", "fits"),
    [
        (torch.bfloat16, torch.float32, True),
        (torch.float16, torch.float32, True),
        (torch.float32, torch.float64, True),
        (torch.float32, torch.float16, False),
        (torch.float32, torch.bfloat16, False),
        (torch.float64, torch.float32, False),
        (torch.bfloat16, torch.float16, True),  # of small numbers
    ],
)
def test_another_dtype_has_to_hold_every_value(recorded: torch.dtype, model: torch.dtype, fits: bool) -> None:
    torch.manual_seed(0)
    source, target = Net(recorded), Net(model)
    if recorded == torch.bfloat16 and model == torch.float16:
        nn.init.constant_(source.conv.weight, 0.25)
        nn.init.constant_(source.conv.bias, -3)
    before = bits(target)
    values, dtypes = held(source)
    if fits:
        put_into(target, values, dtypes=dtypes, run="run")
        assert torch.equal(target.conv.weight.double(), source.conv.weight.double())
        assert target.conv.weight.dtype == model
    else:
        with pytest.raises(ValueError, match=r"'conv.weight' was recorded in .*, and does not fit the model's .*model"):
            put_into(target, values, dtypes=dtypes, run="run")
        assert bits(target) == before


@pytest.mark.parametrize("kind", ["complex", "fraction"])
def test_numbers_of_another_kind_are_refused(kind: str) -> None:
    target = Net()
    values, dtypes = held(target)
    name = "phase" if kind == "complex" else "bn.num_batches_tracked"
    if kind == "complex":
        target.phase = torch.zeros(2)
    else:
        values[name], dtypes[name] = np.array(0.5, np.float32), "float32"
    with pytest.raises(ValueError, match=f"{name!r} was recorded in"):
        put_into(target, values, dtypes=dtypes, run="run")


def test_the_first_that_differs_is_named_and_nothing_is_changed() -> None:
    source, target = Net(), Net()
    values, dtypes = held(source)
    before = bits(target)
    fewer = {name: value for name, value in values.items() if name != "bn.weight"}
    other = {**values, "conv.bias": np.zeros(5, np.float32)}
    renamed = {("stem.weight" if name == "conv.weight" else name): value for name, value in values.items()}
    for given, message in (
        (fewer, r"run holds the weights of another model: it has no 'bn.weight', which the model has .* \(4,\)"),
        (other, r"the model's 'conv.bias' has the shape \(4,\), and the run's \(5,\)"),
        (renamed, r"the model has no 'stem.weight', which the run holds with the shape \(4, 3, 3, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            put_into(target, given, dtypes=dict.fromkeys(given, "float32"), run="run")
        assert bits(target) == before
    with pytest.raises(TypeError, match="model is a dict"):
        put_into({}, values, dtypes=dtypes, run="run")


@pytest.mark.slow
def test_wrapped_models_are_looked_through() -> None:
    source = Net()
    values, dtypes = held(source)
    inner = Net()

    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    for wrapped in (torch.compile(inner), Wrapper(inner), torch.compile(Wrapper(inner))):
        nn.init.zeros_(inner.conv.weight)
        put_into(wrapped, values, dtypes=dtypes, run="run")
        assert bits(inner) == bits(source)


def test_the_only_such_part_of_a_larger_model_is_filled_and_of_two_none() -> None:
    values = {name: value.numpy().copy() + 1 for name, value in nn.Linear(3, 2).state_dict().items()}
    dtypes = dict.fromkeys(values, "float32")
    larger = nn.ModuleDict({"model": nn.Linear(3, 2), "criterion": nn.PReLU()})
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(3, 2))
    for model, part in ((larger, larger["model"]), (averaged, averaged.module)):
        put_into(model, values, dtypes=dtypes, run="run.zarr")
        for name, value in part.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), values[name])
    assert larger["criterion"].weight.item() == 0.25
    twins = nn.ModuleDict({"student": nn.Linear(3, 2), "teacher": nn.Linear(3, 2)})
    with pytest.raises(ValueError, match="the model has no 'weight'"):
        put_into(twins, values, dtypes=dtypes, run="run.zarr")


def test_a_tied_tensor_has_one_value() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    one = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    dtypes = {"0.weight": "float32", "1.weight": "float32"}
    put_into(model, {"0.weight": one, "1.weight": one.copy()}, dtypes=dtypes, run="run")
    np.testing.assert_array_equal(model[1].weight.detach(), one)
    with pytest.raises(ValueError, match=r"'0.weight' and '1.weight' are one tensor in the model, and two in the run"):
        put_into(model, {"0.weight": one, "1.weight": 2 * one}, dtypes=dtypes, run="run")


def test_what_is_loaded_is_a_copy() -> None:
    source, target = Net(), Net()
    values, dtypes = held(source)
    put_into(target, values, dtypes=dtypes, run="run")
    expected = copy.deepcopy(target.state_dict())
    for value in values.values():
        value.fill(0)
    assert all(torch.equal(expected[name], tensor) for name, tensor in target.state_dict().items())
