"""Private interfaces of umap-learn, openTSNE and distributed: what a new version has changed, and what needs it."""

import inspect
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.metadata import version

import numpy as np
import pytest
from scipy import sparse

from fmcluster.analysis import _compat as compat

CHANGED = "{interface} is not what it was; {used_for} needs it: adapt {function} in fmcluster/analysis/_compat.py"


def changed(interface: str, used_for: str, function: str) -> str:
    return CHANGED.format(interface=interface, used_for=used_for, function=function)


def ring(n: int) -> sparse.csr_matrix:
    """Affinities of points on a ring with both neighbors, which sum up to 1."""
    near = sparse.diags([1.0, 1.0, 1.0, 1.0], [1, -1, n - 1, 1 - n], shape=(n, n))
    return sparse.csr_matrix(near / near.sum())


def test_the_interpolated_gradient_is_that_of_the_divergence() -> None:
    said = changed("openTSNE.tsne.kl_divergence_fft", "FusedEmbedding(method='tsne')", "tsne_gradient")
    positions = np.random.default_rng(0).standard_normal((12, 2))
    affinities = ring(12)
    fine = {"n_interpolation_points": 5, "min_num_intervals": 50, "ints_in_interval": 1}

    def divergence(at: np.ndarray) -> float:
        squares = ((at[:, None] - at) ** 2).sum(-1)
        kernel = 1 / (1 + squares)
        np.fill_diagonal(kernel, 0)
        share = kernel / kernel.sum()
        p = affinities.toarray()
        return float((p[p > 0] * np.log(p[p > 0] / share[p > 0])).sum())

    value, slope = compat.tsne_gradient(positions, affinities, dof=1, fft_params=fine, n_jobs=1, error=True)
    assert value == pytest.approx(divergence(positions), rel=1e-6), said
    step = np.zeros_like(positions)
    step[3, 1] = 1e-6
    difference = (divergence(positions + step) - divergence(positions - step)) / 2e-6
    assert slope[3, 1] == pytest.approx(difference, rel=1e-3), said
    without, _ = compat.tsne_gradient(positions, affinities, dof=1, fft_params=fine, n_jobs=1, error=False)
    assert without == 0, said


def test_opentsne_descends_a_loss_of_ours() -> None:
    said = changed("openTSNE.TSNEEmbedding(negative_gradient_method=callable)", "FusedEmbedding", "minimize_tsne")
    asked = []

    def loss(positions, affinities, **options):  # a bowl around (1, 2)
        asked.append((affinities, set(options)))
        offset = np.asarray(positions) - [1.0, 2.0]
        return float((offset**2).sum()), 2 * offset

    start, affinities = np.random.default_rng(0).standard_normal((12, 2)) * 1e-4, ring(12)
    end = compat.minimize_tsne(start, loss, affinities=affinities, n_iter=200, learning_rate=0.05, random_state=0)
    np.testing.assert_allclose(end - end.mean(axis=0), 0, atol=1e-2, err_msg=said)
    expected = {"dof", "bh_params", "fft_params", "reference_embedding", "n_jobs", "should_eval_error"}
    assert asked[0][1] == expected, said
    assert asked[0][0].sum() == pytest.approx(1), said


@pytest.mark.slow
def test_umaps_curve_is_the_published_one() -> None:
    said = changed("umap.umap_.find_ab_params", "FusedEmbedding(method='umap')", "umap_curve")
    assert compat.umap_curve(1.0, 0.1) == pytest.approx((1.577, 0.895), abs=1e-3), said


@pytest.mark.slow
def test_umaps_graph_weighs_the_nearest_with_one() -> None:
    said = changed("umap.umap_.fuzzy_simplicial_set", "FusedEmbedding(method='umap')", "umap_graph")
    values = np.random.default_rng(0).standard_normal((20, 3))
    distances = np.linalg.norm(values[:, None] - values, axis=2)
    near = np.argsort(distances, axis=1)[:, :6]
    graph, scale, nearest = compat.umap_graph(
        values, near=near, distances=np.take_along_axis(distances, near, axis=1).astype(np.float32)
    )
    dense = graph.toarray()
    np.testing.assert_allclose(dense, dense.T, rtol=1e-6, err_msg=said)
    np.testing.assert_allclose(nearest, np.sort(distances, axis=1)[:, 1], rtol=1e-5, err_msg=said)
    assert dense[np.arange(20), near[:, 1]] == pytest.approx(np.ones(20)), said
    assert scale.shape == (20,), said
    assert (scale > 0).all(), said


@pytest.mark.slow
def test_one_step_of_umap_draws_the_ends_of_an_edge_together_in_place() -> None:
    said = changed("umap.layouts.optimize_layout_euclidean", "FusedEmbedding(method='umap')", "umap_step")
    positions = np.array([[0, 0], [4, 0], [0, 9]], dtype=np.float32)
    before = positions.copy()
    edges = (np.array([0], dtype=np.int32), np.array([1], dtype=np.int32))
    state = np.array([1, 2, 3], dtype=np.int64)
    compat.umap_step(positions, edges, curve=(1.577, 0.895), rate=1.0, repel=1e-9, state=state)
    assert 0 < positions[0, 0] < positions[1, 0] < 4, said
    np.testing.assert_array_equal(positions[2], before[2], err_msg=said)


def test_how_an_executor_starts_its_processes_is_known() -> None:
    said = changed("ProcessPoolExecutor._mp_context", "refusing executors that fork", "start_method")
    for method in multiprocessing.get_all_start_methods():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
            assert compat.start_method(executor) == method, said
    with ThreadPoolExecutor(1) as executor:
        assert compat.start_method(executor) == ""
        assert compat.dask_client(executor) is None


def test_the_client_of_a_dask_executor_is_known() -> None:
    """As distributed's own code has it; `tests/analysis/test_executors.py` starts a cluster."""
    executors = pytest.importorskip("distributed.cfexecutor")
    executor = executors.ClientExecutor.__new__(executors.ClientExecutor)
    executor._client = "the client"
    assert compat.dask_client(executor) == "the client"
    assert "self._client = client" in inspect.getsource(executors.ClientExecutor.__init__), changed(
        "distributed.cfexecutor.ClientExecutor._client", "adding up on the workers", "dask_client"
    )


def test_the_versions_it_was_checked_with_are_named() -> None:
    stated = inspect.getdoc(compat) or ""
    for package in ("umap-learn", "openTSNE", "distributed"):
        major = ".".join(version(package).split(".")[:2])
        assert f"{major}." in stated, f"{package} {version(package)} is installed; run these tests and name it"
