"""The `plan` command: measured, printed, written, and followed by `train`."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import fmcluster as fm
from fmcluster.cli import app
from fmcluster.decide import Action, MeasuredDamage, Plan
from fmcluster.decide._costs import Costs
from fmcluster.recipes import load_image_folder, load_resnet


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two noisy images of each of two classes, for training and for validation."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("ants", "bees"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / part / name / f"{number}.png")
    return tmp_path / "data"


def said(command: str, *, code: int = 0) -> str:
    done = CliRunner().invoke(app, command.split(), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def written(path="plan.yaml") -> Plan:
    unknown = MeasuredDamage(0.0, 0.0, 0.0)
    actions = (
        Action("freeze", ("conv1", "bn1"), "from the start on", unknown, epoch=0),
        Action("freeze", ("layer1",), "from epoch 1 on", unknown, epoch=1),
        Action("kernel", ("layer2.0.conv1",), "3 x 3 to 1 x 1", unknown, setting=1),
    )
    plan = Plan(actions, "compute", 0.9, None, Costs(1, 1, 1, 1), Costs(1, 1, 1, 1))
    plan.to_yaml(path)
    return plan


@pytest.mark.slow
def test_a_run_is_planned_and_the_plan_is_followed(folder) -> None:
    model = load_resnet("resnet18", weights="none", n_classes=2).eval()
    probe = load_image_folder(folder).probe
    with fm.Recorder(model, "run.zarr", layers=["fc"], probe=probe, record=("activation", "weight")) as recorder:
        recorder.snapshot(epoch=0)
        torch.nn.init.normal_(model.fc.weight)
        recorder.snapshot(epoch=1)
    text = said(
        "plan run.zarr --model resnet18 --question width --question freeze --layer layer4.0.conv1 --images 4 "
        "--tolerance 10 -o plan.yaml"
    )
    assert "for at most 10 nats of damage" in text or "Nothing to do" in text
    assert "Next: fmcluster train DATA --plan plan.yaml" in text
    content = yaml.safe_load(Path("plan.yaml").read_text())
    assert content["n_samples"] == 4
    assert content["built"] is True
    impossible = "plan run.zarr --question kernel --layer layer4.1.conv2 --images 4 --budget 0.01"
    done = CliRunner().invoke(app, impossible.split())
    assert "a budget of 1 % of compute cannot be kept" in str(done.exception)
    assert "kernel size: 1 changes; those that do least:" in done.output  # what was measured is not lost
    written()
    said(
        "train data --weights none --epochs 2 --layer fc --probe-size 2 --with-weights --device cpu "
        "--plan plan.yaml -o other.zarr"
    )
    run = fm.open_run("other.zarr")
    first, second, last = (run.read_weights(snapshot=number) for number in range(3))
    assert first["layer2.0.conv1.weight"].shape == (128, 64, 1, 1)
    for name in ("conv1.weight", "bn1.running_mean"):
        assert np.array_equal(first[name], last[name])
    for name in ("layer1.0.conv1.weight", "layer1.0.bn1.running_mean"):
        assert not np.array_equal(first[name], second[name])
        assert np.array_equal(second[name], last[name])
    assert not np.array_equal(second["layer2.0.bn1.running_mean"], last["layer2.0.bn1.running_mean"])
    assert run.provenance[0]["notes"]["plan"][2] == "kernel layer2.0.conv1: 3 x 3 to 1 x 1"


@pytest.mark.slow
def test_mistakes_are_told_in_one_sentence(folder, tmp_path) -> None:
    torch.manual_seed(0)
    model = load_resnet("resnet18", weights="none", n_classes=2).eval()
    images = torch.utils.data.TensorDataset(torch.rand(2, 3, 32, 32), torch.arange(2))
    with fm.Recorder(model, "run.zarr", layers=["fc"], probe=images) as recorder:
        recorder.snapshot(epoch=0)
    assert "Input should be greater than or equal to 4" in said("plan run.zarr --images 3", code=2)
    for command, error, text in (
        ("plan run.zarr", ValueError, "holds no weights: pass --weights"),
        ("plan run.zarr --weights none", FileNotFoundError, "does not know where its images are"),
        ("plan run.zarr --question colour", ValueError, "no question 'colour'; expected any of depth, width"),
        ("train data --plan no.yaml -o new.zarr", FileNotFoundError, "no.yaml"),
    ):
        with pytest.raises(error, match=text):
            said(command)
    for line, text in (
        ("--question depth --layer fc9", "no module of the network matches fc9; it has conv1, bn1"),
        ("--question freeze --layer fc", "no weights of several epochs"),
        ("--budget 7", "--budget is 7.0; expected a share"),
        ("--of watts", "--of is 'watts'; expected one of compute"),
    ):
        with pytest.raises(ValueError, match=text):
            said(f"plan run.zarr --weights none --data data --images 4 {line}")
