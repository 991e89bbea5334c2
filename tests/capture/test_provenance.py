"""What a run keeps of the software, hardware and model that made it."""

from collections.abc import Callable

import torch
from torch import nn


def test_provenance(net: nn.Module, data: list, take: Callable) -> None:
    (session,) = take(net, data, notes={"seed": 3}).provenance
    assert session["first_snapshot"] == 0
    assert session["notes"] == {"seed": 3}
    assert session["batch_size"] == 4
    assert session["model"].endswith("SmallNet")
    assert session["versions"]["torch"] == torch.__version__
    assert session["threads"] == torch.get_num_threads()
