"""Vision models of Hugging Face's Transformers in tiny configurations, compared with cloning hooks."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import fmcluster as fm
from tests.zoo.cloning import check, clones, state_of

pytestmark = pytest.mark.slow

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PATCHES = {**SMALL, "image_size": 32, "patch_size": 8}
STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViTForImageClassification", PATCHES),
    "DeiT": ("DeiTForImageClassification", PATCHES),
    "Beit": ("BeitForImageClassification", PATCHES),
    "Dinov2": ("Dinov2ForImageClassification", {**PATCHES, "mlp_ratio": 2}),
    "ViTMAE": ("ViTMAEForPreTraining", {**PATCHES, "decoder_hidden_size": 16, "decoder_num_attention_heads": 4}),
    "Swin": (
        "SwinForImageClassification",
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "window_size": 2, "num_heads": [1, 2, 4, 8]},
    ),
    "ConvNext": ("ConvNextForImageClassification", STAGES),
    "ResNet": ("ResNetForImageClassification", {**STAGES, "embedding_size": 8, "layer_type": "basic"}),
    "RegNet": ("RegNetForImageClassification", {**STAGES, "embedding_size": 8, "groups_width": 8}),
    "Segformer": ("SegformerForSemanticSegmentation", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "MobileViT": ("MobileViTForImageClassification", {"image_size": 64}),
}


@pytest.mark.filterwarnings("ignore")  # of transformers' own deprecations
@pytest.mark.parametrize("name", MODELS)
def test_what_is_recorded_is_what_the_modules_returned(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind, options = MODELS[name]
    model = getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**options)).train()
    side = options.get("image_size", 64)
    images = torch.rand(3, 3, side, side)
    probe = [{"pixel_values": image, "labels": 0} for image in images]
    with torch.no_grad():
        model.eval()(images)  # some install hooks of their own when they are first called
    before = state_of(model.train())
    with fm.Recorder(model, tmp_path / "run.zarr", probe=probe, layers="leaves", dtype="float32") as recorder:
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=1)
    assert state_of(model) == before, "the model is not what it was"
    run = fm.open_run(tmp_path / "run.zarr")
    assert len(run.layers) > 8
    for snapshot in range(2):  # unchanged weights give the same, also of a model that draws random numbers
        check(run, clones(model, (images,)), snapshot=snapshot)
    assert run.samples["label"].tolist() == [0, 0, 0]
