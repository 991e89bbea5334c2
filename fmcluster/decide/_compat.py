"""Private interfaces of other libraries that deciding needs: of torch (checked with 2.14.1).

Each name here stands for one of them; ``tests/decide/test_compat.py`` says which one a new version has changed.
"""

import torch
from torch import nn

BATCH_NORM = nn.modules.batchnorm._BatchNorm  # what BatchNorms of all kinds are, SyncBatchNorm's too


def version_of(tensor: torch.Tensor) -> int:
    """Return how often a tensor's memory was changed in place."""
    return int(tensor._version)


def convolved(module: nn.Conv2d, given: torch.Tensor) -> torch.Tensor:
    """Return what a convolution makes of its input, without its bias and without its hooks, padded as it pads."""
    made: torch.Tensor = module._conv_forward(given, module.weight, None)
    return made
