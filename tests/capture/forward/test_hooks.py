"""What modules may return, and how often they may fire; and the gradients that come back through what they returned."""

import copy
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.store import Run, verify
from tests.capture.live_reference import Reference
from tests.capture.small_net import Checkpointed

IMAGES = list(torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
BOTH = ("activation", "gradient")
cross_entropy = nn.functional.cross_entropy


class Odd(nn.Module):
    """Returns what it is told to; is told otherwise after some calls."""

    def __init__(self, first: Callable, later: Callable | None = None, *, after: int = 10**9) -> None:
        super().__init__()
        self.first, self.later, self.left = first, later, after

    def forward(self, x: torch.Tensor) -> object:
        self.left -= 1
        return self.first(x) if self.left >= 0 or self.later is None else self.later(x)


class Around(nn.Module):
    """Shows an input to a module as often as it is told to, and lets it pass."""

    def __init__(self, inner: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.inner, self.times = inner, times
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.times):
            self.inner(x)
        return self.conv(x)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: (x.shape, None), r"layer 'inner' \(Odd\) returned a tuple without tensors"),
        (lambda x: {"out": x > 0}, "returned a dict without tensors"),
        (lambda x: None, "returned a NoneType"),
        (lambda x: x.mean(), r"returned float32 of shape \(\) for a batch of 7"),
        (lambda x: x.flatten(), r"shape \(1344,\)"),
        (lambda x: x[..., None, None], r"shape \(7, 3, 8, 8, 1, 1\)"),
        (lambda x: torch.cat([x, x.mean(0, keepdim=True).expand_as(x)]), "returned 14 rows for 7 samples, and which"),
        (lambda x: torch.zeros(14, 3, 8, 8), "returned 14 rows for 7 samples, and which of them"),
        (lambda x: x.repeat(2, 1, 1, 1)[1:], r"shape \(13, 3, 8, 8\)"),
        (lambda x: x > 0, "returned bool"),
        (lambda x: x.long(), "returned int64"),
        (lambda x: x.to(torch.complex64), "returned complex64"),
    ],
)
def test_what_is_no_map_is_refused_on_entry(returned: Callable, message: str, tmp_path: Path) -> None:
    with pytest.raises(fm.CaptureError, match=message):
        fm.Recorder(Around(Odd(returned)), tmp_path / "run.zarr", probe=IMAGES, layers=["inner", "conv"]).__enter__()
    assert not (tmp_path / "run.zarr").exists()


def test_a_module_that_does_not_fire_is_refused_on_entry(tmp_path: Path, no_hooks_left: Callable) -> None:
    model = Around(nn.ReLU(), times=0)
    with no_hooks_left(model), pytest.raises(fm.CaptureError, match="layer 'inner' did not fire"):
        fm.Recorder(model, tmp_path / "run.zarr", probe=IMAGES, layers=["inner", "conv"]).__enter__()
    model.many = nn.ModuleList(nn.ReLU() for _ in range(9))
    with pytest.raises(fm.CaptureError, match=r"'inner'.*nor did many\.0, many\.1, many\.2 and others"):
        fm.Recorder(model, tmp_path / "run.zarr", probe=IMAGES, layers=["inner", "many.*", "conv"]).__enter__()


def test_a_module_that_fires_several_times_is_a_layer_per_call(take: Callable) -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(x - 0.5)
            x = self.pool(x)
            x = self.relu(x - 0.25)
            return self.pool(x)

    run = take(Growing(), IMAGES)
    assert run.layers == ["relu.call0", "pool.call0", "relu.call1", "pool.call1"]
    assert [run[name].shape[2:] for name in run.layers] == [(3, 8, 8), (3, 4, 4), (3, 4, 4), (3, 2, 2)]
    first = np.maximum(torch.stack(IMAGES).numpy() - np.float32(0.5), 0)
    np.testing.assert_array_equal(run["relu.call0"].read(epoch=0), first.astype(np.float16))


