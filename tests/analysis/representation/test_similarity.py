"""Layers against layers over snapshots: against the same metrics of whole arrays."""

import multiprocessing
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import DataLoader, TensorDataset

import fmcluster as fm
from fmcluster.analysis.metrics import linear_cka, procrustes, pwcca, rbf_cka, svcca
from fmcluster.analysis.representation._similarity import METRICS, similarity
from fmcluster.store import Run

IMAGES = torch.randn(24, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2), nn.Flatten(), nn.Linear(45, 4))


def record(
    path: Path, *, seed: int = 0, samples: range = range(24), n_snapshots: int = 2, dead: int | None = None
) -> Run:
    model = network(seed)
    if dead is not None:
        nn.init.zeros_(model[dead].weight)
    probe = [(IMAGES[k], 0) for k in samples]
    with fm.Recorder(model, path, probe=probe, layers=["0", "2", "4"], dtype="float32", mode="w") as recorder:
        for epoch in range(n_snapshots):
            recorder.snapshot(epoch=epoch)
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
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
    original = type(run["0"]).read_feature_maps
    monkeypatch.setattr(
        type(run["0"]),
        "read_feature_maps",
        lambda self, *, snapshot, **rest: (
            read.append((self.name, snapshot)),
            original(self, snapshot=snapshot, **rest),
        )[1],
    )
    similarity(run)
    assert sorted(read) == [(name, k) for name in ("0", "2", "4") for k in (0, 1)]


def test_the_tables_say_what_is_compared(run) -> None:
    found = similarity(run, snapshots=[1], layers=["4", "0"])
    assert found.frame.columns.tolist() == [
        "layer_a", "snapshot_a", "epoch_a", "layer_b", "snapshot_b", "epoch_b", "value",
    ]  # fmt: skip
    [row] = found.frame.query("layer_a == '4' and layer_b == '0'").itertuples(index=False)
    whole = similarity(run)
    assert row.value == pytest.approx(whole.between_layers(1).loc["4", "0"])
    assert whole.between_snapshots("2").loc[0, 1] == pytest.approx(whole.values[2, 3])
    assert whole.between_snapshots("2").index.tolist() == [0, 1]
    assert whole.between_snapshots(SimpleNamespace(name="2")).equals(whole.between_snapshots("2"))
    last = whole.to_last()
    assert (last.index.tolist(), last.columns.tolist()) == ([0, 1], ["0", "2", "4"])
    np.testing.assert_allclose(last, [[whole.values[0, 1], whole.values[2, 3], whole.values[4, 5]], [1, 1, 1]])
    with pytest.raises(ValueError, match="there is no layer 'conv'; expected one of 0, 2, 4"):
        whole.between_snapshots("conv")


