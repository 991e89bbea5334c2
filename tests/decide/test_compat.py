"""Private interfaces of torch: each test says what a new version has changed, and what needs it."""

import inspect
from importlib.metadata import version

import torch
from torch import nn

from fmcluster.decide import _compat as compat

ADAPT = "is not what it was: adapt fmcluster/decide/_compat.py"


def test_batch_norms_of_all_kinds_are_known() -> None:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    assert all(issubclass(kind, compat.BATCH_NORM) for kind in kinds), f"nn.modules.batchnorm._BatchNorm {ADAPT}"
    assert not issubclass(nn.InstanceNorm2d, compat.BATCH_NORM)


def test_a_change_in_place_is_counted() -> None:
    tensor = torch.zeros(2)
    before = compat.version_of(tensor)
    tensor.add_(1)
    assert compat.version_of(tensor) == before + 1, f"Tensor._version {ADAPT}; a trace takes both for one value"


def test_a_convolution_without_bias_and_hooks_pads_as_it_does() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(2, 3, 3, padding="same", padding_mode="reflect")
    called = []
    module.register_forward_hook(lambda *_: called.append(1))
    given = torch.randn(1, 2, 5, 5)
    padded = nn.functional.pad(given, (1, 1, 1, 1), mode="reflect")
    expected = nn.functional.conv2d(padded, module.weight)
    torch.testing.assert_close(compat.convolved(module, given), expected, msg=f"Conv2d._conv_forward {ADAPT}")
    assert not called


def test_the_versions_it_was_checked_with_are_named() -> None:
    minor = ".".join(version("torch").split(".")[:2])
    assert f"{minor}." in (inspect.getdoc(compat) or ""), f"torch {minor} is installed; run these tests and name it"
