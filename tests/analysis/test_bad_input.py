"""The whole way, of runs that have little to say or are damaged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN, KMeans
from torch import nn

import fmcluster as fm
from fmcluster.analysis import quality
from fmcluster.analysis._analyze import analyze
from fmcluster.store import Run


def record(path: Path, *, channels: int = 9, snapshots: int = 3, samples: int = 8, dead: bool = False) -> Run:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * channels, 5))
    if dead:
        nn.init.zeros_(model[0].weight)
    images = torch.randn(samples, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with fm.Recorder(model, path, probe=[(image, k % 2) for k, image in enumerate(images)]) as recorder:
        for epoch in range(snapshots):
            recorder.snapshot(epoch=epoch)
            for parameter in model.parameters():
                parameter.data += (0 if dead else 0.1) * torch.randn_like(parameter)
    return fm.open_run(path)


@pytest.mark.slow
def test_one_snapshot_has_clusters_and_no_steps(tmp_path) -> None:
    run = record(tmp_path / "run.zarr", snapshots=1)
    found = analyze(run["0"].vectors("channel"), n_clusters=3)
    assert found.clusters.n_clusters == 3
    assert len(found.history.steps) == len(found.history.frame) == len(found.history.transitions) == 0
    assert np.isnan(found.embedding.faithfulness.motion)
    assert "one snapshot" in str(found.embedding.faithfulness)
    assert fm.similarity(run).values.shape == (4, 4)
    assert fm.top_images(run["0"], k=2).turnover.empty
    assert str(fm.diagnose(run))


def test_one_channel_is_a_row_in_each_snapshot(tmp_path) -> None:
    run = record(tmp_path / "run.zarr", channels=1)
    scores = fm.pca(run["0"].vectors("channel"))
    assert scores.values.shape == (3, 3)
    with pytest.raises(ValueError, match="an embedding takes at least 4 rows, and there are 3"):
        fm.embed(scores)
    assert fm.track(fm.cluster(scores, KMeans(1, random_state=0))).steps["churn"].tolist() == [0, 0]
    assert len(fm.diagnose(run, layers=["0"]).channels) == 3


@pytest.mark.slow
def test_constant_rows_are_one_cluster(tmp_path) -> None:
    run = record(tmp_path / "run.zarr", dead=True)
    found = analyze(run["1"].vectors("channel", scaling="unit"), n_clusters=4)
    assert found.scores.total_variance >= 0
    assert np.isfinite(found.embedding.values).all()
    assert found.clusters.n_clusters <= 4
    told = quality(fm.cluster(found.scores, KMeans(1)), found.scores).frame
    assert told["silhouette"].isna().all()
    assert told["note"].str.len().gt(0).all()
    assert fm.diagnose(run, layers=["1"]).channels["dead"].all()


@pytest.mark.slow
def test_fewer_rows_than_components_or_clusters(tmp_path) -> None:
    run = record(tmp_path / "run.zarr", snapshots=2)
    scores = fm.pca(run["3"].vectors("channel"), n_components=50)
    assert scores.values.shape == (10, 8)  # ten rows of eight features
    with pytest.raises(ValueError, match="11 clusters were asked of 10 rows"):
        fm.cluster(scores, KMeans(11))
    assert analyze(run["3"].vectors("channel"), n_clusters=99).clusters.n_clusters <= 5


def test_only_noise_never_moves(tmp_path) -> None:
    run = record(tmp_path / "run.zarr")
    clusters = fm.cluster(fm.pca(run["0"].vectors("channel")), HDBSCAN(min_cluster_size=9, min_samples=9, copy=True))
    clusters = type(clusters)(**{**vars(clusters), "labels": np.full(27, -1)})
    history = fm.track(clusters)
    assert not history.frame["moved"].any()
    assert history.transitions.empty
    assert history.steps["churn"].isna().all()


@pytest.mark.parametrize(
    "verb",
    [
        lambda run: fm.pca(run["0"].vectors("channel")),
        lambda run: fm.pca(run["0"].vectors("position")),
        lambda run: fm.similarity(run),
        lambda run: fm.similarity(run, metric="svcca", layers=["0"], n_directions=2),
        lambda run: fm.top_images(run["0"]),
        lambda run: fm.diagnose(run),
    ],
)
def test_a_damaged_chunk_is_named(verb, tmp_path) -> None:
    run = record(tmp_path / "run.zarr")
    shards = sorted(path for path in (tmp_path / "run.zarr/layers/0/activation").rglob("c*") if path.is_file())
    values = bytearray(shards[1].read_bytes())
    values[len(values) // 3] ^= 0xFF
    shards[1].write_bytes(values)
    with pytest.raises(fm.StoreError, match=r"is damaged.*layers/0/activation"):
        verb(run)
