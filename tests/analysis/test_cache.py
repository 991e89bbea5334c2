"""Results beside a run: used again only where what made them is the same."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

import fmcluster as fm
from fmcluster.analysis import Clusters, Embedding, Findings, Scores, Thresholds
from fmcluster.analysis._analyze import analyze
from fmcluster.analysis._cache import ResultCache, describe
from fmcluster.store import Run


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Run]:
    """Record a small network at two or more moments; weights by seed."""

    def make(*, seed: int = 0, snapshots: int = 2, mode: str = "w") -> Run:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 10, 3))
        images = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        with fm.Recorder(model, tmp_path / "run.zarr", probe=[(image, 0) for image in images], mode=mode) as recorder:
            for epoch in range(snapshots):
                recorder.snapshot(epoch=epoch)
                for parameter in model.parameters():
                    parameter.data += 0.1 * torch.randn_like(parameter)
        return fm.open_run(tmp_path / "run.zarr")

    return make


def files(run: Run) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(f"{run.path}.results").iterdir()}


def verbs(run: Run) -> list[str]:
    return sorted(name.rsplit("-", 2)[1] for name in files(run))


def same(one: object, other: object) -> None:
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, pd.DataFrame):
            pd.testing.assert_frame_equal(a, b)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        else:
            assert a == b or (a != a and b != b), field.name


@pytest.mark.slow
def test_the_same_study_twice_is_made_once(record) -> None:
    run = record()
    first = analyze(run["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run))
    assert verbs(run) == ["cluster", "embed", "pca"]
    before = files(run)
    again = analyze(fm.open_run(run.path)["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run))
    assert files(run) == before
    fresh = analyze(run["2"].vectors("channel"), n_clusters=3)
    for name, kind in (("scores", Scores), ("embedding", Embedding), ("clusters", Clusters)):
        assert isinstance(getattr(again, name), kind)
        same(getattr(first, name), getattr(again, name))
        same(getattr(first, name), getattr(fresh, name))
    pd.testing.assert_frame_equal(again.history.frame, first.history.frame)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "made"),
    [
        ({"n_clusters": 4}, ["cluster"]),
        ({"random_state": 1}, ["cluster", "embed", "pca"]),
        ({"n_components": 5}, ["cluster", "embed", "pca"]),
        ({"reducer": PCA(2)}, ["embed"]),
        ({"reducer": PCA(2, whiten=True)}, ["embed"]),
    ],
)
def test_other_parameters_are_another_result(change, made, record) -> None:
    run = record()
    analyze(run["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run))
    if isinstance(change.get("reducer"), PCA):
        analyze(run["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run), reducer=PCA(2, tol=0.1))
    before = files(run)
    analyze(run["2"].vectors("channel"), cache=ResultCache.beside(run), **({"n_clusters": 3} | change))
    assert sorted(name.rsplit("-", 2)[1] for name in files(run).keys() - before.keys()) == made


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"samples": [0, 1, 2, 3]}, {"samples": [3, 2, 1, 0, 4, 5, 6, 7, 8]}, {"snapshots": [0]}, {"scaling": "unit"}],
)
def test_other_vectors_are_another_result(options, record) -> None:
    run = record()
    for arguments in ({}, options):
        analyze(run["2"].vectors("channel", **arguments), n_clusters=3, cache=ResultCache.beside(run))
    assert verbs(run) == ["cluster", "cluster", "embed", "embed", "pca", "pca"]


@pytest.mark.slow
def test_other_rows_drawn_are_another_result(record) -> None:
    run = record()
    for seed in (0, 1):
        vectors = run["2"].vectors("channel", n_rows=5, random_state=seed)
        analyze(vectors, n_clusters=3, cache=ResultCache.beside(run))
    assert verbs(run).count("pca") == 2


@pytest.mark.slow
def test_other_snapshots_or_activations_are_another_result(record) -> None:
    saved = ResultCache.beside(record())
    for options in ({}, {"snapshots": 3}, {"seed": 1}):
        run = record(**options)
        values = analyze(run["2"].vectors("channel"), n_clusters=3).scores.values
        np.testing.assert_array_equal(analyze(run["2"].vectors("channel"), cache=saved).scores.values, values)
    assert verbs(run).count("pca") == 3


@pytest.mark.slow
def test_a_snapshot_that_was_replaced_never_gets_an_old_result(record, monkeypatch) -> None:
    """Its statistics, epoch, step and samples are those of the old one: its commit alone tells them apart."""
    saved = ResultCache.beside(record())
    old = record()
    analyze(old["2"].vectors("channel"), n_clusters=3, cache=saved)
    statistics = old["2"].statistics
    new = record(seed=1)
    monkeypatch.setattr(fm.store.Layer, "statistics", statistics)
    truth = analyze(new["2"].vectors("channel"), n_clusters=3)
    found = analyze(new["2"].vectors("channel"), n_clusters=3, cache=saved)
    for name in ("scores", "embedding", "clusters"):
        same(getattr(found, name), getattr(truth, name))
    assert verbs(new) == ["cluster", "cluster", "embed", "embed", "pca", "pca"]


@pytest.mark.slow
def test_a_snapshot_that_is_not_asked_for_does_not_matter(record) -> None:
    run = record(snapshots=2)
    analyze(run["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run))
    before = files(run)
    longer = record(snapshots=3)
    analyze(longer["2"].vectors("channel", snapshots=[0, 1]), n_clusters=3, cache=ResultCache.beside(longer))
    assert files(longer) == before


@pytest.mark.slow
def test_equal_runs_use_the_same_results(record, tmp_path) -> None:
    """A run that was recorded again from the same weights, or copied, holds the same: so says its identity."""
    run = record()
    first = analyze(run["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run))
    before = files(run)
    copied = fm.open_run(shutil.copytree(run.path, tmp_path / "copy.zarr"))
    for other in (record(), copied):
        again = analyze(other["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run))
        same(first.scores, again.scores)
    assert files(run) == before


def test_the_key_is_made_without_reading_the_maps(record, monkeypatch) -> None:
    run = record()
    expected = describe(run["2"].vectors("channel"))

    def refuse(*_: object) -> None:
        raise AssertionError("feature maps were read")

    fresh = fm.open_run(run.path)
    monkeypatch.setattr(fm.store.Layer, "_read_slots", refuse)
    assert describe(fresh["2"].vectors("channel")) == expected


def test_vectors_of_no_run_are_not_saved(record) -> None:
    """Nothing vouches for what they are."""
    run = record()
    vectors = dataclasses.replace(run["2"].vectors("channel"), source=Elsewhere(run["2"]))
    cache = ResultCache.beside(run)
    assert cache.use(lambda: "made", str, verb="pca", vectors=vectors, parameters={}) == "made"
    assert not cache.folder.exists()


class Elsewhere:
    """A source of vectors that is no layer of a run."""

    def __init__(self, layer: fm.store.Layer) -> None:
        self._layer = layer

    def __getattr__(self, name: str) -> object:
        return getattr(self._layer, name)


@pytest.mark.slow
def test_what_is_too_large_to_be_read_back_is_not_saved(record, monkeypatch) -> None:
    run = record()
    monkeypatch.setattr("fmcluster.analysis._saved_result.MAX_BYTES", 0)
    with pytest.warns(UserWarning, match="is not saved in .*: it takes 0 MiB, and at most 0 are read back"):
        analyze(run["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run))
    assert list(Path(f"{run.path}.results").glob("*")) == []


@pytest.mark.slow
def test_the_file_says_what_made_it(record) -> None:
    run = record()
    analyze(run["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run))
    [path] = Path(f"{run.path}.results").glob("*-pca-*.npz")
    with np.load(path, allow_pickle=False) as file:
        key = json.loads(str(file["about"]))["key"]
    assert key["verb"] == "pca"
    assert key["parameters"]["n_components"] == 50
    assert key["of"][0]["snapshots"]["epoch"] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b"not a zip file", None])
def test_a_damaged_file_is_made_again_with_a_warning(damage, record) -> None:
    run = record()
    saved = ResultCache.beside(run)
    first = analyze(run["2"].vectors("channel"), n_clusters=3, cache=saved)
    [path] = Path(f"{run.path}.results").glob("*-pca-*.npz")
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    with pytest.warns(UserWarning, match="cannot be read .* the result is computed again"):
        again = analyze(run["2"].vectors("channel"), n_clusters=3, cache=saved)
    same(first.scores, again.scores)
    analyze(run["2"].vectors("channel"), n_clusters=3, cache=saved)  # is whole again: no warning


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_a_warning(record) -> None:
    run = record()
    Path(f"{run.path}.results").write_text("a file is in the way")
    with pytest.warns(UserWarning, match="the result is not saved in"):
        found = analyze(run["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(run))
    assert found.clusters.n_clusters == 3


def test_at_a_url_of_no_object_store_there_is_no_folder_beside_a_run(record) -> None:
    run = record()
    run.path = "https://host/run.zarr"
    assert ResultCache.beside(run) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_results_of_a_run_in_a_bucket_lie_beside_it_there(record, monkeypatch, tmp_path) -> None:
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    from tests.store.bucket import environment_of, keys_of, objects_of, s3_server

    with s3_server() as server:
        for key, value in environment_of(server).items():
            monkeypatch.setenv(key, value)
        here, url = record(), "s3://bucket/of/run.zarr"
        fm.copy_run(here.path, url)
        there = fm.open_run(url)
        copied = objects_of(server, "of/run.zarr")
        first = analyze(there["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(there))
        saved = keys_of(server, "of/run.zarr.results")
        assert sorted(name.rsplit("-", 2)[1] for name in saved) == ["cluster", "embed", "pca"]
        server.asked.clear()
        again = analyze(fm.open_run(url)["2"].vectors("channel"), n_clusters=3, cache=ResultCache.beside(there))
        assert not [each for each in server.asked if each.startswith("PUT") or "activation" in each]
        fresh = analyze(here["2"].vectors("channel"), n_clusters=3)
        for name in ("scores", "embedding", "clusters"):
            same(getattr(again, name), getattr(first, name))
            same(getattr(again, name), getattr(fresh, name))
        assert objects_of(server, "of/run.zarr") == copied  # nothing is written to the run
        other = ResultCache("s3://nobucket/run.zarr.results")
        with pytest.warns(UserWarning, match=r"not saved in s3://nobucket/run\.zarr\.results: .* no such bucket"):
            analyze(there["2"].vectors("channel"), n_clusters=3, cache=other)


def test_a_reducer_that_does_not_tell_its_parameters_is_not_saved(record) -> None:
    class Flat:
        def fit_transform(self, X: np.ndarray) -> np.ndarray:
            return X[:, :2]

    run = record()
    analyze(run["2"].vectors("channel"), reducer=Flat(), cache=ResultCache.beside(run))
    assert not Path(f"{run.path}.results").exists()


@pytest.mark.slow
def test_findings_are_read_back_with_their_advice_thresholds_and_gaps(record) -> None:
    run = record()
    cache = ResultCache.beside(run)
    vectors = [run[name].vectors("sample") for name in run.layers]
    made = fm.diagnose(run, thresholds=Thresholds(dead=1.0))
    assert made.advice

    def refuse() -> Findings:
        raise AssertionError("computed again")

    def use(make: Callable[[], Findings], parameters: dict[str, int]) -> Findings:
        return cache.use(make, Findings, verb="diagnose", vectors=vectors, parameters=parameters)

    assert use(lambda: made, {"seed": 0}) is made
    found = use(refuse, {"seed": 0})
    assert found.thresholds == made.thresholds
    for name in ("frame", "channels", "layers"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(made, name))
    assert [(each.layer, each.action, each.text) for each in found.advice] == [
        (each.layer, each.action, each.text) for each in made.advice
    ]
    for one, other in zip(found.advice, made.advice, strict=True):
        pd.testing.assert_frame_equal(one.evidence, other.evidence)
    with pytest.raises(AssertionError, match="computed again"):
        use(refuse, {"seed": 1})
    nothing = dataclasses.replace(made, advice=())
    use(lambda: nothing, {"seed": 2})
    assert use(refuse, {"seed": 2}).advice == ()
