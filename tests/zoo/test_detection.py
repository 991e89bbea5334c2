"""Detectors of torchvision, shown images of several sizes in lists: backbones and heads compared with cloning hooks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import detection

import fmcluster as fm
from tests.zoo.cloning import check, clones, state_of

pytestmark = pytest.mark.slow

FRESH = {"weights": None, "weights_backbone": None, "num_classes": 3}
FEW = {"rpn_post_nms_top_n_test": 20, "box_detections_per_img": 10}  # each box is a row of every layer of the heads
MODELS: dict[str, Callable[[], nn.Module]] = {
    "fasterrcnn": lambda: detection.fasterrcnn_mobilenet_v3_large_320_fpn(**FRESH, **FEW, min_size=64, max_size=96),
    "maskrcnn": lambda: detection.maskrcnn_resnet50_fpn(**FRESH, **FEW, min_size=64, max_size=64),
    "retinanet": lambda: detection.retinanet_resnet50_fpn(**FRESH, min_size=64, max_size=64),
    "ssdlite": lambda: detection.ssdlite320_mobilenet_v3_large(**FRESH),
}


def columns(items: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*items, strict=True))


@pytest.mark.filterwarnings("ignore")  # of torchvision's own deprecations
@pytest.mark.parametrize("name", MODELS)
def test_images_of_any_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().train()
    images = [torch.rand(3, *size) for size in ((80, 96), (96, 64))]
    items = [(image, {"boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "labels": torch.tensor([1])}) for image in images]
    before, expected = state_of(model), clones(model, (images,))
    ways: dict[str, dict[str, Any]] = {"items": {"probe": items}}
    if name == "retinanet":  # how images come in is the same for all
        ways["to_inputs"] = {
            "probe": DataLoader(items, batch_size=2, collate_fn=columns),
            "to_inputs": lambda batch: ((list(batch[0]),), {}),
        }
    for way, options in ways.items():
        path = tmp_path / f"{way}.zarr"
        with fm.Recorder(model, path, layers="leaves", dtype="float32", **options) as recorder:
            recorder.snapshot(epoch=0)
        run = fm.open_run(path)
        assert sum(layer.startswith("backbone.") for layer in run.layers) > 100
        check(run, expected)
    assert state_of(model) == before, "the model is not what it was"
