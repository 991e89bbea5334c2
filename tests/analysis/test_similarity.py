"""Layers against layers over snapshots: against the same metrics of whole arrays."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import DataLoader, TensorDataset

import fmcluster as fm
from fmcluster.analysis.representations import linear_cka, procrustes, pwcca, rbf_cka, svcca
from fmcluster.analysis.similarity import METRICS, similarity
from fmcluster.store import Run

IMAGES = torch.randn(24, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2), nn.Flatten(), nn.Linear(45, 4))


def record(
    path: Path, *, seed: int = 0, samples: range = range(24), n_snapshots: int = 2, constant: bool = False
) -> Run:
    model = network(seed)
    if constant:
        nn.init.zeros_(model[2].weight)
    probe = [(IMAGES[k], 0) for k in samples]
    with fm.Recorder(model, path, probe=probe, layers=["0", "2", "4"], dtype="float32", mode="w") as recorder:
        for epoch in range(n_snapshots):
            recorder.snapshot(epoch=epoch)
            for parameter in model.parameters():
                parameter.data += (0 if constant else 0.05) * torch.randn_like(parameter)
    return fm.open_run(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return record(tmp_path_factory.mktemp("similarity") / "run.zarr")


def arrays(run: Run) -> list[np.ndarray]:
    return [run[name].read(snapshot=k).reshape(len(run.samples), -1) for name in run.layers for k in range(len(run))]


WHOLE = {"cka": linear_cka, "rbf_cka": rbf_cka, "procrustes": procrustes}


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("metric", WHOLE)
@pytest.mark.filterwarnings("ignore:biased CKA")
def test_all_pairs_are_those_of_whole_arrays(metric, debiased, run) -> None:
    options = {} if metric == "procrustes" else {"debiased": debiased}
    found = similarity(run, metric=metric, **options)
    expected = [[WHOLE[metric](a, b, **options) for b in arrays(run)] for a in arrays(run)]
    np.testing.assert_allclose(found.values, expected, atol=2e-6)
    assert found.rows[["layer", "snapshot"]].to_numpy().tolist() == [[n, k] for n in ("0", "2", "4") for k in (0, 1)]
    assert found.debiased is (debiased and metric != "procrustes")


def places(run: Run, name: str, snapshot: int, size: tuple[int, int]) -> np.ndarray:
    values = run[name].read(snapshot=snapshot)
    maps = torch.from_numpy(values if values.ndim == 4 else values[..., None, None])
    pooled = adaptive_avg_pool2d(maps, size).numpy()
    return pooled.transpose(0, 2, 3, 1).reshape(-1, pooled.shape[1])


@pytest.mark.parametrize(("metric", "whole"), [("svcca", svcca), ("pwcca", pwcca)])
@pytest.mark.parametrize("max_bytes", [1 << 30, 60_000])
def test_channels_are_compared_over_places_of_the_smaller_size(metric, whole, max_bytes, run) -> None:
    sizes = {"0": 7, "2": 3, "4": 1}
    found = similarity(run, metric=metric, max_bytes=max_bytes)
    for i, (name, k) in enumerate(found.rows[["layer", "snapshot"]].itertuples(index=False)):
        for j, (other, m) in enumerate(found.rows[["layer", "snapshot"]].itertuples(index=False)):
            size = (min(sizes[name], sizes[other]),) * 2
            expected = whole(places(run, name, k, size), places(run, other, m, size))
            assert found.values[i, j] == pytest.approx(expected, abs=1e-6), (name, k, other, m)


def test_directions_may_be_few(run) -> None:
    found = similarity(run, metric="svcca", layers=["0", "2"], n_directions=2)
    expected = svcca(places(run, "0", 0, (3, 3)), places(run, "2", 1, (3, 3)), n_directions=2)
    assert found.between_layers(0).shape == (2, 2)
    assert found.values[0, 3] == pytest.approx(expected, abs=1e-6)


def test_each_layer_and_snapshot_is_read_once(run, monkeypatch) -> None:
    read = []
    original = type(run["0"]).read_maps
    monkeypatch.setattr(
        type(run["0"]),
        "read_maps",
        lambda self, *, snapshot, **rest: (
            read.append((self.name, snapshot)),
            original(self, snapshot=snapshot, **rest),
        )[1],
    )
    similarity(run)
    assert sorted(read) == [(name, k) for name in ("0", "2", "4") for k in (0, 1)]


def test_the_tables_say_what_is_compared(run) -> None:
    found = similarity(
        run,
        snapshots=[
            1,
        ],
        layers=["4", "0"],
    )
    assert found.frame.columns.tolist() == [
        "layer_a", "snapshot_a", "epoch_a", "layer_b", "snapshot_b", "epoch_b", "value",
    ]  # fmt: skip
    [row] = found.frame.query("layer_a == '4' and layer_b == '0'").itertuples(index=False)
    whole = similarity(run)
    assert row.value == pytest.approx(whole.between_layers(1).loc["4", "0"])
    assert whole.between_snapshots("2").loc[0, 1] == pytest.approx(whole.values[2, 3])
    assert whole.between_snapshots("2").index.tolist() == [0, 1]
    with pytest.raises(ValueError, match="there is no layer 'conv'; expected one of 0, 2, 4"):
        whole.between_snapshots("conv")


def test_two_runs_are_aligned_by_dataset_index(run, tmp_path) -> None:
    model = network(7)
    with (
        fm.Recorder(model, tmp_path / "live.zarr", layers=["2", "4"], n_samples=24, dtype="float32") as recorder,
        recorder.epoch(0),
    ):
        for indices, images in DataLoader(
            fm.with_index(TensorDataset(IMAGES)), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0)
        ):
            if 3 not in indices.tolist():
                with recorder.batch(indices):
                    model(images)
    live = fm.open_run(tmp_path / "live.zarr")
    found = similarity(run, live, metric="cka")
    missing = sorted(set(range(24)) - set(live.samples.index[live.samples.index.isin(live.common_samples([0]))]))
    assert 3 in missing
    assert found.left_out.tolist() == missing
    assert found.n_samples == 24 - len(missing)
    kept = [k for k in range(24) if k not in missing]
    a = run["4"].read(snapshot=1, samples=kept)
    b = live["2"].read(snapshot=0, samples=kept).reshape(len(kept), -1)
    assert (found.rows["layer"].tolist(), found.columns["layer"].tolist()) == (["2", "2", "4", "4"], ["2", "4"])
    assert found.values[3, 0] == pytest.approx(linear_cka(a, b), abs=2e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_numbers_do_not_depend_on_the_executor(metric, run) -> None:
    here = similarity(run, metric=metric).values
    with ThreadPoolExecutor(3) as threads:
        np.testing.assert_allclose(similarity(run, metric=metric, executor=threads).values, here, rtol=1e-6)
    if metric == "svcca":
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
            np.testing.assert_allclose(similarity(run, metric=metric, executor=processes).values, here, rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_a_constant_layer_is_like_nothing(metric, tmp_path) -> None:
    found = similarity(record(tmp_path / "run.zarr", constant=True, n_snapshots=1), metric=metric, layers=["0", "2"])
    assert np.isnan(found.values).tolist() == [[False, True], [True, True]]


class TestRefused:
    def test_few_samples(self, run) -> None:
        with pytest.raises(ValueError, match="3 samples are too few to compare layers by; expected at least 4"):
            similarity(run, samples=[0, 1, 2])

    def test_few_places(self, tmp_path) -> None:
        run = record(tmp_path / "run.zarr", samples=range(5), n_snapshots=1)
        with pytest.raises(ValueError, match=r"5 points on 4 directions are 1 whatever they are; take more samples"):
            similarity(run, metric="pwcca", layers=["4"])

    def test_names(self, run) -> None:
        with pytest.raises(ValueError, match="metric is 'cosine'; expected one of cka, rbf_cka"):
            similarity(run, metric="cosine")
        with pytest.raises(KeyError, match="conv"):
            similarity(run, layers=["conv"])
        with pytest.raises(ValueError, match="layers is empty"):
            similarity(run, layers=[])
        with pytest.raises(TypeError, match="similarity received a Layer; expected Run"):
            similarity(run["0"])

    def test_a_budget_too_small(self, run) -> None:
        with pytest.raises(
            MemoryError, match=r"inner products of 24 samples at 6 layers and snapshots .* fewer samples"
        ):
            similarity(run, max_bytes=10_000)
        with pytest.raises(MemoryError, match="products of 6 and 6 channels and the maps of one sample"):
            similarity(run, metric="svcca", max_bytes=1000)
