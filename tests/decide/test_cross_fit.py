"""Cross-fitting: no image is measured with weights that saw it; against NumPy, fresh images and the definition."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fmcluster as fm
from fmcluster.capture import ModelInputs
from fmcluster.decide import Depth, KernelSize, Network, Resolution, Rewind, Width
from fmcluster.decide._cross_fit import CrossFit, Part, in_first_half


@pytest.mark.parametrize("counts", [(7, 4, 1, 0, 3), (1, 1, 1, 1), (10,), (2, 9)])
def test_halves_hold_as_many_of_each_class(counts: tuple[int, ...]) -> None:
    classes = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    classes = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(1))]
    drawn = [in_first_half(classes, random_state=seed) for seed in (0, 0, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert len({tuple(each.tolist()) for each in drawn}) > 1
    for first in drawn:
        assert abs(int(first.sum()) - int((~first).sum())) <= 1
        for number in range(len(counts)):
            of = classes == number
            assert abs(int((first & of).sum()) - int((~first & of).sum())) <= 1


def test_each_image_is_as_likely_in_either_half() -> None:
    first = torch.stack([in_first_half(torch.arange(8) % 2, random_state=seed) for seed in range(400)])
    assert ((first.double().mean(0) - 0.5).abs() < 0.125).all()  # five standard errors


def test_the_damage_is_that_of_least_squares_on_the_other_half(plain, probe: TensorDataset) -> None:
    """5 x 5 to 1 x 1 by NumPy in float64: fitted on one half, shown the other, mean and error of all images."""
    images, labels = probe.tensors
    damage = fm.ablate(plain, DataLoader(probe, batch_size=7), layers=["conv2"], interventions=[KernelSize(sizes=(1,))])
    (row,) = damage.frame.to_dict("records")
    model = plain.double().eval()
    with torch.no_grad():
        given = model.relu1(model.bn1(model.conv1(images.double())))
        returned = (model.conv2(given) - model.conv2.bias[:, None, None]).movedim(1, -1).numpy()
        before = model(images.double()).log_softmax(1).numpy()
    given = given.movedim(1, -1).numpy()  # images, rows, columns, channels
    bias, head, constant = (each.detach().numpy() for each in (model.conv2.bias, model.fc.weight, model.fc.bias))
    after = np.zeros_like(before)
    first = in_first_half(labels, random_state=0).numpy()
    for shown in (first, ~first):
        weight = np.linalg.lstsq(given[~shown].reshape(-1, 6), returned[~shown].reshape(-1, 8), rcond=None)[0]
        scores = np.maximum(given[shown] @ weight + bias, 0).mean((1, 2)) @ head.T + constant
        after[shown] = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    for name, values in {
        "loss": (before - after)[np.arange(24), labels.numpy()],
        "kl": (np.exp(before) * (before - after)).sum(1),
        "accuracy": (after.argmax(1) == labels.numpy()) * 1.0 - (before.argmax(1) == labels.numpy()),
    }.items():
        assert row[name] == pytest.approx(values.mean(), rel=1e-3, abs=1e-6)
        assert row[f"{name}_se"] == pytest.approx(values.std(ddof=1) / 24**0.5, rel=1e-3, abs=1e-6)
    assert (row["fitted_on"], row["unknowns"]) == (12, 6)


def wide() -> nn.Module:
    """A network that is given 3 x 2 x 2 numbers, with more channels inside than there are images to fit on."""
    return nn.Sequential(
        *(nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 8, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4)),
    )


@pytest.mark.parametrize(
    ("intervention", "layer"), [(KernelSize(sizes=(1,)), "2"), (Width(shares=(0.25,)), "5")], ids=["kernel", "width"]
)
def test_what_is_over_fitted_does_to_new_images_what_is_measured(intervention, layer: str) -> None:
    """More unknowns than images and positions: no damage on the images that were fitted on, which says nothing."""
    torch.manual_seed(0)
    model = wide().eval()
    for parameter in model.parameters():
        parameter.data *= 2.5  # so that answers differ
    images, labels = torch.randn(1016, 3, 2, 2), torch.randint(0, 4, (1016,))
    damage = fm.ablate(model, TensorDataset(images[:16], labels[:16]), layers=[layer], interventions=[intervention])
    (row,) = damage.frame.to_dict("records")
    assert row["unknowns"] > 2 * row["fitted_on"] == 16
    assert "1 of 1 fits have more unknowns for each output than that" in str(damage)
    known, new = (Network(model, [ModelInputs((part,))], loss=None) for part in (images[:16], images[16:]))
    (change,) = (each for each in intervention.changes(known, [layer]) if hasattr(each, "saves"))

    def on(shown: Network, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return losses and divergences of weights that were fitted on all the images of the probe."""
        measured = CrossFit([Part(shown, [targets], known)], loss=None)
        fitted = measured.fit(change.fit)
        after = measured.outcomes(
            fitted,
            lambda network, made: [
                network.changed_outputs(0, weights=made.weights, inputs=made.inputs, outputs=made.outputs)
            ],
        )
        return after.loss - measured.before.loss, measured.before.divergence(after)

    (same, same_kl), (fresh, fresh_kl) = on(known, labels[:16]), on(new, labels[16:])
    assert float(same_kl.mean()) < 0.01 * float(fresh_kl.mean())
    assert 0.5 * float(fresh_kl.mean()) < row["kl"] < 2 * float(fresh_kl.mean())
    assert abs(float(same.mean())) < 0.02
    error = np.hypot(row["loss_se"], float(fresh.std()) / 1000**0.5)
    assert abs(row["loss"] - float(fresh.mean())) < 4 * error


@pytest.mark.slow
def test_what_is_not_fitted_is_measured_in_one_go(residual, probe: TensorDataset, monkeypatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the probe is split")

    monkeypatch.setattr(CrossFit, "halves", refused)
    state = {name: value + 0.1 for name, value in residual.state_dict().items() if value.is_floating_point()}
    asked = [Depth(), Width(fold=False), Resolution(), Rewind({0: state})]
    frame = fm.ablate(residual, probe, interventions=asked, n_null=1).frame
    assert set(frame["intervention"]) == {"depth", "width", "resolution", "rewind"}
    assert frame[["fitted_on", "unknowns"]].isna().all(axis=None)
    with pytest.raises(AssertionError, match="is split"):
        fm.ablate(residual, probe, interventions=[Width()])


@pytest.mark.slow
def test_halves_do_not_depend_on_the_batches(plain, probe: TensorDataset) -> None:
    asked = {"interventions": [KernelSize(), Width(shares=(0.5,))], "n_null": 0}
    whole, parts = (fm.ablate(plain, probe, batch_size=size, **asked).frame for size in (24, 1))
    for name in ("loss", "loss_se", "kl", "kl_se", "accuracy"):
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-3, atol=1e-5)


def test_without_labels_and_with_odd_numbers(plain, probe: TensorDataset) -> None:
    images = [(image,) for image in probe.tensors[0][:7]]
    frame = fm.ablate(plain, images, interventions=[KernelSize()]).frame
    assert (frame["fitted_on"] == 3).all()
    assert (frame["kl"] > 0).all()
