"""Gradients with respect to what the layers return: in training, and of a probe."""

import copy
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.store import Run, verify
from tests.capture.live_reference import Reference

BOTH = ("activation", "gradient")
cross_entropy = nn.functional.cross_entropy


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


class TestOfAProbe:
    """``snapshot(loss=...)``."""

    def take(self, net: nn.Module, data: object, path: Path, **options: object) -> Run:
        with fm.Recorder(net, path, probe=data, record=BOTH, batch_size=4, **options) as recorder:
            recorder.snapshot(epoch=0, loss=cross_entropy)
        return fm.open_run(path)

    def references(self, net: nn.Module, data: list) -> list[Reference]:
        out = []
        for at in range(0, len(data), 4):
            reference = Reference(net.eval())
            for parameter in reference.model.parameters():
                parameter.requires_grad_(True)
            images, labels = zip(*data[at : at + 4], strict=True)
            shown = torch.stack(images).requires_grad_()
            cross_entropy(reference.model(shown.clone()), torch.tensor(labels)).backward()
            out.append(reference)
        return out

    def test_is_that_of_clones(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        expected = self.references(copy.deepcopy(net), data)
        run = self.take(net, data, tmp_path / "run.zarr", layers=lambda *_: True)
        assert sum(".call" in name for name in run.layers) == 12
        equal(run, expected)
        assert run["conv1"].gradient.dtype == np.float32
        assert np.abs(run["conv1"].gradient.read(epoch=0)).max() > 0

    def test_leaves_no_trace(self, net: nn.Module, data: list, tmp_path: Path, no_hooks_left: Callable) -> None:
        net.fc.bias.requires_grad_(False)
        kept = torch.ones_like(net.conv1.weight)
        net.conv1.weight.grad = kept
        state = copy.deepcopy(net.state_dict())
        generator = torch.get_rng_state()
        with no_hooks_left(net):
            self.take(net, data, tmp_path / "run.zarr")
        assert net.conv1.weight.grad is kept
        assert torch.equal(kept, torch.ones_like(kept))
        assert all(p.grad is None for name, p in net.named_parameters() if name != "conv1.weight")
        assert [p.requires_grad for p in net.parameters()] == [name != "fc.bias" for name, _ in net.named_parameters()]
        assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
        assert torch.equal(torch.get_rng_state(), generator)
        assert net.training
        assert torch.is_grad_enabled()

    def test_frozen_layers_have_one_too(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        expected = self.references(copy.deepcopy(net), data)
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        equal(self.take(net, data, tmp_path / "run.zarr"), expected)

    def test_of_a_model_that_changes_its_input(self, data: list, tmp_path: Path) -> None:
        net = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 4))
        equal(self.take(net, data, tmp_path / "run.zarr"), self.references(net, data))

    def test_of_words(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        words = TensorDataset(torch.randint(0, 9, (6, 5)), torch.arange(6) % 2)
        net = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 3), nn.Flatten(), nn.Linear(15, 2))
        run = self.take(net, words, tmp_path / "run.zarr", layers=["0", "1"])
        assert run["0"].dimensions == ("snapshot", "sample", "token", "channel")
        reference = Reference(net.eval())
        first = words.tensors[0][:4], words.tensors[1][:4]
        cross_entropy(reference.model(first[0]), first[1]).backward()
        for name in ("0", "1"):
            np.testing.assert_array_equal(run[name].gradient.read(epoch=0)[:4], reference.gradient(name).numpy(), name)
        assert all(p.grad is None for p in net.parameters())

    def test_a_loss_and_gradients_need_one_another(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        for record, loss in ((BOTH, None), (("activation",), cross_entropy)):
            with (
                pytest.raises(ValueError, match="one of them is missing"),
                fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=record, mode="w") as recorder,
            ):
                recorder.snapshot(epoch=0, loss=loss)
        for record in ("gradient", ("gradient",), ("activation", "weight"), ()):
            with pytest.raises(ValueError, match="record is"):
                fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=record)

    @pytest.mark.parametrize(
        ("loss", "told"),
        [
            (lambda out, _: out, r"a tensor of shape \(4, 4\)"),
            (lambda *_: 3.0, "3.0"),
            (lambda *_: torch.zeros(()), r"a tensor of shape \(\)"),
        ],
    )
    def test_a_loss_that_is_none(self, loss: Callable, told: str, net: nn.Module, data: list, tmp_path: Path) -> None:
        with fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=BOTH, batch_size=4) as recorder:
            with pytest.raises(fm.CaptureError, match=f"loss returned {told}; expected a tensor of one number"):
                recorder.snapshot(epoch=0, loss=loss)
            recorder.snapshot(epoch=0, loss=cross_entropy)
        assert len(fm.open_run(tmp_path / "run.zarr")) == 1

    def test_replayed_from_a_checkpoint(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        run = self.take(net, data, tmp_path / "run.zarr")
        fm.replay(
            net,
            tmp_path / "again.zarr",
            checkpoints={0: copy.deepcopy(net.state_dict())},
            probe=data,
            batch_size=4,
            record=BOTH,
            loss=cross_entropy,
        )
        again = fm.open_run(tmp_path / "again.zarr")
        for name in run.layers:
            np.testing.assert_array_equal(run[name].gradient.read(epoch=0), again[name].gradient.read(epoch=0))


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.spare = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x).mean((2, 3))
        return self.head(x), self.spare(x)


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