def test_two_runs_are_aligned_by_dataset_index(run, tmp_path) -> None:
    model = network(7)
    with (
        fm.BatchRecorder(model, tmp_path / "live.zarr", layers=["2", "4"], n_samples=24, dtype="float32") as recorder,
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


@pytest.fixture(scope="module")
def executors() -> Iterator[list[Executor]]:
    context = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(1, mp_context=context) as processes:
        yield [threads, processes]


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_numbers_do_not_depend_on_the_executor(metric, run, executors) -> None:
    here = similarity(run, metric=metric).values
    for executor in executors:
        np.testing.assert_allclose(similarity(run, metric=metric, executor=executor).values, here, rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_the_columns_of_two_runs_are_the_others(metric, run, tmp_path) -> None:
    """Rows are the first run's: what is not symmetric is weighed by these."""
    other = record(tmp_path / "other.zarr", seed=5, n_snapshots=1)
    found = similarity(run, other, metric=metric, layers=["2", "4"])
    assert (found.rows["snapshot"].tolist(), found.columns["snapshot"].tolist()) == ([0, 1, 0, 1], [0, 0])
    for i, (name, k) in enumerate(found.rows[["layer", "snapshot"]].itertuples(index=False)):
        for j, column in enumerate(found.columns["layer"]):
            if metric in WHOLE:
                expected = WHOLE[metric](
                    *(each.reshape(24, -1) for each in (run[name].read(snapshot=k), other[column].read(snapshot=0)))
                )
            else:
                size = (3, 3) if name == column == "2" else (1, 1)
                expected = {"svcca": svcca, "pwcca": pwcca}[metric](
                    places(run, name, k, size), places(other, column, 0, size)
                )
            assert found.values[i, j] == pytest.approx(expected, abs=2e-6), (name, k, column)
    assert found.to_last().loc[0, "4"] == found.values[2, 1]


def test_the_samples_asked_for_are_compared_in_any_order(run) -> None:
    chosen = [20, 3, 7, 11, 5]
    found = similarity(run, samples=chosen)
    a, b = (run[name].read(snapshot=0, samples=chosen).reshape(5, -1) for name in ("0", "4"))
    assert found.values[0, 4] == pytest.approx(linear_cka(a, b), abs=2e-6)
    assert found.n_samples == 5
    np.testing.assert_allclose(similarity(run, samples=sorted(chosen)).values, found.values, atol=1e-6)


@pytest.mark.parametrize("metric", ["cka", "rbf_cka"])
def test_a_biased_alignment_of_more_features_than_samples_warns(metric, run) -> None:
    with pytest.warns(UserWarning, match="biased CKA of 24 samples with 294 and 294 features is about 0.92 or more"):
        similarity(run, metric=metric, debiased=False)
    similarity(run, metric=metric, debiased=False, layers=["4"])


def test_one_channel_is_enough(tmp_path) -> None:
    torch.manual_seed(0)
    with fm.Recorder(
        nn.Sequential(nn.Conv2d(3, 1, 3), nn.Conv2d(1, 1, 3)),
        tmp_path / "run.zarr",
        probe=[(image, 0) for image in IMAGES],
        layers=["0", "1"],
        dtype="float32",
    ) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    for metric in METRICS:
        values = similarity(run, metric=metric).values
        np.testing.assert_allclose(np.diag(values), 1, atol=1e-6)
        assert 0 < values[0, 1] < 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dead", [0, 2])
def test_a_constant_layer_is_like_nothing(metric, dead, tmp_path) -> None:
    found = similarity(record(tmp_path / "run.zarr", dead=dead), metric=metric, layers=["0", "2"], snapshots=[0])
    assert np.isnan(found.values).tolist() == [[dead == 0, True], [True, True]]


class TestRefused:
    def test_few_samples(self, run) -> None:
        with pytest.raises(ValueError, match="3 samples are too few to compare layers by; expected at least 4"):
            similarity(run, samples=[0, 1, 2])

    def test_few_places(self, tmp_path) -> None:
        run = record(tmp_path / "run.zarr", samples=range(5), n_snapshots=1)
        with pytest.raises(
            ValueError, match=r"4 and 4: of canonical .* 5 points on 4 and 4 directions, at least 4 of 4"
        ):
            similarity(run, metric="pwcca", layers=["4"])

    def test_names(self, run) -> None:
        with pytest.raises(ValueError, match="metric is 'cosine'; expected one of cka, rbf_cka"):
            similarity(run, metric="cosine")
        with pytest.raises(KeyError, match="conv"):
            similarity(run, layers=["conv"])
        with pytest.raises(ValueError, match="layers is empty"):
            similarity(run, layers=[])
        with pytest.raises(TypeError, match=r"layers is the string '0'; expected a sequence of names: \['0'\]"):
            similarity(run, layers="0")
        with pytest.raises(TypeError, match="similarity received a Layer; expected Run"):
            similarity(run["0"])

    def test_samples(self, run) -> None:
        with pytest.raises(ValueError, match="samples names 3 twice"):
            similarity(run, samples=[0, 3, 5, 3, 8])
        with pytest.raises(TypeError, match="samples is of dtype bool"):
            similarity(run, samples=np.ones(24, dtype=bool))
        with pytest.raises(ValueError, match="has no sample 99"):
            similarity(run, samples=[0, 1, 2, 3, 99])

    def test_runs_with_nothing_in_common(self, run, tmp_path) -> None:
        named = nn.Sequential(OrderedDict(flat=nn.Flatten(), head=nn.Linear(243, 4)))
        with fm.Recorder(named, tmp_path / "named.zarr", layers="children", probe=[(x, 0) for x in IMAGES]) as recorder:
            recorder.snapshot(epoch=0)
        other = fm.open_run(tmp_path / "named.zarr")
        with pytest.raises(ValueError, match="no layer in common: 0, 2, 4; flat, head"):
            similarity(run, other)
        with pytest.raises(KeyError, match=r"named.zarr has no layer '4'"):
            similarity(run, other, layers=["4"])
        model = network(0)
        with (
            fm.BatchRecorder(model, tmp_path / "live.zarr", layers=["4"], n_samples=24) as recorder,
            recorder.epoch(0),
            recorder.batch(torch.arange(100, 124)),
        ):
            model(IMAGES)
        with pytest.raises(ValueError, match="no sample in common; they have to be of one probe set"):
            similarity(run, fm.open_run(tmp_path / "live.zarr"))

    @pytest.mark.parametrize("metric", METRICS)
    def test_what_is_not_finite(self, metric, tmp_path) -> None:
        model = network(0)
        model[4].weight.data[0, 0] = float("nan")
        with fm.Recorder(model, tmp_path / "run.zarr", probe=[(x, 0) for x in IMAGES], layers=["2", "4"]) as recorder:
            recorder.snapshot(epoch=0)
        run = fm.open_run(tmp_path / "run.zarr")
        with pytest.raises(ValueError, match="4 holds NaN or infinite values"):
            similarity(run, metric=metric, snapshots=[0])
        with pytest.raises(ValueError, match="at the one snapshot, layers gave NaN"):
            similarity(run, metric=metric, layers=["2", "4"])
        alone = similarity(run, metric=metric, layers=["2"]).values
        assert np.isfinite(alone).all()
        np.testing.assert_array_equal(similarity(run, metric=metric).values, alone)

    @pytest.mark.slow
    def test_a_budget_too_small(self, run) -> None:
        with pytest.raises(
            MemoryError, match=r"inner products of 24 samples at one layer at one snapshot, .* fewer samples"
        ):
            similarity(run, max_bytes=10_000)
        with pytest.raises(MemoryError, match="24 samples at 6 layers and snapshots"):
            similarity(run, metric="procrustes", max_bytes=33_000)
        with pytest.raises(MemoryError, match="products of 6 and 6 channels and the feature maps of one sample"):
            similarity(run, metric="svcca", max_bytes=1000)
