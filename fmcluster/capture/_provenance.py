"""Provenance of a snapshot: software, hardware and precision, which with the weights determine its bytes."""

import platform
from importlib.metadata import version
from typing import Any

import torch
from torch import nn


def provenance(model: nn.Module, *, device: torch.device) -> dict[str, Any]:
    """Describe software, hardware and precision, as JSON can hold it."""
    cuda = device.type == "cuda"
    return {
        "versions": {name: version(name) for name in ("fmcluster", "numpy", "zarr", "numba")}
        | {"python": platform.python_version(), "torch": str(torch.__version__)},  # it says for which device it is
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "threads": torch.get_num_threads(),
        "random_state": torch.initial_seed(),
        "precision": {
            "float32_matmul": torch.get_float32_matmul_precision(),
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        },
    }