def test_a_shared_module_is_told_apart_by_call(take: Callable) -> None:
    relu = nn.ReLU(inplace=True)
    run = take(nn.Sequential(nn.Conv2d(3, 2, 1), relu, nn.Conv2d(2, 2, 1), relu), IMAGES)
    assert run.layers == ["0", "1.call0", "2", "1.call1"]
    assert run["0"].read(epoch=0).min() < 0


@pytest.mark.parametrize(
    ("times", "message"),
    [(2, r"layer 'inner' changed in epoch 1: call 2 .*no such call"), (0, "layer 'inner' did not fire for every")],
)
def test_another_number_of_calls_is_an_error(times: int, message: str, tmp_path: Path, no_hooks_left: Callable) -> None:
    model = Around(nn.ReLU())
    with fm.Recorder(model, tmp_path / "run.zarr", probe=IMAGES, batch_size=3) as recorder:
        recorder.snapshot(epoch=0)
        model.times = times
        with no_hooks_left(model), pytest.raises(fm.CaptureError, match=message):
            recorder.snapshot(epoch=1)
        model.times = 1
        recorder.snapshot(epoch=2)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 2]


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (lambda x: x[:, :, ::2], r"call 1 returned \(3, 3, 4, 8\), expected \(3, 3, 8, 8\)"),
        (lambda x: x[:1], r"returned \(1, 3, 8, 8\), expected \(3, 3, 8, 8\)"),
        (lambda x: (x,), r"layer 'inner\[0\]' changed in epoch 0"),
        (lambda x: [], "returned a list without tensors"),
    ],
)
def test_a_change_between_batches_is_an_error(later: Callable, message: str, tmp_path: Path) -> None:
    model = Around(Odd(lambda x: x * 1, later, after=1))  # one batch; what discovery counts is put back
    with (
        fm.Recorder(model, tmp_path / "run.zarr", probe=IMAGES, batch_size=3) as recorder,
        pytest.raises(fm.CaptureError, match=message),
    ):
        recorder.snapshot(epoch=0)
    assert len(fm.open_run(tmp_path / "run.zarr")) == 0


def test_tokens_and_vectors(take: Callable) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 5, 4, stride=4)
            self.norm = nn.LayerNorm(5)
            self.head = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    torch.manual_seed(0)
    model = Tokens().eval()
    run = take(model, IMAGES, batch_size=7)
    assert run["norm"].dimensions == ("snapshot", "sample", "token", "channel")
    assert run["norm"].shape == (1, 7, 4, 5)
    with torch.no_grad():
        tokens = model.norm(model.patches(torch.stack(IMAGES)).flatten(2).transpose(1, 2)).numpy()
    np.testing.assert_array_equal(run["norm"].read(epoch=0), tokens.astype(np.float16))
    np.testing.assert_allclose(run["norm"].statistics["mean"], tokens.astype(float).mean((0, 1)), atol=1e-12)
    np.testing.assert_allclose(run["norm"].statistics["std"], tokens.astype(float).std((0, 1)))
    assert run["head"].shape == (1, 7, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_models_of_other_precision(dtype: torch.dtype, take: Callable) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).to(dtype)
    run = take(model, [image.to(dtype) for image in IMAGES], batch_size=7)
    with torch.no_grad():
        exact = model[0](torch.stack(IMAGES).to(dtype)).double().numpy()
    np.testing.assert_array_equal(run["0"].read(epoch=0), exact.astype(np.float16))


