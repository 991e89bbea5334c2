"""What a pass reads: each chunk about once, at any number of snapshots and under any budget; and no size is refused."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fmcluster.analysis import pca
from fmcluster.analysis.components import _plan_reading
from fmcluster.analysis.components._plan_reading import plan_reading, products_of
from fmcluster.store import LayerSpec, Run, RunWriter, open_run
from fmcluster.store.format import _shards
from fmcluster.vectors import Vectors
from tests.analysis.array_source import ArraySource

SAMPLES, CHANNELS, SIDE = 32, 8, 16  # 4 KiB a sample


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each chunk that was decoded."""
    sizes: list[int] = []
    decompress = _shards.decompress

    def counted(data: bytes, out: np.ndarray) -> None:
        decompress(data, out)
        sizes.append(out.nbytes)

    monkeypatch.setattr(_shards, "decompress", counted)
    return sizes


def run_of(path: Path, n_snapshots: int, monkeypatch: pytest.MonkeyPatch, *, shard: int = 16) -> Run:
    """A run with chunks of 4 samples."""
    monkeypatch.setattr("fmcluster.store.writing._create.CHUNK_BYTES", 4 * 2 * CHANNELS * SIDE * SIDE)
    rng, kind = np.random.default_rng(0), rng_scale(n_snapshots)
    with RunWriter(path) as writer:
        spec = LayerSpec("conv", (CHANNELS, SIDE, SIDE), "float16", "Conv2d")
        writer.create([spec], n_samples=SAMPLES, shard_samples=shard, kind="probe")
        base = rng.standard_normal((SAMPLES, CHANNELS, SIDE, SIDE))
        for snapshot in range(n_snapshots):
            for offset in range(0, SAMPLES, shard):
                noise = rng.standard_normal((shard, CHANNELS, SIDE, SIDE))
                values = (base[offset : offset + shard] + kind[snapshot] * noise).astype(np.float16)
                writer.write("conv", offset=offset, values=values)
            writer.commit(
                epoch=snapshot,
                step=snapshot,
                index=np.arange(SAMPLES),
                statistics={("conv", "activation"): np.zeros((6, CHANNELS))},
                metrics={},
                clipped={},
            )
    return open_run(path)


