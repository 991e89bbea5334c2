"""Ablation: the model is left as it was, and every number is what it is said to be."""

import copy
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import fmcluster as fm
from fmcluster.decide import Change, Depth, Groups, KernelSize, Resolution, Rewind, Separable, Width
from fmcluster.decide._costs import Costs


class Zeroed:
    """Sets a layer's output to zero."""

    name = "zeroed"

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def changes(self, network, layers):
        yield Change(self.name, self.layer, 1.0, "zero", outputs={self.layer: lambda _, out: torch.zeros_like(out)})


class Nothing:
    """Changes nothing."""

    name = "nothing"

    def changes(self, network, layers):
        weights = {name: value.detach().clone() for name, value in network.model.named_parameters()}
        same = {"conv2": lambda _, out: out.clone()}
        yield Change(self.name, "all", 0.0, "nothing", weights=weights, outputs=same, saves=Costs(forward=1))


@pytest.mark.slow
def test_the_model_is_left_as_it_was_bit_for_bit(residual: nn.Module, probe: TensorDataset) -> None:
    residual.train()
    functional.cross_entropy(residual(probe.tensors[0]), probe.tensors[1]).backward()
    state, modes = copy.deepcopy(residual.state_dict()), [module.training for module in residual.modules()]
    gradients = [parameter.grad.clone() for parameter in residual.parameters()]
    identities = [id(parameter) for parameter in residual.parameters()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fm.ablate(residual, probe, n_null=1)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(state[name], value) for name, value in residual.state_dict().items())
    assert [module.training for module in residual.modules()] == modes
    assert all(torch.equal(a, b.grad) for a, b in zip(gradients, residual.parameters(), strict=True))
    assert [id(parameter) for parameter in residual.parameters()] == identities
    for module in residual.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


class Ageing(nn.Module):
    """Returns less after each forward pass, in evaluation mode too: it counts them in a buffer and in an attribute."""

    def __init__(self, *, ages: bool) -> None:
        super().__init__()
        self.ages, self.calls = ages, 0
        self.register_buffer("age", torch.zeros(1))
        self.register_buffer("last", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        older = 1 + self.age + self.calls + (0 if self.last is None else 1)
        if self.ages:
            self.age += 1
            self.calls += 1
            self.last = x.mean()
        return x / older


def test_each_forward_pass_starts_from_the_same_state(plain: nn.Module, probe: TensorDataset) -> None:
    questions = [Zeroed("0.conv2"), Width(shares=(0.5,)), KernelSize()]
    ageing, ageless = (nn.Sequential(copy.deepcopy(plain), Ageing(ages=ages)) for ages in (True, False))
    found, expected = (fm.ablate(each, probe, interventions=questions, batch_size=10) for each in (ageing, ageless))
    pd.testing.assert_frame_equal(found.frame, expected.frame, check_exact=True)
    assert (float(ageing[1].age), ageing[1].calls, ageing[1].last) == (0.0, 0, None)


@pytest.mark.parametrize("as_loader", [False, True])
def test_loss_accuracy_and_divergence_are_those_of_the_changed_network(
    as_loader: bool, plain: nn.Module, probe: TensorDataset
) -> None:
    images, labels = probe.tensors
    given = DataLoader(probe, batch_size=7) if as_loader else probe
    damage = fm.ablate(plain, given, interventions=[Zeroed("conv2")], batch_size=10)
    plain.eval()
    with torch.no_grad():
        before = plain(images).double()
        handle = plain.conv2.register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
        after = plain(images).double()
        handle.remove()
    p, q = before.log_softmax(1), after.log_softmax(1)
    (row,) = damage.frame.to_dict("records")
    for name, values in {
        "loss": functional.cross_entropy(after, labels, reduction="none")
        - functional.cross_entropy(before, labels, reduction="none"),
        "accuracy": (after.argmax(1) == labels).double() - (before.argmax(1) == labels).double(),
        "kl": (p.exp() * (p - q)).sum(1),
    }.items():
        assert row[name] == pytest.approx(float(values.mean()), rel=1e-5, abs=1e-6)
        assert row[f"{name}_se"] == pytest.approx(np.std(values.numpy(), ddof=1) / len(images) ** 0.5, rel=1e-4)
    assert damage.loss == pytest.approx(float(functional.cross_entropy(before, labels)), rel=1e-6)
    assert damage.accuracy == pytest.approx(float((before.argmax(1) == labels).double().mean()))
    assert damage.n_samples == 24


def test_no_change_does_nothing_and_neither_does_its_null(plain: nn.Module, probe: TensorDataset) -> None:
    (row,) = fm.ablate(plain, probe, interventions=[Nothing()]).frame.to_dict("records")
    for name in ("loss", "accuracy", "kl", "null_kl", "null_loss", "below_null"):
        assert row[name] == 0
        assert row[f"{name}_se"] == 0


def test_the_null_is_of_the_norm_of_the_change(plain: nn.Module, probe: TensorDataset) -> None:
    """Of a linear head, the null's scores differ from the true ones by as much as the change's: sample by sample."""
    seen: list[torch.Tensor] = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(output.detach().clone())
        return functional.cross_entropy(output, target)

    fm.ablate(plain, probe, loss=loss, interventions=[Zeroed("fc")], n_null=2)
    rows = torch.cat(seen).reshape(-1, 24, 4)
    before, changed, *nulls = rows[0], rows[2], rows[3], rows[4]
    for null in nulls:
        torch.testing.assert_close((null - before).norm(dim=1), (changed - before).norm(dim=1))
        assert not torch.allclose(null, changed)
    assert not torch.allclose(*nulls)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda output, target: functional.cross_entropy(output, target),
    ],
    ids=["module", "smoothed", "function"],
)
def test_a_loss_of_ones_own_is_taken_sample_by_sample(loss: Any, plain: nn.Module, probe: TensorDataset) -> None:
    damage = fm.ablate(plain, probe, loss=loss, interventions=[Zeroed("conv1")], n_null=0)
    plain.eval()
    with torch.no_grad():
        expected = torch.stack([loss(plain(image[None]), label[None]) for image, label in probe])
    assert damage.loss == pytest.approx(float(expected.mean()), rel=1e-5)
    assert damage.frame["null_kl"].isna().all()