def test_an_output_of_several_tensors_is_a_layer_per_tensor(take: Callable) -> None:
    class Heads(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"maps": x - 0.5, "deep": [x.mean((2, 3)), None], "count": torch.tensor(3), "shape": x.shape}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = Heads()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.heads(x)["maps"]

    run = take(Model(), IMAGES, batch_size=3)
    assert run.layers == ["heads[maps]", "heads[deep][0]"]
    images = torch.stack(IMAGES)
    np.testing.assert_array_equal(run["heads[maps]"].read(epoch=0), (images - 0.5).half().numpy())
    np.testing.assert_array_equal(run["heads[deep][0]"].read(epoch=0), images.mean((2, 3)).half().numpy())


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(10, 3, 12, 12, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(10) % 4


def live(model: nn.Module, path: Path, step: Callable[[slice], None], **options: object) -> Run:
    """Record an epoch of two batches of five."""
    with fm.BatchRecorder(model, path, **{"n_samples": 10, "record": BOTH, **options}) as recorder, recorder.epoch(0):
        for part in (slice(0, 5), slice(5, 10)):
            with recorder.batch(range(part.start, part.stop)):
                step(part)
    run = fm.open_run(path)
    assert verify(run) == []
    return run


def equal(run: Run, references: list[Reference]) -> None:
    for name in run.layers:
        gradients = [reference.gradient(name) for reference in references]
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), torch.cat(gradients).numpy(), name)


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.spare = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x).mean((2, 3))
        return self.head(x), self.spare(x)


@pytest.mark.slow
def test_a_layer_that_the_loss_does_not_depend_on_has_none(pictures: torch.Tensor, tmp_path: Path) -> None:
    net = Auxiliary()
    run = live(net, tmp_path / "live.zarr", lambda part: net(pictures[part])[0].sum().backward())
    assert np.isnan(run["spare"].gradient.read(epoch=0)).all()
    assert np.isfinite(run["head"].gradient.read(epoch=0)).all()
    assert run["spare"].gradient.statistics[["mean", "min"]].isna().all(axis=None)
    data = TensorDataset(pictures, torch.zeros(10))
    with fm.Recorder(net, tmp_path / "probe.zarr", probe=data, record=BOTH) as recorder:
        recorder.snapshot(epoch=0, loss=lambda outputs, _: outputs[0].sum())
    assert np.isnan(fm.open_run(tmp_path / "probe.zarr")["spare"].gradient.read(epoch=0)).all()


@pytest.mark.slow
def test_frozen_layers_have_none_until_they_are_thawed(
    net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    early = ["conv1", "bn1", "relu"]
    for name in early:
        getattr(net, name).requires_grad_(False)
    net.eval()
    with fm.BatchRecorder(net, tmp_path / "run.zarr", n_samples=10, record=BOTH) as recorder:
        for epoch in range(2):
            net.conv1.requires_grad_(epoch == 1)
            reference = Reference(net)
            cross_entropy(reference.model(pictures[:6]), labels[:6]).backward()
            with recorder.epoch(epoch), recorder.batch(range(6)):
                cross_entropy(net(pictures[:6]), labels[:6]).backward()
            with torch.no_grad():
                torch.optim.SGD(net.parameters(), lr=0.0).step()
    run = fm.open_run(tmp_path / "run.zarr")
    for name in early:
        assert np.isnan(run[name].gradient.read(epoch=0)).all()
        np.testing.assert_array_equal(run[name].gradient.read(epoch=1), reference.gradient(name).numpy())
        np.testing.assert_array_equal(run[name].read(epoch=0), run[name].read(epoch=1))
    assert np.isfinite(run["layer1"].gradient.read(epoch=0)).all()


def test_backward_after_the_block(net: nn.Module, pictures: torch.Tensor, tmp_path: Path) -> None:
    with fm.BatchRecorder(net, tmp_path / "run.zarr", n_samples=10, record=BOTH) as recorder, recorder.epoch(0):
        for _ in range(2):
            with pytest.raises(fm.CaptureError, match=r"call backward\(\) inside"), recorder.batch(range(4)):
                loss = net(pictures[:4]).sum()
            loss.backward()  # finds no hook
            with recorder.batch(range(4)):
                net(pictures[:4]).sum().backward()


def test_two_backward_passes(net: nn.Module, pictures: torch.Tensor, tmp_path: Path) -> None:
    with fm.BatchRecorder(net, tmp_path / "run.zarr", n_samples=10, record=BOTH) as recorder, recorder.epoch(0):
        with pytest.raises(fm.CaptureError, match="the sum of the losses"), recorder.batch(range(4)):
            loss = net(pictures[:4]).sum()
            loss.backward(retain_graph=True)
            loss.backward()
        with recorder.batch(range(4)):
            net(pictures[:4]).sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_recomputes_is_not_recorded_twice(
    reentrant: bool, net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    net.eval()
    layers = ["net.conv1", "net.layer1.?", "net.layer1.?.conv", "net.fc"]
    if reentrant:
        layers.remove("net.layer1.?.conv")  # they fire twice
    plain = copy.deepcopy(net)
    model = Checkpointed(net, reentrant=reentrant)
    references = []

    def step(part: slice) -> None:
        reference = Reference(plain)
        cross_entropy(reference.model(pictures[part]), labels[part]).backward()
        references.append(reference)
        cross_entropy(model(pictures[part]), labels[part]).backward()

    run = live(model, tmp_path / "run.zarr", step, layers=layers)
    assert len(run.layers) == (4 if reentrant else 8)
    for name in run.layers:
        inner = name.removeprefix("net.")
        activations = torch.cat([r.activation(inner) for r in references])
        gradients = torch.cat([r.gradient(inner) for r in references])
        np.testing.assert_array_equal(run[name].read(epoch=0), activations.half().numpy(), name)
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), gradients.numpy(), name)
    if reentrant:
        with pytest.raises(fm.CaptureError, match="use_reentrant=False"):
            live(model, tmp_path / "other.zarr", step, layers=["net.layer1.?.conv"])


