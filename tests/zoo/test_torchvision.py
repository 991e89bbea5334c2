"""Models of torchvision, each recorded by default layers and compared with cloning hooks: names, values, state.

One of each kind by default, without the repetitions of a block (MNASNet is built of what MobileNetV3 is, GoogLeNet of
what Inception v3 is); all that fit in memory, as they are, with ``FMCLUSTER_ZOO=all``, and with ``FMCLUSTER_ZOO_TABLE``
the table of `docs/models.md` is written to that file.
"""

import gc
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision import models

import fmcluster as fm
from tests.zoo.cloning import check, clones, cloning, fill, state_of, without_repetitions

pytestmark = pytest.mark.slow

FAMILIES = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_v2_s",
    "inception_v3",
    "maxvit_t",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_16",
    "r3d_18",
    "swin3d_t",
    "deeplabv3_mobilenet_v3_large",
    "raft_small",
)  # SSDLite and Faster R-CNN are recorded in test_detection.py
MOST_PARAMETERS = 150_000_000


def names() -> list[str]:
    if os.environ.get("FMCLUSTER_ZOO") != "all":
        return list(FAMILIES)
    listed = [name for name in models.list_models() if not name.startswith("quantized_")]
    return [n for n in listed if models.get_model_weights(n).DEFAULT.meta["num_params"] <= MOST_PARAMETERS]


def shape_for(name: str) -> tuple[int, ...]:
    """Return the smallest input that a model takes without complaint."""
    kind = models.get_model_builder(name).__module__
    if "video" in kind:
        return (3, 16, 224, 224) if name.startswith(("mvit", "s3d")) else (3, 16, 64, 64)
    if "detection" in kind or "optical_flow" in kind:
        return (3, 128, 128)
    if "segmentation" in kind:
        return (3, 64, 64)
    if name.startswith(("vit", "maxvit")):
        return (3, 518, 518) if name == "vit_h_14" else (3, 224, 224)
    return (3, 96, 96)


HEAD = """# Models

After reading this page you know which models of torchvision were recorded, and how what was stored compares with what
their modules returned. `make zoo` records every model of torchvision with at most {most} million parameters (quantized
ones aside) with default options and `layers="leaves"`, compares each layer bit for bit in float32 with clones that
hooks of its own keep, checks that the model is afterwards what it was, and writes this page; one of each kind is
recorded whenever all tests are run, without the repetitions of a block.
With torch {torch} and torchvision {torchvision}:

- **{layers} layers of {models} models were recorded, and {equal} are equal to the clones.** Of an output with several
  rows for each sample the values are compared, and their order is tested apart.
- What is left out is named in `run.provenance[-1]["left_out"]` and by `fmcluster info`: modules that evaluation never
  calls, such as auxiliary heads, and outputs that are no batch, such as a detector's proposals.
- Eleven models of timm and eleven of Transformers, in tiny configurations, are compared in the same way by `tests/zoo`.
- Layers that return sequences first are left out of training batches, by name, where the first batch holds one sample:
  an axis of one sample cannot be told from others of length one, (tokens, 1, channels) looks like as many samples as
  there are tokens, and what a run holds is laid out once the first batch is known. A first batch of two is enough.

| model | layers recorded | equal to the clones | left out |
| --- | ---: | ---: | ---: |
"""


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[Any, ...]]]:
    rows: list[tuple[Any, ...]] = []
    yield rows
    if file := os.environ.get("FMCLUSTER_ZOO_TABLE"):
        rows += _written_before(Path(file), {row[0] for row in rows})
        lines = [f"| `{name}` | {n} | {equal} | {left} |" for name, n, equal, left in sorted(rows)]
        head = HEAD.format(
            most=MOST_PARAMETERS // 1_000_000,
            torch=torch.__version__.partition("+")[0],
            torchvision=torchvision.__version__.partition("+")[0],
            layers=f"{sum(row[1] for row in rows):,}",
            equal=f"{sum(row[2] for row in rows):,}",
            models=len(rows),
        )
        Path(file).write_text(head + "\n".join(lines) + "\n")