def rng_scale(n_snapshots: int) -> np.ndarray:
    return np.linspace(0.1, 1, n_snapshots)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes as of a run that is a thousand times as large."""
    for name, size in {
        "BLOCK_BYTES": 1 << 17,
        "_SMALL_BLOCK_BYTES": 1 << 15,
        "_TILE_BLOCK_BYTES": 1 << 15,
        "_READ_BYTES": 1 << 16,
    }.items():
        monkeypatch.setattr(_plan_reading, name, size)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("n_snapshots", [10, 20, pytest.param(80, marks=pytest.mark.slow)])
def test_each_chunk_is_read_about_once_at_any_number_of_snapshots(n_snapshots, tmp_path, monkeypatch, decoded):
    layer = run_of(tmp_path / "run.zarr", n_snapshots, monkeypatch)["conv"]
    vectors = layer.vectors("channel")
    stored = layer.nbytes
    rows = vectors.shape[0]
    # the matrix, and what holds a chunk of each snapshot as it is stored, but not as float32
    budget = int(1.2 * (16 * rows**2 + 8 * rows * 5 * 20)) + n_snapshots * 4 * 2 * CHANNELS * SIDE**2 + (3 << 20)
    plan = plan_reading(vectors, n_components=5, max_bytes=budget)
    scores = pca(vectors, n_components=5, max_bytes=budget)
    assert plan.method == scores.method == "gram"
    assert sum(decoded) <= 1.5 * stored
    matrix = vectors.to_numpy().astype(np.float64)
    matrix -= matrix.mean(axis=0)
    left, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(scores.singular_values, singular[:5], rtol=1e-12)
    expected = left[:, :5] * singular[:5]
    expected *= np.sign((expected * scores.values).sum(axis=0))
    np.testing.assert_allclose(scores.values, expected, atol=1e-9 * singular[0])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("view", ["channel", "sample", "feature_map", "position"])
@pytest.mark.parametrize("scaling", ["none", "unit"])
def test_tiles_are_the_same_matrix(view, scaling, tmp_path, monkeypatch):
    layer = run_of(tmp_path / "run.zarr", 3, monkeypatch, shard=8)["conv"]
    for drawn in (None, 5):
        vectors = layer.vectors(view, scaling=scaling, n_rows=drawn)
        tiles = vectors.feature_tiles(block_bytes=30_000, tile_bytes=60_000)
        moments = sum(map(vectors.tile_moments, tiles)) if scaling == "unit" else None
        scale = (None, None) if moments is None else vectors.scale_rows(moments)
        blocks = [block for tile in tiles for block in vectors.read_tile(tile, scale)]
        if "n" in vectors.feature_axes:
            assert len(blocks) > len(tiles)
        np.testing.assert_allclose(np.concatenate(blocks, axis=1), vectors.to_numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_memory_stays_under_the_budget_with_tiles(tmp_path, monkeypatch):
    vectors = run_of(tmp_path / "run.zarr", 40, monkeypatch)["conv"].vectors("channel")
    budget = 9 << 20
    plan = plan_reading(vectors, n_components=5, max_bytes=budget)
    assert plan.tile_bytes
    pca(vectors, n_components=5, max_bytes=budget)  # warm
    monkeypatch.setattr("fmcluster.vectors._blocks._LEAST_BYTES", 1 << 60)  # where they are counted
    tracemalloc.start()
    pca(vectors, n_components=5, max_bytes=budget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < budget


@pytest.mark.slow
def test_rows_beyond_a_sketch_of_rows_are_reduced_over_blocks_of_them(vectors_of):
    rng = np.random.default_rng(0)
    strength = 0.8 ** np.arange(200)
    values = (rng.standard_normal((20000, 200)) * strength) @ np.linalg.qr(rng.standard_normal((200, 200)))[0]
    vectors = vectors_of(values.reshape(4, 50, 100, 20, 10).astype(np.float32), "feature_map")
    exact = pca(vectors, n_components=4)
    budget = 4_000_000
    plan = plan_reading(vectors, n_components=4, max_bytes=budget)
    assert (plan.method, plan.over) == ("randomized", "features")
    found = pca(vectors, n_components=4, max_bytes=budget)
    away = np.abs(found.singular_values**2 - exact.singular_values**2).max() / exact.singular_values[0] ** 2
    assert away <= found.error < 0.05
    np.testing.assert_allclose(found.values, exact.values, atol=1e-2 * np.abs(exact.values).max())
    assert found.total_variance == pytest.approx(exact.total_variance, rel=1e-5)
    one = pca(vectors, n_components=4, max_bytes=budget, fit_epoch=2)
    alone = pca(vectors, n_components=4, fit_epoch=2)
    np.testing.assert_allclose(one.values, alone.values, atol=1e-2 * np.abs(alone.values).max())
    assert one.error < 0.05


class Wide:
    """A layer that is asked for its sizes alone."""

    label, dtype = "conv", np.dtype(np.float16)

    def __init__(self, n_snapshots: int, shape: tuple[int, int, int]) -> None:
        import pandas as pd

        numbers = range(n_snapshots)
        self.snapshots = pd.DataFrame({"snapshot": numbers, "epoch": numbers, "step": numbers})
        self.feature_map_shape, self.channels = shape, np.arange(shape[0])


@pytest.mark.parametrize("n_rows", [400_000, 409_600, 500_000, 750_000, 1_000_000])
def test_no_number_of_rows_up_to_a_million_is_refused(n_rows):
    from fmcluster.vectors import make_vectors

    vectors = make_vectors(
        Wide(500, (n_rows // 500, 14, 14)),
        "channel",
        snapshots=range(500),
        samples=np.arange(100),
        n_rows=None,
        scaling="none",
        random_state=0,
    )
    assert abs(vectors.shape[0] - n_rows) < 500
    assert plan_reading(vectors, n_components=50, max_bytes=1 << 30).method == "randomized"


def test_a_sketch_in_place_of_what_takes_long_is_taken_where_asked_for_alone():
    def planned(rows, features, **options):
        maps = np.broadcast_to(np.float32(0), (1, 1, rows, 1, features))
        vectors = Vectors(ArraySource(maps), "channel", (0,), np.arange(1))
        return plan_reading(vectors, n_components=50, max_bytes=1 << 30, **options).method

    assert products_of(5120, 7840) > 1e11
    assert planned(5120, 7840) == "gram"
    assert planned(5120, 7840, exact=False) == "randomized"
    assert planned(600, 100_000, exact=False) == planned(300, 1 << 20, exact=False) == "gram"  # soon done, or no slower