def test_without_labels_only_divergences_are_known(plain: nn.Module, probe: TensorDataset) -> None:
    images = [(image,) for image in probe.tensors[0]]
    damage = fm.ablate(plain, images, interventions=[Zeroed("conv2"), Width(rankings=("taylor",))])
    assert np.isnan(damage.loss)
    assert np.isnan(damage.frame["loss"]).all()
    assert (damage.frame["kl"] > 0).all()
    assert "needs labels" in damage.skipped["reason"].iloc[0]
    assert "only divergences are known" in str(damage)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_table(residual: nn.Module, probe: TensorDataset) -> None:
    asked = [Resolution(), Width(fold=False), Width(), KernelSize()]
    one, same, other = (fm.ablate(residual, probe, interventions=asked, random_state=seed).frame for seed in (0, 0, 1))
    assert one.equals(same)
    fitted = one["fitted_on"].notna()
    assert fitted.sum() == (one["how"].str.endswith("folded") | (one["intervention"] == "kernel size")).sum() > 0
    assert one.loc[~fitted, "kl"].equals(other.loc[~fitted, "kl"])
    assert (one.loc[fitted, "kl"] != other.loc[fitted, "kl"]).all()  # other halves
    assert not one["null_kl"].equals(other["null_kl"])


@pytest.mark.slow
def test_what_is_asked_by_default_and_how_it_reads(residual: nn.Module, probe: TensorDataset) -> None:
    told: list[tuple[str, int, int]] = []
    damage = fm.ablate(residual, probe, n_null=1, progress=lambda *step: told.append(step))
    asked = ["depth", "width", "kernel size", "separable", "groups", "resolution"]
    assert list(damage.frame["intervention"].unique()) == asked
    steps = [what for what, _, _ in told]
    assert steps[:2] == ["the network as it is", "depth"]
    rows = zip(damage.frame["intervention"], damage.frame["layer"], damage.frame["what"], strict=True)
    assert [step for step in steps if ":" in step] == [f"{one}: {layer}, {what}" for one, layer, what in rows]
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert {total for _, _, total in told} == {6 * sum(1 for _ in residual.modules()) - 6}
    assert max(done for _, done, _ in told) < told[0][2]
    assert damage.frame[["kl", "loss", "accuracy", "null_kl"]].notna().all(axis=None)
    shares = damage.frame[["forward_share", "backward_share", "parameters_share", "kept_share"]]
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)
    text = str(damage)
    least = damage.least("kernel size", n=1).iloc[0]
    assert f"{least['layer']}, {least['what']}: divergence {least['kl']:.4f}" in text
    assert f"saves {100 * least['forward_share']:.1f} % of the multiply-adds" in text
    assert damage.least("width", n=3)["kl"].is_monotonic_increasing
    with pytest.raises(ValueError, match="no intervention 'height'; expected one of depth, width"):
        damage.least("height")


