"""Wrappers, precisions, layouts and devices: what is recorded under them is what hooks that clone see.

Each on a CPU as far as it is there, and on a CUDA device (`make gpu`).
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import fmcluster as fm
from fmcluster.capture.options._options import Reduction
from fmcluster.capture.transfer import Copier
from fmcluster.store import Run
from tests.capture.live_reference import Reference

LAYERS = "leaves"
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, on_cuda])]


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """The same algorithms for the reference and for what is recorded."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(8) % 4


def record_batch(model: nn.Module, path: Path, step: Callable[[], torch.Tensor], **options: Any) -> Run:
    """Record one batch of training, with gradients."""
    known = {"n_samples": 8, "layers": LAYERS, "record": ("activation", "gradient"), **options}
    with (
        fm.BatchRecorder(model, path, **known) as recorder,
        recorder.epoch(0),
        recorder.batch(range(8)),
    ):
        step().backward()
    return fm.open_run(path)


def check_batch(run: Run, reference: Reference) -> None:
    """Compare a batch with what modules that return clones had."""
    assert run.layers
    for name in run.layers:
        activation, gradient = reference.activation(name).float(), reference.gradient(name)
        np.testing.assert_array_equal(run[name].read(epoch=0), activation.half().cpu().numpy(), err_msg=name)
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), gradient.float().cpu().numpy(), err_msg=name)


def check_probe(run: Run, expected: dict[str, np.ndarray]) -> None:
    """Compare a snapshot with what hooks that clone saw."""
    assert run.layers
    for name in run.layers:
        np.testing.assert_array_equal(run[name].read(epoch=0), expected[name].astype(np.float16), err_msg=name)


def on(device: str, data: list) -> list:
    return [(image.to(device), label) for image, label in data]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_autocast(
    device: str, net: nn.Module, images: torch.Tensor, labels: torch.Tensor, data: list, tmp_path: Path,
    take: Callable, cloned: Callable,
) -> None:  # fmt: skip
    """A batch is recorded as autocast computes it, a probe as if there were none."""
    net.to(device).eval()
    images, labels = images.to(device), labels.to(device)
    expected = cloned(net, on(device, data))
    reference = Reference(net)
    with torch.autocast(device, torch.bfloat16):
        cross_entropy(reference.model(images), labels).backward()
        assert reference.activation("conv1").dtype == torch.bfloat16
        check_batch(record_batch(net, tmp_path / "live.zarr", lambda: cross_entropy(net(images), labels)), reference)
        check_probe(take(net, data, layers=LAYERS), expected)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_channels_last(
    device: str, net: nn.Module, images: torch.Tensor, labels: torch.Tensor, data: list, tmp_path: Path,
    take: Callable, cloned: Callable,
) -> None:  # fmt: skip
    net.to(device, memory_format=torch.channels_last).eval()
    images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)
    reference = Reference(net)
    cross_entropy(reference.model(images), labels).backward()
    assert reference.activation("conv1").is_contiguous(memory_format=torch.channels_last)
    check_batch(record_batch(net, tmp_path / "live.zarr", lambda: cross_entropy(net(images), labels)), reference)
    check_probe(take(net, data, layers=LAYERS), cloned(net, on(device, data)))


BACKENDS = [
    ("cpu", {"backend": "eager"}),
    pytest.param("cpu", {"backend": "aot_eager"}, marks=pytest.mark.slow),
    pytest.param("cuda", {"backend": "inductor"}, marks=[pytest.mark.gpu, on_cuda]),
    pytest.param("cuda", {"mode": "reduce-overhead"}, marks=[pytest.mark.gpu, on_cuda]),  # with CUDA graphs
]


@pytest.mark.slow
@pytest.mark.parametrize(("device", "options"), BACKENDS, ids=str)
def test_torch_compile(
    device: str, options: dict, net: nn.Module, images: torch.Tensor, labels: torch.Tensor, data: list,
    tmp_path: Path, take: Callable, cloned: Callable,
) -> None:  # fmt: skip
    """What is recorded is eager's, and what the compiled model returns afterwards is what it returned before."""
    net.to(device).eval()
    images, labels = images.to(device), labels.to(device)
    reference = Reference(net)
    cross_entropy(reference.model(images), labels).backward()
    expected = cloned(net, on(device, data))
    torch._dynamo.reset()
    model = torch.compile(net, **options)
    with torch.no_grad():
        before = [model(images).clone() for _ in range(3)][-1]
    check_batch(record_batch(model, tmp_path / "live.zarr", lambda: cross_entropy(model(images), labels)), reference)
    check_probe(take(model, data, layers=LAYERS), expected)
    with torch.no_grad():
        after = model(images).clone()
    assert torch.equal(after, before)


