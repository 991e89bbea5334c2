"""The model under its wrappers."""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import fmcluster as fm
from fmcluster.capture._plain_model import device_of, plain_model
from fmcluster.store import Run

BOTH = ("activation", "gradient")


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("torch was built without gloo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_data_parallel_is_refused(net: nn.Module, data: list, tmp_path: Path) -> None:
    for model in (nn.DataParallel(net), torch.compile(nn.DataParallel(net), backend="eager")):
        with pytest.raises(ValueError, match=r"pass model\.module"):
            fm.Recorder(model, tmp_path / "run.zarr", probe=data)


def test_what_is_no_module_is_refused(data: list, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"model is a function; expected a torch\.nn\.Module"):
        fm.Recorder(lambda x: x, tmp_path / "run.zarr", probe=data)


def test_distributed_and_compiled_in_any_order(
    process_group: None, net: nn.Module, data: list, take: Callable, cloned: Callable
) -> None:
    expected = cloned(net, data)["bn1"].astype(np.float16)
    parallel = DistributedDataParallel(net)
    for number, model in enumerate(
        (
            parallel,
            torch.compile(parallel, backend="eager"),
            DistributedDataParallel(torch.compile(net, backend="eager")),
        )
    ):
        assert plain_model(model) is net
        run = take(model, data, name=f"{number}.zarr", layers=["conv1", "bn1", "layer1.0"])
        np.testing.assert_array_equal(run["bn1"].read(epoch=0), expected)


def test_the_device_is_that_of_the_parameters() -> None:
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(nn.BatchNorm2d(2, affine=False)) == torch.device("cpu")
    assert device_of(nn.ReLU()) == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_a_gpu(net: nn.Module, data: list, take: Callable, cloned: Callable) -> None:
    net.cuda()
    expected = cloned(net, [(image.cuda(), label) for image, label in data])
    before = torch.cuda.get_rng_state()
    run = take(net, data, layers="leaves")
    assert torch.equal(torch.cuda.get_rng_state(), before)
    for name in run.layers:
        np.testing.assert_array_equal(run[name].read(epoch=0), expected[name].astype(np.float16))


def probed(model: nn.Module, path: Path, data: list, **options: Any) -> Run:
    """Record a snapshot with gradients."""
    with fm.Recorder(model, path, probe=data, record=BOTH, batch_size=5, **options) as recorder:
        recorder.snapshot(epoch=0, loss=cross_entropy)
    return fm.open_run(path)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch looks at it when it compiles a layer
@pytest.mark.parametrize(
    "wrap", ["parallel", "compile", "model.compile", "parallel compile", "autocast", "channels_last", "compiled layer"]
)
def test_gradients_of_a_probe_are_those_of_the_plain_model(
    wrap: str, process_group: None, net: nn.Module, data: list, tmp_path: Path
) -> None:
    if wrap == "channels_last":
        net.to(memory_format=torch.channels_last)
    twin, before = copy.deepcopy(net), copy.deepcopy(net.state_dict())
    model: Any = net
    if wrap == "compiled layer":
        net.layer1[0].compile(backend="eager")
    if wrap == "model.compile":
        net.compile(backend="eager")
    if wrap.startswith("parallel"):
        model = DistributedDataParallel(model)
    if wrap in ("compile", "parallel compile"):
        model = torch.compile(model, backend="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16) if wrap == "autocast" else nullcontext():
        model(torch.stack([image for image, _ in data]))  # is compiled before any hook exists
        net.load_state_dict(before)
        run = probed(model, tmp_path / "run.zarr", data, layers="leaves")
        plain = probed(twin, tmp_path / "plain.zarr", data, layers="leaves")
    assert run.layers == plain.layers
    for name in run.layers:
        np.testing.assert_array_equal(run[name].read(epoch=0), plain[name].read(epoch=0), err_msg=name)
        expected = plain[name].gradient.read(epoch=0)
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), expected, err_msg=name)
        assert np.isfinite(expected).all()