def test_layers_that_are_named_are_the_only_ones(residual: nn.Module, probe: TensorDataset) -> None:
    damage = fm.ablate(residual, probe, layers=["block1.conv1", "block1"], n_null=0)
    assert set(damage.frame["layer"]) == {"block1.conv1", "block1"}


class Counting(nn.Module):
    """Counts how often it was asked, where nobody can put it back, and answers by it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.counts = nn.Linear(192, 4), itertools.count(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores."""
        return next(self.counts) * self.fc(x.flatten(1))


class Words(nn.Module):
    """Returns no scores."""

    def forward(self, x: torch.Tensor) -> dict[str, str]:
        """Return words."""
        return {"answer": "cat"}


def test_bad_input_is_refused_in_one_sentence(plain: nn.Module, probe: TensorDataset) -> None:
    with pytest.raises(KeyError, match="the model has no module 'conv9'"):
        fm.ablate(plain, probe, layers=["conv9"])
    with pytest.raises(TypeError, match="layers is the string 'conv1'"):
        fm.ablate(plain, probe, layers="conv1")
    with pytest.raises(TypeError, match="loss is a str; expected a function"):
        fm.ablate(plain, probe, loss="cross-entropy")
    with pytest.raises(ValueError, match="the probe has one sample"):
        fm.ablate(plain, TensorDataset(*probe[:1]))
    three = TensorDataset(*probe[:3])
    with pytest.raises(ValueError, match="the probe has 3 samples; expected at least 4: what is refitted is fitted on"):
        fm.ablate(plain, three, interventions=[KernelSize()])
    assert len(fm.ablate(plain, three, interventions=[Resolution()]).frame)  # nothing is fitted
    with pytest.raises(ValueError, match="gives other outputs when it is shown the same again"):
        fm.ablate(Counting(), probe)
    with pytest.raises(ValueError, match="labels are from 0 to 3, and the model gives scores of 3 classes"):
        fm.ablate(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), probe)
    with pytest.raises(TypeError, match=r"the model returned dict; expected scores of shape"):
        fm.ablate(Words(), probe)
    with pytest.raises(ValueError, match="loss returned Tensor; expected a tensor that is one number"):
        fm.ablate(plain, probe, loss=lambda output, target: output)
    with pytest.raises(ValueError, match="no ranking 'luck'; expected any of redundancy, taylor, l1"):
        Width(rankings=("luck",))
    with pytest.raises(ValueError, match=r"a share of channels is 1\.5"):
        Width(shares=(1.5,))


def test_an_output_with_logits_and_dense_predictions_have_losses(probe: TensorDataset) -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.conv2(functional.relu(self.conv1(x)))}

    torch.manual_seed(0)
    model = Dense()
    targets = torch.randint(0, 4, (24, 8, 8))
    damage = fm.ablate(model, TensorDataset(probe.tensors[0], targets), interventions=[Width()])
    with torch.no_grad():
        scores = model(probe.tensors[0])["out"]
    assert damage.loss == pytest.approx(float(functional.cross_entropy(scores, targets)), rel=1e-5)
    assert damage.accuracy == pytest.approx(float((scores.argmax(1) == targets).double().mean()))
    assert set(damage.frame["layer"]) == {"conv1"}