def _written_before(file: Path, now: set[str]) -> list[tuple[Any, ...]]:
    """Return the rows of models that were not tried now."""
    found = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \|$", file.read_text(), re.M) if file.exists() else []
    return [(name, *map(int, numbers)) for name, *numbers in found if name not in now]


@pytest.mark.filterwarnings("ignore")  # of torchvision and of torch's own deprecations
@pytest.mark.parametrize("name", names())
def test_what_is_recorded_is_what_the_modules_returned(name: str, tmp_path: Path, table: list) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = models.get_model_builder(name).__module__
        more: dict[str, Any] = {"weights_backbone": None} if "detection" in kind or "segmentation" in kind else {}
        if "detection" in kind and not name.startswith("ssd"):
            more["min_size"] = shape_for(name)[-1]  # they would enlarge images to 800 pixels
        model = build(name, more)
    model.train()
    inputs = torch.rand(2 if torch.tensor(shape_for(name)).prod() > 1e5 else 3, *shape_for(name))
    to_inputs = _pairs if name.startswith("raft") else None
    probe = list(inputs)
    before = state_of(model)
    path = tmp_path / "run.zarr"
    recorder = fm.Recorder(
        model, path, probe=probe, layers="leaves", batch_size=len(inputs), dtype="float32", to_inputs=to_inputs
    )
    with recorder:
        recorder.snapshot(epoch=0)
    assert state_of(model) == before, "the model is not what it was"
    run = fm.open_run(path)
    args, kwargs = to_inputs(inputs) if to_inputs else ((inputs,), {})
    check(run, clones(model, args, **kwargs))
    equal = len(run.layers)  # what is not has raised
    left_out = run.provenance[-1]["left_out"]
    assert equal > 0
    table.append((name, equal, equal, len(left_out)))
    del run
    shutil.rmtree(path)
    gc.collect()


def _pairs(images: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], dict[str, int]]:
    """Images and what they are in a mirror; twelve updates of the flow, the default, call the same modules."""
    return (images, images.flip(-1)), {"num_flow_updates": 3}


# trained on images alone; RAFT takes pairs, detectors lists with boxes
LIVE = tuple(name for name in FAMILIES if not name.startswith(("raft", "fasterrcnn")))
if os.environ.get("FMCLUSTER_ZOO") != "all":
    LIVE = ("convnext_tiny", "resnet18", "swin_t")


@pytest.mark.filterwarnings("ignore")  # of torchvision's own deprecations
@pytest.mark.parametrize("name", LIVE)
def test_a_training_batch_is_recorded_as_the_modules_returned_it(name: str, tmp_path: Path) -> None:
    kind = models.get_model_builder(name).__module__
    torch.manual_seed(0)
    model = build(name, {"weights_backbone": None} if "segmentation" in kind else {}).train()
    inputs = torch.rand(3, *((3, 299, 299) if name == "inception_v3" else shape_for(name)))  # its auxiliary head
    path = tmp_path / "run.zarr"
    recorder = fm.BatchRecorder(model, path, layers="leaves", dtype="float32", n_samples=3, samples_per_shard=3)
    with recorder, cloning(model) as returned, recorder.epoch(0), recorder.batch([0, 1, 2]):
        model(inputs)
    run = fm.open_run(path)
    assert len(run.layers) > 5
    check(run, returned)


def build(name: str, more: dict[str, Any]) -> nn.Module:
    whole = _build(name, more)
    return whole if os.environ.get("FMCLUSTER_ZOO") == "all" else without_repetitions(whole)


def _build(name: str, more: dict[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"):
            skeleton = models.get_model(name, weights=None, **more)
    except NotImplementedError:  # of a model that computes its widths with tensors
        return models.get_model(name, weights=None, **more)
    return models.get_model(name, weights=None, **more) if has_constants(skeleton) else fill(skeleton)


def has_constants(skeleton: nn.Module) -> bool:
    """Whether a model holds what is computed when it is built, beside its weights, and would be lost."""
    held = {id(tensor) for tensor in (*skeleton.parameters(), *skeleton.buffers())}
    others = any(
        isinstance(value, torch.Tensor) and id(value) not in held
        for module in skeleton.modules()
        for value in vars(module).values()
    )
    return others or any("index" in name or "anchor" in name for name, _ in skeleton.named_buffers())