class Checkpointed(nn.Module):
    def __init__(self, net: nn.Module, *, reentrant: bool) -> None:
        super().__init__()
        self.net, self.reentrant = net, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.net.relu(self.net.bn1(self.net.conv1(x)))
        for block in self.net.layer1:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.net.fc(self.net.pool(x).flatten(1))


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


@pytest.mark.parametrize("words", [False, True])
def test_no_hook_of_a_parameter_fires_in_a_snapshot(words: bool, tmp_path: Path) -> None:
    """One that clips, counts or steps would disturb the training."""
    net = nn.Sequential(nn.Embedding(9, 8) if words else nn.Linear(5, 8), nn.Flatten(), nn.LazyLinear(2))
    shown = torch.randint(0, 9, (6, 5)) if words else torch.rand(6, 5)
    net(shown)
    fired = []
    for parameter in net.parameters():
        parameter.register_hook(lambda _gradient: fired.append("gradient"))
        parameter.register_post_accumulate_grad_hook(lambda _parameter: fired.append("accumulated"))
    with fm.Recorder(
        net, tmp_path / "run.zarr", layers=["0"], probe=TensorDataset(shown, torch.zeros(6)), record=BOTH
    ) as recorder:
        recorder.snapshot(epoch=0, loss=lambda outputs, _: outputs.square().sum())
    assert fired == []
    assert np.abs(fm.open_run(tmp_path / "run.zarr")["0"].gradient.read(epoch=0)).max() > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_snapshot_within_an_evaluation(mode: Callable, net: nn.Module, data: list, tmp_path: Path) -> None:
    kept = {}
    for inside in (False, True):
        path = tmp_path / f"{inside}.zarr"
        with mode(inside) if mode is torch.inference_mode else torch.set_grad_enabled(not inside):
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            with fm.Recorder(net, path, probe=data, record=BOTH, batch_size=4) as recorder:
                recorder.snapshot(epoch=0, loss=cross_entropy)
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
        kept[inside] = fm.open_run(path)["conv1"].gradient.read(epoch=0)
    np.testing.assert_array_equal(kept[True], kept[False])
    assert np.abs(kept[True]).max() > 0


@pytest.mark.parametrize("fails", [False, True])
def test_no_hook_is_left_on_what_a_model_keeps_of_a_snapshot(fails: bool, data: list, tmp_path: Path) -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.maps = self.conv(x)
            return self.maps.mean((2, 3))

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if fails:
            raise KeyboardInterrupt
        return cross_entropy(outputs, labels)

    net = Keeping()
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=BOTH) as recorder:
        try:
            recorder.snapshot(epoch=0, loss=loss)
        except KeyboardInterrupt:
            assert fails
    assert net.maps.requires_grad
    assert not net.maps._backward_hooks


def test_a_snapshot_of_a_model_with_checkpoints(
    net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    data, layers = TensorDataset(pictures, labels), ["net.conv1", "net.layer1.?", "net.layer1.?.conv", "net.fc"]
    reference = Reference(net.eval())
    cross_entropy(reference.model(pictures), labels).backward()
    with fm.Recorder(
        Checkpointed(net, reentrant=False), tmp_path / "run.zarr", probe=data, record=BOTH, layers=layers
    ) as recorder:
        recorder.snapshot(epoch=0, loss=cross_entropy)
    run = fm.open_run(tmp_path / "run.zarr")
    assert len(run.layers) == 8
    for name in run.layers:
        inner = name.removeprefix("net.")
        np.testing.assert_array_equal(run[name].read(epoch=0), reference.activation(inner).half().numpy(), name)
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), reference.gradient(inner).numpy(), name)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_snapshot_with_a_loss_of_a_model_with_reentrant_checkpoints(
    net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    """Torch refuses to compute such gradients without those of the parameters, and says what to do."""
    model = Checkpointed(net, reentrant=True)
    data = TensorDataset(pictures, labels)
    with fm.Recorder(model, tmp_path / "run.zarr", probe=data, record=BOTH, layers=["net.conv1"]) as recorder:
        with pytest.raises(RuntimeError, match="set use_reentrant=False"):
            recorder.snapshot(epoch=0, loss=cross_entropy)
        model.reentrant = False
        recorder.snapshot(epoch=0, loss=cross_entropy)
    assert len(fm.open_run(tmp_path / "run.zarr")) == 1
    assert all(p.grad is None for p in net.parameters())


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