def test_reduced_like_the_activations(net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path) -> None:
    references = []
    net.eval()
    plain = copy.deepcopy(net)

    def step(part: slice) -> None:
        reference = Reference(plain)
        cross_entropy(reference.model(pictures[part]), labels[part]).backward()
        references.append(reference)
        cross_entropy(net(pictures[part]), labels[part]).backward()

    run = live(
        net,
        tmp_path / "run.zarr",
        step,
        layers=["conv1", "fc"],
        channels={"conv1": [4, 1]},
        crop={"conv1": (slice(1, 6), slice(0, 6))},
        max_size=2,
        dtype={"fc": "float32"},
    )
    full = torch.cat([reference.gradient("conv1") for reference in references])
    pooled = nn.functional.adaptive_avg_pool2d(full[:, [4, 1], 1:6, 0:6], 2)
    np.testing.assert_array_equal(run["conv1"].gradient.read(epoch=0), pooled.numpy())
    assert run["conv1"].gradient.channels.tolist() == [4, 1]
    whole = full[:, [4, 1]].double().movedim(1, 0).flatten(1).numpy()
    np.testing.assert_allclose(run["conv1"].gradient.statistics["mean"], whole.mean(1), rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(run["conv1"].gradient.statistics["max"], whole.max(1))
    exact = torch.cat([reference.activation("fc") for reference in references])
    np.testing.assert_array_equal(run["fc"].read(epoch=0), exact.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("order", ["each after its pass", "last first", "first first", "of the sum"])
def test_parts_of_a_batch_under_checkpoints(
    order: str, net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    """With re-entrant ones, nothing tells which part is being computed once more: an error, never another's rows."""
    net.eval()
    plain = copy.deepcopy(net)
    references: dict[int, Reference] = {}

    def step(part: slice) -> None:
        losses = []
        for piece in (slice(part.start, part.start + 2), slice(part.start + 2, part.stop)):
            reference = references[piece.start] = Reference(plain)
            reference_loss = cross_entropy(reference.model(pictures[piece]), labels[piece])
            reference_loss.backward()
            losses.append(cross_entropy(model(pictures[piece]), labels[piece]))
            if order == "each after its pass":
                losses.pop().backward()
        if order == "of the sum":
            sum(losses).backward()
        for loss in (losses[::-1] if order == "last first" else losses) if order != "of the sum" else ():
            loss.backward()

    for reentrant in (False, True):
        path, layers = tmp_path / f"{reentrant}.zarr", ["net.conv1", "net.layer1.1", "net.fc"]
        model = Checkpointed(copy.deepcopy(net), reentrant=reentrant)
        if reentrant and order != "each after its pass":
            with pytest.raises(fm.CaptureError, match=r"'net\.layer1\.1' fired 2 times .* use_reentrant=False"):
                live(model, path, step, layers=layers)
            continue
        run = live(model, path, step, layers=layers)
        for name in layers:
            gradients = [references[at].gradient(name.removeprefix("net.")) for at in sorted(references)]
            np.testing.assert_array_equal(run[name].gradient.read(epoch=0), torch.cat(gradients).numpy(), name)


class Viewing(nn.Module):
    """Returns a view of another module's output, as patch embeddings do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2)


class Embedded(nn.Module):
    def __init__(self, change: str) -> None:
        super().__init__()
        self.conv, self.view, self.norm, self.change = nn.Conv2d(3, 4, 3), Viewing(), nn.LayerNorm(4), change
        self.kept: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.conv(x)
        tokens = self.view(maps)
        if self.change == "kept":
            maps.retain_grad()
            tokens.retain_grad()
            self.kept = {"conv": maps, "view": tokens}
        if self.change == "itself":
            tokens += 1
        elif self.change == "what it is of":
            maps.mul_(2)
        elif self.change == "after some use":
            return self.norm(tokens * 2) + self.norm(tokens.add_(1))
        return self.norm(tokens)


class TestOfAView:
    """Where the tensor behind it is changed in place, torch forgets the hooks of its views."""

    def take(self, model: nn.Module, pictures: torch.Tensor, path: Path, *, probe: bool, layers: list[str]) -> Run:
        if not probe:
            return live(model, path, lambda part: model(pictures[part]).pow(3).sum().backward(), layers=layers)
        data = TensorDataset(pictures, torch.zeros(10))
        with fm.Recorder(model, path, probe=data, record=BOTH, batch_size=5, layers=layers) as recorder:
            recorder.snapshot(epoch=0, loss=lambda outputs, _: outputs.pow(3).sum())
        return fm.open_run(path)

    @pytest.mark.parametrize("probe", [False, True])
    def test_is_what_it_is(self, probe: bool, pictures: torch.Tensor, tmp_path: Path) -> None:
        model = Embedded("")
        run = self.take(model, pictures, tmp_path / "run.zarr", probe=probe, layers=["conv", "view"])
        model.change = "kept"
        for part in (slice(0, 5), slice(5, 10)):
            model(pictures[part]).pow(3).sum().backward()
            for name, tensor in model.kept.items():
                np.testing.assert_array_equal(run[name].gradient.read(epoch=0)[part], tensor.grad.numpy(), name)

    @pytest.mark.parametrize("probe", [False, True])
    @pytest.mark.parametrize("change", ["itself", "what it is of", "after some use"])
    def test_that_is_changed_in_place_cannot_be_seen(
        self, change: str, probe: bool, pictures: torch.Tensor, tmp_path: Path
    ) -> None:
        model = Embedded(change)
        with pytest.raises(fm.CaptureError, match=r"layer 'view' returned a view .* changed in place"):
            self.take(model, pictures, tmp_path / "run.zarr", probe=probe, layers=["conv", "view"])
        run = self.take(model, pictures, tmp_path / "other.zarr", probe=probe, layers=["conv", "norm"])
        assert np.abs(run["conv"].gradient.read(epoch=0)).max() > 0

    def test_of_a_parameter_which_the_optimizer_then_changes(self, pictures: torch.Tensor, tmp_path: Path) -> None:
        class Table(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.rand(3, 12, 12))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.weight.expand(len(x), -1, -1, -1)

        class Placed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = Table()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * self.table(x)

        model = Placed()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step(part: slice) -> None:
            model(pictures[part]).sum().backward()
            optimizer.step()

        run = live(model, tmp_path / "run.zarr", step, dtype="float32")
        np.testing.assert_array_equal(run["table"].gradient.read(epoch=0), pictures.numpy())

    def test_is_not_held_for_longer_than_its_gradient_takes(self, pictures: torch.Tensor, tmp_path: Path) -> None:
        storages = []

        class Watched(Viewing):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                storages.append(weakref.ref(x.untyped_storage()))
                return super().forward(x)

        model = Embedded("")
        model.view = Watched()

        def step(part: slice) -> None:
            model(pictures[part]).sum().backward()
            assert storages[-1]() is None

        live(model, tmp_path / "run.zarr", step, layers=["view"])
        assert len(storages) == 2


def test_a_gradient_that_comes_back_in_a_later_batch(net: nn.Module, pictures: torch.Tensor, tmp_path: Path) -> None:
    net.eval()
    with (
        fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["fc"], n_samples=10, record=BOTH) as recorder,
        recorder.epoch(0),
    ):
        with pytest.raises(fm.CaptureError, match=r"call backward\(\) inside"), recorder.batch(range(4)):
            late = net(pictures[:4]).sum()
        with recorder.batch(range(4, 8)):
            (net(pictures[4:8]).sum() * 3 + late).backward()
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.sample_ids(0).tolist() == [4, 5, 6, 7]
    assert (run["fc"].gradient.read(epoch=0) == 3).all()


def test_a_penalty_on_gradients_is_a_second_pass(net: nn.Module, pictures: torch.Tensor, tmp_path: Path) -> None:
    with (
        fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["fc"], n_samples=4, record=BOTH) as recorder,
        recorder.epoch(0),
    ):
        with pytest.raises(fm.CaptureError, match="a second gradient came back"), recorder.batch(range(4)):
            shown = pictures[:4].clone().requires_grad_()
            loss = net(shown).square().sum()
            (slope,) = torch.autograd.grad(loss, shown, create_graph=True)
            (loss + slope.square().sum()).backward()
        with recorder.batch(range(4)):
            net(pictures[:4]).sum().backward()
    assert (fm.open_run(tmp_path / "run.zarr")["fc"].gradient.read(epoch=0) == 1).all()


class Stopped(nn.Module):
    """Its first half has no gradients: a frozen backbone, or one that shall not learn from this head."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.head, self.last, self.how = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), nn.Linear(3, 2), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(self.how != "no_grad" and torch.is_grad_enabled()):
            maps = self.body(x)
        vectors = self.head((maps.detach() if self.how != "no_grad" else maps).mean((2, 3)))
        if self.how == "beside":
            vectors = vectors + maps.mean((2, 3))[:, :3]
        return self.last(vectors)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no_grad", "detach", "beside"])
def test_behind_a_part_without_gradients_there_are_some(how: str, pictures: torch.Tensor, tmp_path: Path) -> None:
    """Of a probe too, where no way leads from the loss to the images, or not every one."""
    model, data = Stopped(how), TensorDataset(pictures, torch.zeros(10))
    live_run = live(model, tmp_path / "live.zarr", lambda part: model(pictures[part]).square().sum().backward())
    with fm.Recorder(model, tmp_path / "probe.zarr", probe=data, record=BOTH, batch_size=5) as recorder:
        recorder.snapshot(epoch=0, loss=lambda outputs, _: outputs.square().sum())
    probe_run = fm.open_run(tmp_path / "probe.zarr")
    for name in ("head", "last"):
        expected = live_run[name].gradient.read(epoch=0)
        assert np.abs(expected).max() > 0
        np.testing.assert_array_equal(probe_run[name].gradient.read(epoch=0), expected)
        told, other = (run[name].gradient.statistics["mean"] for run in (probe_run, live_run))
        np.testing.assert_array_equal(told, other)
    assert np.isnan(probe_run["body"].gradient.read(epoch=0)).all() == (how != "beside")
