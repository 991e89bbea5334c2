"""The model under its wrappers; and batches of models that are wrapped, set or built otherwise."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.vision_transformer import VisionTransformer

import fmcluster as fm
from fmcluster.capture.forward._plain_model import device_of, plain_model
from fmcluster.store import Run, verify
from tests.capture.live_reference import Reference

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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(8) % 4


def record(model: Any, path: Path, step: Callable[[], torch.Tensor], **options: Any) -> Run:
    with (
        fm.BatchRecorder(model, path, **{"n_samples": 8, "record": BOTH, **options}) as recorder,
        recorder.epoch(0),
        recorder.batch(range(8)),
    ):
        step().backward()
    run = fm.open_run(path)
    assert verify(run) == []
    return run


def check(run: Run, reference: Reference) -> None:
    for name in run.layers:
        np.testing.assert_array_equal(
            run[name].read(epoch=0), reference.activation(name).float().half().numpy(), err_msg=name
        )
        np.testing.assert_array_equal(
            run[name].gradient.read(epoch=0), reference.gradient(name).float().numpy(), err_msg=name
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap", ["none", "bfloat16", "float16", "channels_last", "parallel", "compile", "model.compile"]
)
def test_wrappers(
    wrap: str, process_group: None, net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    net.eval()
    plain, model, around = copy.deepcopy(net), net, nullcontext()
    if wrap in ("bfloat16", "float16"):
        around = torch.autocast("cpu", dtype=getattr(torch, wrap))
    elif wrap == "channels_last":
        pictures = pictures.to(memory_format=torch.channels_last)
        plain, model = (m.to(memory_format=torch.channels_last) for m in (plain, net))
    elif wrap == "parallel":
        model = DistributedDataParallel(net)
    elif wrap == "compile":
        model = torch.compile(net, backend="eager")
        model(pictures)  # compiled before any hook exists
    elif wrap == "model.compile":
        net.compile(backend="eager")
        net(pictures)
    reference = Reference(plain)
    with around:
        cross_entropy(reference.model(pictures), labels).backward()
        run = record(model, tmp_path / "run.zarr", lambda: cross_entropy(model(pictures), labels), layers="leaves")
    assert len(run.layers) == 18
    check(run, reference)


@pytest.mark.slow
def test_a_compiled_model_is_compiled_again_outside_the_block(
    net: nn.Module, pictures: torch.Tensor, tmp_path: Path
) -> None:
    ran = []

    def backend(graph: torch.fx.GraphModule, _example: list) -> Callable:
        def run(*arguments: Any) -> Any:
            ran.append(1)
            return graph.forward(*arguments)

        return run

    net.eval()
    model = torch.compile(net, backend=backend)
    model(pictures)
    before = len(ran)
    record(model, tmp_path / "run.zarr", lambda: model(pictures).sum(), layers=["conv1"])
    assert len(ran) == before  # eager inside
    model(pictures)
    assert len(ran) > before


@pytest.mark.slow
def test_a_vision_transformer(pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(
        image_size=12, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=4
    )
    nn.init.normal_(vit.heads.head.weight)  # zero as it comes
    vit.eval()
    reference = Reference(vit)
    cross_entropy(reference.model(pictures), labels).backward()
    layers = ["conv_proj", "encoder.layers.*", "encoder.layers.*.mlp", "encoder.ln", "heads"]
    run = record(vit, tmp_path / "run.zarr", lambda: cross_entropy(vit(pictures), labels), layers=layers)
    check(run, reference)
    layer = run["encoder.layers.encoder_layer_1"]
    assert layer.dimensions == ("snapshot", "sample", "token", "channel")
    assert layer.shape == (1, 8, 10, 8)
    assert len(layer.statistics) == 8
    assert layer.vectors("sample").shape == (8, 80)
    assert set(run.to_xarray()["layers/encoder.ln/activation"].dims) == {"snapshot", "sample", "token", "channel"}


class Detector(nn.Module):
    """Returns what detection backbones and language models return."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.stem = Pyramid(), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(self.stem(x))
        return torch.cat([maps["fine"].mean((2, 3)), maps["more"][0].mean((2, 3))], 1)


