"""Models of timm, one of each of ten families, compared with cloning hooks."""

from pathlib import Path

import pytest
import torch

import fmcluster as fm
from tests.zoo.cloning import check, clones, state_of, without_repetitions

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.slow

MODELS = (
    "convnext_atto",
    "davit_tiny",
    "efficientnet_lite0",
    "focalnet_tiny_srf",
    "ghostnet_100",
    "mobilenetv3_small_050",
    "poolformer_s12",
    "resnet10t",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "mixer_s32_224",
)


@pytest.mark.filterwarnings("ignore")  # of timm's own deprecations
@pytest.mark.parametrize("name", MODELS)
def test_what_is_recorded_is_what_the_modules_returned(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = without_repetitions(timm.create_model(name, pretrained=False, num_classes=5)).train()
    side = model.pretrained_cfg["input_size"][-1]
    images = torch.rand(2, 3, side, side)
    before = state_of(model)
    with fm.Recorder(model, tmp_path / "run.zarr", probe=list(images), layers="leaves", dtype="float32") as recorder:
        recorder.snapshot(epoch=0)
    assert state_of(model) == before, "the model is not what it was"
    run = fm.open_run(tmp_path / "run.zarr")
    assert len(run.layers) > 8
    check(run, clones(model, (images,)))