@pytest.mark.slow
def test_every_default_question_can_be_asked_of_a_resnet18_and_what_it_saves_is_known(probe: TensorDataset) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    small = TensorDataset(torch.randn(4, 3, 32, 32), torch.arange(4))
    model = resnet18(num_classes=4)
    damage = fm.ablate(
        model,
        small,
        layers=["conv1", "layer1.0", "layer2.0", "layer1.0.conv1", "layer2.0.conv2"],
        interventions=[Depth(), Width(shares=(0.5,)), KernelSize(), Resolution(), Separable(), Groups()],
        n_null=0,
    )
    of = damage.frame.set_index(["intervention", "layer"])
    assert of.loc[("depth", "layer2.0"), "what"] == "its residual branch set to zero"
    assert damage.costs["parameters"] == sum(each.numel() for each in model.parameters())
    # conv1: 64 x 3 x 7 x 7 weights at 16 x 16 positions; 5 x 5 of it leave 25 / 49
    conv1 = 64 * 3 * 49 * 16 * 16
    share = (
        damage.frame.query("intervention == 'kernel size' and layer == 'conv1'")
        .query("what == '7 x 7 to 5 x 5'")["forward_share"]
        .item()
    )
    assert share == pytest.approx(conv1 * (1 - 25 / 49) / damage.costs["forward"], rel=1e-9)


@pytest.mark.slow
def test_rewinding_to_what_is_there_costs_nothing_and_to_something_else_does(
    residual: nn.Module, probe: TensorDataset
) -> None:
    now = copy.deepcopy(residual.state_dict())
    before = {name: value + 0.1 if value.is_floating_point() else value for name, value in now.items()}
    damage = fm.ablate(residual, probe, interventions=[Rewind({0: before, 5: now})], n_null=0)
    frame = damage.frame.set_index("what")
    assert (frame.loc[["weights of epoch 5", "statistics of epoch 5"], ["loss", "kl"]] == 0).all(axis=None)
    assert (frame.loc["weights of epoch 0", "kl"] > 0).sum() >= 5
    assert (frame.loc["weights of epoch 0", "backward_share"] >= 0).all()
    labels = probe.tensors[1]
    assert damage.majority == float(labels.bincount().max()) / len(labels)


def test_a_network_that_diverged_is_not_said_to_draw_at_random(plain: nn.Module, probe: TensorDataset) -> None:
    next(plain.parameters()).data[0] = torch.nan
    with pytest.raises(ValueError, match=r"gives NaN for (\d+) of \1 images \(the first is sample 0\): "):
        fm.ablate(plain, probe, interventions=[Resolution()])


class OfBatches(nn.Module):
    """An export, whose batches have one size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv, self.last, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = self.last(functional.relu(self.conv(x)))
        return self.fc(x.view(self.size, 4, 36).mean(2))


IMAGES = torch.rand(12, 1, 10, 10, generator=torch.Generator().manual_seed(0))


def test_a_model_of_one_batch_size_is_measured_as_far_as_no_halves_are_needed() -> None:
    data, model = TensorDataset(IMAGES, torch.arange(12) % 3), OfBatches(6)
    damage = fm.ablate(model, data, batch_size=6, interventions=[Zeroed("conv")])
    free = OfBatches(-1)
    free.load_state_dict(model.state_dict())
    other = fm.ablate(free, data, batch_size=6, interventions=[Zeroed("conv")])
    assert damage.frame["loss"].tolist() == other.frame["loss"].tolist()
    assert damage.costs == other.costs
    with pytest.raises(ValueError, match="takes batches of 6 samples alone, and what is refitted"):
        fm.ablate(model, data, batch_size=6, interventions=[Width()])


def test_a_model_and_a_loss_that_draw_give_the_same_whatever_was_drawn_before() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(functional.dropout(self.conv(x), 0.5).mean((2, 3)))

    class Smoothed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.Generator().manual_seed(3)

        def forward(self, scores, labels):
            noise = torch.rand(scores.shape, generator=self.generator)
            return functional.cross_entropy(scores + noise, labels, reduction="none")

    model, loss = Drops(), Smoothed()
    before, own = torch.get_rng_state(), loss.generator.get_state()
    one = fm.ablate(model, TensorDataset(IMAGES, torch.arange(12) % 3), loss=loss)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(loss.generator.get_state(), own)
    torch.rand(5)
    other = fm.ablate(model, TensorDataset(IMAGES, torch.arange(12) % 3), loss=loss)
    pd.testing.assert_frame_equal(one.frame, other.frame)
