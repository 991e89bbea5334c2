"""Quantized models of torchvision: what is stored is what their modules returned, dequantized; and the scale.

One of each kind of block, with random weights; the others are made of the same.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

import fmcluster as fm

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x0_5", "googlenet"])
def test_layers_are_what_modules_return_dequantized(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = getattr(models.quantization, name)(weights=None, quantize=True, **options)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with fm.Recorder(model, tmp_path / "run.zarr", probe=list(images), dtype="float32", layers="leaves") as recorder:
        recorder.snapshot(epoch=0)
    returned: dict[str, list[torch.Tensor]] = {}
    for part, module in model.named_modules():
        module.register_forward_hook(lambda _m, _x, out, part=part: returned.setdefault(part, []).append(out))
    with torch.no_grad():
        model(images)
    run = fm.open_run(tmp_path / "run.zarr")
    n_quantized = 0
    for layer in map(run.__getitem__, run.layers):
        part, _, call = layer.name.partition(".call")
        output = returned[part][int(call or 0)]
        n_quantized += output.is_quantized
        if output.is_quantized:
            assert layer.quantization == (output.q_scale(), output.q_zero_point())
            output = output.dequantize()
        np.testing.assert_array_equal(layer.read(epoch=0), output.numpy(), layer.name)
    assert n_quantized > 50