class Pyramid(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        fine = x * 2
        return OrderedDict(fine=fine, more=(nn.functional.avg_pool2d(x, 2), None), count=torch.tensor(3))


def test_a_layer_per_tensor(pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path) -> None:
    model = Detector()
    run = record(model, tmp_path / "run.zarr", lambda: cross_entropy(model(pictures), labels))
    assert sorted(run.layers) == ["backbone[fine]", "backbone[more][0]", "stem"]
    stem = model.stem(pictures).detach()
    np.testing.assert_array_equal(run["backbone[fine]"].read(epoch=0), (stem * 2).half().numpy())
    np.testing.assert_array_equal(
        run["backbone[more][0]"].read(epoch=0), nn.functional.avg_pool2d(stem, 2).half().numpy()
    )
    shape = run["backbone[fine]"].gradient.read(epoch=0).shape
    assert shape == (8, 4, 12, 12)
    assert np.abs(run["backbone[more][0]"].gradient.read(epoch=0)).max() > 0


class Split(nn.Module):
    """The first half on one device, the second on another."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3).to(first)
        self.two = nn.Linear(400, 4).to(second)
        self.second = second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x.to(self.one.weight.device)).flatten(1).to(self.second))


@pytest.mark.gpu
@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_a_model_on_two_devices(first: str, second: str, pictures: torch.Tensor, tmp_path: Path) -> None:
    model = Split(first, second)
    reference = Reference(model)
    reference.model(pictures).square().sum().backward()
    run = record(model, tmp_path / "live.zarr", lambda: model(pictures).square().sum())
    for name in ("one", "two"):
        np.testing.assert_array_equal(run[name].read(epoch=0), reference.activation(name).half().cpu().numpy())
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), reference.gradient(name).cpu().numpy())
    with fm.Recorder(model, tmp_path / "probe.zarr", probe=[(picture, 0) for picture in pictures]) as recorder:
        recorder.snapshot(epoch=0)
    probe = fm.open_run(tmp_path / "probe.zarr")
    np.testing.assert_array_equal(probe["two"].read(epoch=0), run["two"].read(epoch=0))


@pytest.mark.gpu
def test_training_on_a_gpu(net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path) -> None:
    torch.backends.cudnn.deterministic = True
    net.cuda()
    reference = Reference(net)
    state = torch.cuda.get_rng_state()
    cross_entropy(reference.model(pictures.cuda()), labels.cuda()).backward()
    torch.cuda.set_rng_state(state)
    run = record(
        net,
        tmp_path / "run.zarr",
        lambda: cross_entropy(net(pictures.cuda()), labels.cuda()),
        layers="leaves",
        max_pending_bytes=1 << 16,
    )
    for name in run.layers:
        np.testing.assert_array_equal(run[name].read(epoch=0), reference.activation(name).half().cpu().numpy())
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), reference.gradient(name).cpu().numpy())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_models_whose_modules_cannot_be_hooked_or_have_no_values_are_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    for scripted in (torch.jit.trace(net, torch.rand(1, 3)), nn.Sequential(torch.jit.trace(net, torch.rand(1, 3)))):
        with pytest.raises(TypeError, match=r"TorchScript .*, whose modules cannot be hooked; pass the module"):
            plain_model(scripted)
    with pytest.raises(ValueError, match="on the device 'meta', without values; load its weights"):
        plain_model(nn.Linear(3, 2, device="meta"))
    with FakeTensorMode():
        fake = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="fake tensors, without values; make it outside of FakeTensorMode"):
        plain_model(fake)


@pytest.mark.slow
def test_what_torch_export_makes_is_refused_and_its_unflattened_form_recorded(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    rows = torch.rand(5, 3)
    program = torch.export.export(net, (rows,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    with pytest.raises(TypeError, match=r"is an ExportedProgram of torch.export; pass the module"):
        plain_model(program)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"the graph of a torch.export program, which calls operations"):
        plain_model(program.module())
    assert plain_model(traced := torch.fx.symbolic_trace(net)) is traced
    with fm.Recorder(
        torch.export.unflatten(program), tmp_path / "run.zarr", probe=[(row, 0) for row in rows]
    ) as recorder:
        recorder.snapshot(epoch=0)
    with torch.no_grad():
        expected = net(rows).half().numpy()
    np.testing.assert_array_equal(fm.open_run(tmp_path / "run.zarr")["2"].read(epoch=0), expected)