def graphed_as_torch_does(module: nn.Module, replay: Callable) -> None:
    """Put a graph's forward method into a module, in the way of `torch.cuda.make_graphed_callables`."""

    def make(func: nn.Module, graph_training_state: bool, graphed: Callable, orig_fwd: Callable) -> Callable:
        def new_fwd(*arguments: Any) -> Any:
            return graphed(*arguments) if func.training == graph_training_state else orig_fwd(*arguments)

        new_fwd.__module__ = "torch.cuda.graphs"
        return new_fwd

    module.forward = make(module, module.training, replay, module.forward)


@pytest.mark.slow
def test_modules_that_were_made_graphs_run_as_they_were_written(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, data: list, tmp_path: Path, take: Callable,
    cloned: Callable,
) -> None:  # fmt: skip
    """A graph calls none of the modules in it, so that their hooks would not fire."""
    net.eval()
    reference = Reference(net)
    cross_entropy(reference.model(images), labels).backward()
    expected, replayed = cloned(net, data), []
    plain = copy.deepcopy(net.layer1)
    graphed_as_torch_does(net.layer1, lambda x: replayed.append(1) or plain(x))
    forward = net.layer1.forward
    net(images)
    assert replayed == [1]
    check_batch(record_batch(net, tmp_path / "live.zarr", lambda: cross_entropy(net(images), labels)), reference)
    run = take(net, data, layers=LAYERS)
    assert "layer1.1.conv.call1" in run.layers
    check_probe(run, expected)
    assert replayed == [1]
    assert net.layer1.forward is forward
    net(images)
    assert replayed == [1, 1]


def test_a_snapshot_that_fails_leaves_graphs_as_they_were(net: nn.Module, data: list, tmp_path: Path) -> None:
    net.eval()
    graphed_as_torch_does(net.layer1, lambda x: x)
    forward = net.layer1.forward
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, layers=["layer1.0"]) as recorder:
        handle = net.layer1.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recorder.snapshot(epoch=0)
        handle.remove()
    assert net.layer1.forward is forward


@pytest.mark.gpu
@on_cuda
def test_cuda_graphs_of_modules(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, data: list, tmp_path: Path, take: Callable,
    cloned: Callable,
) -> None:  # fmt: skip
    net.cuda().eval()
    images, labels = images.cuda(), labels.cuda()
    reference = Reference(net)
    cross_entropy(reference.model(images), labels).backward()
    expected = cloned(net, on("cuda", data))
    sample = torch.rand(8, 6, 6, 6, device="cuda", requires_grad=True)
    torch.cuda.make_graphed_callables(net.layer1, (sample,))
    forward = net.layer1.forward
    with torch.no_grad():
        before = net(images).clone()
    check_batch(record_batch(net, tmp_path / "live.zarr", lambda: cross_entropy(net(images), labels)), reference)
    check_probe(take(net, data, layers=LAYERS), expected)
    assert net.layer1.forward is forward
    with torch.no_grad():
        assert torch.equal(net(images), before)


@pytest.mark.gpu
@on_cuda
def test_a_forward_pass_that_is_captured_into_a_graph_is_refused() -> None:
    copier = Copier(max_bytes=1 << 20, clips=False, threads=1)
    output, graph = torch.ones(2, 3, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), pytest.raises(fm.CaptureError, match="captured into a CUDA graph"):
        copier.copy(output + 1, Reduction("float16"))
    copy_ = copier.copy(output, Reduction("float16"))
    assert (copy_.result()[0] == 1).all()
    copy_.release()
    copier.close()


def test_capturing_is_asked_for_before_anything_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device, with an output that says it is there."""

    class There(torch.Tensor):
        @property
        def device(self) -> torch.device:
            return torch.device("cuda")

        def detach(self) -> "There":
            return self

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_more: nullcontext())
    copier = Copier(max_bytes=100, clips=False, threads=1)
    with pytest.raises(fm.CaptureError, match="captured into a CUDA graph"):
        copier.copy(torch.ones(2, 3).as_subclass(There), Reduction("float16"))
    copier.close()


class OnTwo(nn.Module):
    """One half on one device, the other on another."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3).to(first)
        self.two = nn.Conv2d(4, 5, 3).to(second)
        self.second = second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x.to(self.one.weight.device)).to(self.second))


two_cards = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize(
    ("first", "second"),
    [("cuda:0", "cpu"), ("cpu", "cuda:0"), pytest.param("cuda:0", "cuda:1", marks=two_cards),
     pytest.param("cuda:1", "cuda:0", marks=two_cards), pytest.param("cuda:1", "cuda:1", marks=two_cards)],
)  # fmt: skip
def test_several_devices(first: str, second: str, images: torch.Tensor, tmp_path: Path, take: Callable) -> None:
    """Each layer is copied from its own device, on a stream of that device."""
    model = OnTwo(first, second)
    reference = Reference(model)
    reference.model(images).square().sum().backward()
    check_batch(record_batch(model, tmp_path / "live.zarr", lambda: model(images).square().sum()), reference)
    run = take(model, [(image, 0) for image in images], batch_size=8)
    check_probe(run, {name: reference.activation(name).cpu().numpy() for name in ("one", "two")})
