"""The face of the package, executed as the README and the design write it."""

import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import fmcluster as fm
from fmcluster import plot
from fmcluster.cli import app

ROOT = Path(__file__).parent.parent


def tiny_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 12, 3, padding=1),
            bn1=nn.BatchNorm2d(12),
            relu=nn.ReLU(inplace=True),
            layer4=nn.Conv2d(12, 16, 3, stride=2, padding=1),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(16, 2),
        )
    )


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """What the snippets take for granted: a model, data, and a function that trains for an epoch."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 3, 12, 12, generator=generator)
    labels = (images.mean((1, 2, 3)) > 0.5).long()
    model = tiny_net()
    train_loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train_one_epoch(model, loader):
        model.train()
        for batch, target in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), target).backward()
            optimizer.step()

    def evaluate(model, loader):
        model.eval()
        with torch.no_grad():
            right = [(model(batch).argmax(1) == target).float() for batch, target in loader]
        return float(torch.cat(right).mean())

    return {
        "model": model,
        "evaluate": evaluate,
        "val_loader": DataLoader(TensorDataset(images[:10], labels[:10]), batch_size=8),
        "train_loader": train_loader,
        "train_one_epoch": train_one_epoch,
        "probe_set": TensorDataset(images[:10], labels[:10]),
        "train_set": TensorDataset(images, labels),
        "criterion": nn.functional.cross_entropy,
        "optimizer": optimizer,
        "DataLoader": DataLoader,
        "fm": fm,
        "torch": torch,
    }


@pytest.fixture(autouse=True)
def checkpoints(loop):
    for epoch in (0, 5):
        torch.save(loop["model"].state_dict(), f"epoch{epoch}.pt")


@pytest.mark.slow
def test_the_face_of_the_design(loop):
    model, train_loader, train_one_epoch, probe_set = (
        loop[name] for name in ("model", "train_loader", "train_one_epoch", "probe_set")
    )
    with fm.Recorder(model, "run.zarr", layers="children", probe=probe_set) as recorder:
        recorder.snapshot(epoch=0)
        for epoch in range(1, 6):
            train_one_epoch(model, train_loader)
            assert not any(module._forward_hooks for module in model.modules())
            recorder.snapshot(epoch=epoch, metrics={"val_accuracy": loop["evaluate"](model, loop["val_loader"])})

    run = fm.open_run("run.zarr")
    assert run.layers == ["conv1", "bn1", "relu", "layer4", "avgpool", "flatten", "fc"]
    assert run.epochs == [0, 1, 2, 3, 4, 5]
    assert run.snapshots["step"].tolist() == [0, 3, 6, 9, 12, 15]
    assert len(run.samples) == 10
    assert run.metrics["val_accuracy"].notna().tolist() == [False] + [True] * 5
    layer = run["layer4"]
    assert layer.read(epoch=5, samples=[0, 1], channels=slice(0, 16)).shape == (2, 16, 6, 6)
    assert isinstance(run.to_xarray(), xarray.DataTree)

    vectors = layer.vectors("channel")
    scores = fm.pca(vectors, n_components=50)
    embedding = fm.embed(scores, random_state=0)
    clusters = fm.cluster(scores, KMeans(4, random_state=0))
    history = fm.track(clusters)
    assert len(embedding.frame) == len(clusters.frame) == 6 * 16
    assert len(history.frame) == 5 * 16

    cka = fm.similarity(run, metric="cka")
    assert cka.values.shape == (7 * 6, 7 * 6)
    assert fm.top_images(layer, k=9).values.shape == (6, 16, 9)
    findings = fm.diagnose(run)
    assert set(findings.layers["layer"]) == set(run.layers)

    damage = fm.ablate(model, probe_set, loss=loop["criterion"])
    assert set(fm.diagnose(run, damage=damage).layers["layer"]) == set(run.layers)
    plan = fm.plan(findings, damage, budget=0.95)
    smaller = plan.apply(model)
    assert sum(map(torch.numel, smaller.parameters())) <= sum(map(torch.numel, model.parameters()))

    assert isinstance(plot.channel_grid(layer, epoch=5, sample=0), Figure)
    assert isinstance(plot.channel_evolution(layer, sample=0, channels=range(8)), Figure)
    ax = Figure().subplots()
    assert plot.trajectories(embedding, clusters, ax=ax) is ax
    ax = Figure().subplots()
    assert plot.flow(history, ax=ax) is ax
    page = fm.write_report(run, "report.html", layers=["conv1", "layer4"], n_clusters=4)
    assert page.read_text().lstrip().lower().startswith("<!doctype html")

    checkpoints = {0: "epoch0.pt", 5: "epoch5.pt"}
    fm.replay(model, "again.zarr", checkpoints=checkpoints, layers="children", probe=probe_set)
    both = fm.compare(run, fm.open_run("again.zarr"))
    assert set(both.scores) == set(run.layers)
    assert isinstance(plot.compare(both), Figure)


@pytest.mark.slow
def test_the_commands_of_the_design(loop):
    for path in ("run.zarr", "other.zarr"):
        with fm.Recorder(loop["model"], path, layers=["conv1", "layer4"], probe=loop["probe_set"]) as recorder:
            recorder.snapshot(epoch=0)
            loop["train_one_epoch"](loop["model"], loop["train_loader"])
            recorder.snapshot(epoch=3)
    for command, written in (
        ("estimate --model resnet50 --samples 244 --epochs 25", None),
        ("info run.zarr --json", None),
        ("verify run.zarr", None),
        ("analyze run.zarr --layer layer4 --view channel --clusters 8", None),
        ("plot run.zarr grid --layer conv1 --epoch 3 --sample 0 -o conv1.png", "conv1.png"),
        ("compare run.zarr other.zarr -o both.html", "both.html"),
        ("report run.zarr -o report.html", "report.html"),
    ):
        done = CliRunner().invoke(app, command.split(), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert written is None or Path(written).stat().st_size > 1000


@pytest.mark.slow
def test_the_face_of_the_design_live(loop):
    model, criterion, optimizer = (loop[name] for name in ("model", "criterion", "optimizer"))
    train_set = loop["train_set"]
    indexed = fm.with_index(train_set)
    with fm.BatchRecorder(
        model,
        "live.zarr",
        layers=["conv1", "layer?"],
        dataset=train_set,
        record=("activation", "gradient", "weight"),
    ) as recorder:
        for epoch in range(5):
            with recorder.epoch(epoch):
                for indices, images, labels in DataLoader(indexed, batch_size=10, shuffle=True):
                    with recorder.batch(indices):
                        criterion(model(images), labels).backward()
                    assert not any(module._forward_hooks for module in model.modules())
                    optimizer.step()
                    optimizer.zero_grad()
    run = fm.open_run("live.zarr")
    assert run.kind == "live"
    assert run.epochs == [0, 1, 2, 3, 4]
    assert run.read_weights(epoch=4)["layer4.weight"].shape == (16, 12, 3, 3)
    run.load_weights(model, epoch=4)
    layer = run["layer4"]
    assert layer.read(epoch=4, samples=[3, 1]).shape == layer.gradient.read(epoch=4, samples=[3, 1]).shape
    assert fm.pca(layer.vectors("channel"), n_components=4).values.shape == (5 * 16, 4)
    assert fm.pca(layer.gradient.vectors("sample"), n_components=4).values.shape == (5 * 24, 4)
    fm.write_report(run, "report.html", layers=["layer4"], n_clusters=4)


@pytest.mark.slow
def test_the_code_on_the_page_on_exporting_runs(loop, tmp_path, monkeypatch):
    for folder in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{folder}_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    with fm.Recorder(loop["model"], "run.zarr", layers=["conv1", "layer4"], probe=loop["probe_set"]) as recorder:
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=1)
    try:
        run_the_code(ROOT / "docs" / "export.md", {})
    finally:
        import wandb

        wandb.teardown()
    assert list((tmp_path / "logs" / "run").glob("events.*"))
    assert list((tmp_path / "logs").glob("offline-run-*")) or list((tmp_path / "logs").rglob("*.wandb"))


def test_results_are_frozen(loop):
    with fm.Recorder(loop["model"], "run.zarr", layers=["layer4"], probe=loop["probe_set"]) as recorder:
        recorder.snapshot(epoch=0)
    scores = fm.pca(fm.open_run("run.zarr")["layer4"].vectors("channel"))
    with pytest.raises(AttributeError):
        scores.values = np.zeros(3)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        pytest.param("docs/index.md", marks=pytest.mark.slow),
        pytest.param("docs/analysis.md", marks=pytest.mark.slow),
        "docs/recording.md",
        pytest.param("docs/report.md", marks=pytest.mark.slow),
        "docs/migration.md",
    ],
)
def test_the_code_on_the_pages_runs(page, loop):
    run_the_code(ROOT / page, loop)


@pytest.mark.slow
def test_the_code_on_the_page_on_deciding_runs(loop):
    model, probe = loop["model"].eval(), loop["probe_set"]
    with fm.Recorder(model, "run.zarr", layers="leaves", probe=probe) as recorder:
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=2)
    states = {"start_state": model.state_dict(), "state_of_epoch_2": model.state_dict()}
    run_the_code(ROOT / "docs" / "decide.md", loop | states | {"run": fm.open_run("run.zarr"), "new_images": probe})


def run_the_code(page, names):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    assert blocks
    namespace = dict(names)
    for block in blocks:
        exec(block, namespace)
