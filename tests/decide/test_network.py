"""Facts of a network: shapes, calls, costs, moments; against definitions in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from fmcluster.capture import ModelInputs
from fmcluster.decide import Network, _network


def test_moments_of_what_a_layer_is_given(plain, probe) -> None:
    images = probe.tensors[0]
    of = Network(plain.eval(), [ModelInputs((images[:9],)), ModelInputs((images[9:],))], loss=None)
    with torch.no_grad():
        given = plain.relu1(plain.bn1(plain.conv1(images)))
    rows = given.movedim(1, -1).reshape(-1, 6).double().numpy()
    mean, covariance = of.moments("conv2")
    np.testing.assert_allclose(mean.numpy(), rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(covariance.numpy(), np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-6)
    patches = nn.functional.unfold(given, 5, padding=2).movedim(1, -1).reshape(-1, 150).double().numpy()
    np.testing.assert_allclose(of.patch_moments("conv2")[0].numpy(), patches.T @ patches, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("kept_bytes", "passes"), [(1 << 20, 2), (150 * 150 * 8, 3), (0, 4)])
def test_patch_moments_are_summed_up_once_as_far_as_they_may_be_kept(
    kept_bytes: int, passes: int, plain, probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_network, "KEPT_BYTES", kept_bytes)
    of = Network(plain.eval(), [ModelInputs((probe.tensors[0],))], loss=None)
    shown, look_at = [], of._look_at
    monkeypatch.setattr(of, "_look_at", lambda *given: shown.append(look_at(*given)))
    found = [of.patch_moments(layer) for layer in ("conv2", "conv1", "conv2", "conv1")]
    assert len(shown) == passes
    assert found[0].shape == (1, 150, 150)
    for first, second in zip(found[:2], found[2:], strict=True):
        assert torch.equal(first, second)


def test_fits_of_one_layer_share_its_moments(plain, probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_network, "KEPT_BYTES", 0)
    of = Network(plain.eval(), [ModelInputs((probe.tensors[0],))], loss=None)
    shown, look_at = [], of._look_at
    monkeypatch.setattr(of, "_look_at", lambda *given: shown.append(look_at(*given)))
    for _ in range(3):
        of.patch_moments("conv2")
        of.moments("conv2")
    assert len(shown) == 2


def test_some_samples_of_each_batch(plain, probe) -> None:
    images = probe.tensors[0]
    of = Network(plain.eval(), [ModelInputs((part,)) for part in images.split(10)], loss=None)
    some = of.some([torch.tensor([3, 5]), torch.tensor([], dtype=torch.int64), torch.tensor([0])])
    assert some.n_batches == 2
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(some.show_all()), plain(images[[3, 5, 20]]))


def test_facts_are_in_the_order_of_the_calls_and_count_them(residual, probe) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early, self.unused = nn.Linear(4, 2), nn.Linear(4, 4), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.late(self.early(self.early(x)))

    of = Network(Twice(), [ModelInputs((torch.randn(5, 4),))], loss=None)
    assert list(of.facts) == ["early", "late"]
    assert of.facts["early"].calls == 2
    assert of.facts["early"].costs.forward == 32
    assert of.costs.forward == 40
    assert of.consumer("early") is None
    facts = Network(residual, [ModelInputs((probe.tensors[0],))], loss=None).facts
    assert facts["block2"].given == (8, 8, 8)
    assert facts["block2"].returned == (16, 4, 4)
