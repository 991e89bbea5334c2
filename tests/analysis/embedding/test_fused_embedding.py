"""The default map: neighbors within snapshots, links and paths between them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.manifold import TSNE

from fmcluster.analysis.embedding._fused_embedding import FusedEmbedding
from fmcluster.analysis.embedding._losses import Task, TsneLoss, fuzzy_graphs, lay_out_tsne, lay_out_umap
from fmcluster.analysis.embedding._motion import Paths, Stays, draw_drift
from fmcluster.analysis.embedding._neighbors import LAGS, find_links, find_neighborhood, find_precisions, kernel
from fmcluster.analysis.embedding._preservation import measure_faithfulness


def moving_groups(seed: int) -> np.ndarray:
    """Rows in four groups, (snapshot, row, feature): they hardly move but for the first ten, which change group."""
    rng = np.random.default_rng(seed)
    centers = 6 * rng.standard_normal((4, 8))
    rows = centers[np.arange(80) % 4] + rng.standard_normal((80, 8))
    drift = np.cumsum(0.02 * rng.standard_normal((12, 80, 8)), axis=0)
    values = rows + drift
    values[6:, :10] += (centers[(np.arange(10) + 1) % 4] - centers[np.arange(10) % 4])[None]
    flat = values.reshape(-1, 8)
    flat = (flat - flat.mean(axis=0)) @ np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[2].T
    return flat.reshape(values.shape)


def draw(values: np.ndarray, fused: FusedEmbedding) -> np.ndarray:
    """Map vectors of shape (snapshot, row, feature)."""
    flat = values.reshape(-1, values.shape[2])
    return fused.fit_transform(flat, np.repeat(np.arange(len(values)), values.shape[1])).reshape(*values.shape[:2], 2)


def task_of(values: np.ndarray, *, n_neighbors: int = 10, link: float = 0.6, motion: float = 0.05) -> Task:
    neighborhoods = [find_neighborhood(snapshot, perplexity=n_neighbors) for snapshot in values]
    links, stays = find_links(values, neighborhoods=neighborhoods), Stays(values)
    return Task(values, neighborhoods, links, Paths(values), stays, n_neighbors, link, motion, 10, 0)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["tsne", "umap"])
def test_it_keeps_neighbors_that_a_joint_tsne_loses_and_shows_who_moves(loss):
    values = moving_groups(0)
    positions = draw(values, FusedEmbedding(loss=loss))
    told = measure_faithfulness(values, positions)
    joint = TSNE(random_state=0, init="pca", perplexity=15).fit_transform(values.reshape(-1, 8))
    other = measure_faithfulness(values, joint.reshape(12, 80, 2))
    assert told.neighbor_recall > other.neighbor_recall + 1 / 15
    assert told.motion > other.motion
    moved = np.linalg.norm(np.diff(positions, axis=0), axis=2)
    assert np.median(moved[5, :10]) > 5 * np.median(moved[5, 10:])


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["tsne", "umap"])
def test_the_same_seed_gives_the_same_map(loss):
    values = moving_groups(1)[:3]
    np.testing.assert_array_equal(
        *(draw(values, FusedEmbedding(loss=loss, n_iter=20, random_state=4)) for _ in range(2))
    )


@pytest.mark.slow
def test_a_place_means_the_same_in_every_snapshot():
    """Groups are where they were; without links, snapshots laid out by themselves need not agree."""
    values = moving_groups(2)
    positions = draw(values, FusedEmbedding())
    middles = np.stack([[snapshot[group::4][5:].mean(axis=0) for group in range(4)] for snapshot in positions])
    apart = cdist(middles[0], middles[0])[np.triu_indices(4, 1)].min()
    assert np.linalg.norm(middles - middles[0], axis=2).max() < apart / 2


@pytest.mark.slow
@pytest.mark.parametrize("lay_out", [lay_out_tsne, lay_out_umap])
def test_more_weight_on_paths_makes_movements_truer(lay_out):
    gained = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows = rng.standard_normal((60, 5)) * [3, 1, 1, 1, 1]
        jumps = rng.lognormal(sigma=1, size=(6, 60, 1)) * rng.standard_normal((6, 60, 5))
        values = rows + jumps * (np.arange(6) % 2)[:, None, None]
        free, bound = (replace(task_of(values, motion=weight), n_iter=250) for weight in (0, 0.4))
        gained.append(np.subtract(*(measure_faithfulness(values, lay_out(task)).motion for task in (bound, free))))
    assert np.mean(gained) > 0.03


@pytest.mark.slow
def test_movements_too_small_to_change_neighbors_are_drawn_to_scale():
    """Rows drift a little, each at its own speed: the map has to show who drifts faster."""
    rng = np.random.default_rng(0)
    speed = rng.lognormal(sigma=1, size=(60, 1)) * 0.01
    rows, direction = rng.standard_normal((2, 60, 6))
    values = np.stack([rows + t * speed * direction for t in range(6)])
    assert measure_faithfulness(values, draw(values, FusedEmbedding())).motion > 0.7


def test_snapshots_may_come_in_any_order_of_rows():
    values = moving_groups(4)[:4]
    flat, snapshots = values.reshape(-1, 8), np.repeat(np.arange(4), 80)
    mixed = np.argsort(np.tile(np.arange(80), 4), kind="stable")  # row by row, instead of snapshot by snapshot
    expected = FusedEmbedding(n_iter=30).fit_transform(flat, snapshots)
    fused = FusedEmbedding(n_iter=30)
    np.testing.assert_array_equal(fused.fit_transform(flat[mixed], snapshots[mixed]), expected[mixed])
    np.testing.assert_array_equal(fused.embedding_, expected[mixed])


def test_it_is_a_scikit_learn_estimator():
    fused = FusedEmbedding(loss="umap", n_neighbors=7, motion=0.1)
    assert clone(fused).get_params() == fused.get_params()
    assert fused.set_params(loss="tsne").loss == "tsne"
    one = FusedEmbedding(n_iter=50).fit_transform(moving_groups(5)[0])
    assert one.shape == (80, 2)


BOTH = pytest.mark.parametrize("loss", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])


@BOTH
@pytest.mark.parametrize(("count", "per"), [(1, 4), (4, 1), (3, 2), (2, 3), (6, 16)])
def test_few_rows_or_snapshots_work(loss, count, per):
    values = np.random.default_rng(0).standard_normal((count, per, 3))
    assert np.isfinite(draw(values, FusedEmbedding(loss=loss))).all()


@BOTH
@pytest.mark.parametrize("values", [np.ones((3, 20, 3)), np.tile(np.arange(60.0).reshape(20, 3) ** 2, (3, 1, 1))])
def test_rows_that_are_all_the_same_or_never_move_are_put_somewhere(loss, values):
    assert np.isfinite(draw(values, FusedEmbedding(loss=loss, n_iter=50))).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": "sne"}, 'loss is \'sne\'; expected "tsne" or "umap"'),
        ({"n_neighbors": 1}, "n_neighbors is 1; expected at least 2"),
        ({"n_iter": 0}, "n_iter is 0; expected at least 1"),
        ({"link": -1.0}, "link is -1.0; expected a weight of 0"),
        ({"lengths": "all"}, 'lengths is \'all\'; expected "pair" or "run"'),
        ({"motion": 0.5}, "motion is 0.5; expected a weight from 0 to below 0.5"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        FusedEmbedding(**parameters).fit_transform(np.eye(6))


def test_rows_that_are_no_snapshots_of_one_another_are_refused():
    with pytest.raises(ValueError, match="snapshots have 2 to 4 rows; expected the same rows in each"):
        FusedEmbedding().fit_transform(np.eye(6), [0, 0, 1, 1, 1, 1])
    with pytest.raises(ValueError, match=r"snapshots has shape \(3,\); expected \(6,\)"):
        FusedEmbedding().fit_transform(np.eye(6), [0, 0, 1])
    with pytest.raises(ValueError, match="NaN"):
        FusedEmbedding().fit_transform(np.full((6, 2), np.nan))


@pytest.mark.parametrize("few", [1024, 0])
@pytest.mark.parametrize("step", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("perplexity", [1, 15])
def test_links_go_to_the_nearest_row_of_snapshots_a_few_apart(few, step, perplexity, monkeypatch):
    """Also where only neighbors of a row's own other position are compared, as with many rows that move a little."""
    monkeypatch.setattr("fmcluster.analysis.embedding._neighbors._FEW_ROWS", few)
    rng, n = np.random.default_rng(6), 60
    values = rng.standard_normal((n, 3)) + step * np.cumsum(rng.standard_normal((11, n, 3)), axis=0)
    links = find_links(values, neighborhoods=[find_neighborhood(rows, perplexity=perplexity) for rows in values])
    expected = {}
    for now in range(11):
        for other in range(11):
            if abs(now - other) in LAGS:
                apart = cdist(values[now], values[other])
                for row, nearest in enumerate(apart.argmin(axis=1)):
                    expected[n * now + row, n * other + nearest] = apart[row, nearest]
    found = dict(zip(zip(links.rows.tolist(), links.columns.tolist(), strict=True), links.distances, strict=True))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[pair] for pair in expected], list(expected.values()))


def test_affinities_have_the_perplexity_asked_for():
    """Within a snapshot, each row's affinities have the entropy of so many equal neighbors."""
    squares = np.sort(np.random.default_rng(0).random((50, 45)), axis=1)
    weights = kernel(squares, find_precisions(squares, perplexity=15))
    share = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(-(share * np.log(share)).sum(axis=1)), 15, rtol=1e-6)


def energy(task: Task, loss: TsneLoss, positions: np.ndarray) -> float:
    """t-SNE's divergence in each snapshot, by the book."""
    total = 0.0
    for now, affinities in enumerate(loss.within):
        p = affinities.toarray()
        q = 1 / (1 + cdist(positions[now], positions[now]) ** 2)
        np.fill_diagonal(q, 0)
        q /= q.sum()
        total += (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum()
    links, flat = loss.links.toarray(), positions.reshape(-1, 2)
    return total + (links * np.log(1 + cdist(flat, flat) ** 2)).sum()


def slopes(function, positions: np.ndarray) -> Iterator[float]:
    for place in range(0, positions.size, 7):
        step = np.zeros(positions.size)
        step[place] = 1e-5
        step = step.reshape(positions.shape)
        yield (function(positions + step) - function(positions - step)) / 2e-5


def test_the_gradient_is_that_of_the_divergences_and_the_links():
    task = task_of(np.random.default_rng(7).standard_normal((3, 14, 4)), motion=0)
    loss = TsneLoss(task)
    positions = np.random.default_rng(8).standard_normal((3, 14, 2))
    _, gradient = gradient_of(loss, positions)
    found = gradient.ravel()[::7]
    np.testing.assert_allclose(found, list(slopes(lambda y: energy(task, loss, y), positions)), atol=1e-7)
    for affinities in loss.within:
        assert affinities.sum() == pytest.approx(1)


def gradient_of(loss: TsneLoss, positions: np.ndarray) -> tuple[float, np.ndarray]:
    return loss(
        positions.reshape(-1, 2),
        loss.links,
        dof=1,
        bh_params={"theta": 0},
        fft_params={},
        reference_embedding=None,
        n_jobs=1,
        should_eval_error=True,
    )


@pytest.mark.parametrize("n_threads", [2, 7])
def test_threads_change_neither_the_divergence_nor_the_gradient(n_threads):
    task = task_of(np.random.default_rng(7).standard_normal((5, 14, 4)), motion=0.1)
    positions = np.random.default_rng(8).standard_normal((5, 14, 2))
    alone = gradient_of(TsneLoss(task), positions)
    with ThreadPoolExecutor(n_threads) as threads:
        found = gradient_of(TsneLoss(task, threads=threads, n_threads=n_threads), positions)
    assert found[0] == alone[0] > 0
    np.testing.assert_array_equal(found[1], alone[1])


def test_paths_pull_towards_lengths_in_proportion_to_the_true_ones():
    rng = np.random.default_rng(9)
    values = rng.standard_normal((5, 6, 3))
    positions = rng.standard_normal((5, 6, 2))
    expected = np.zeros_like(positions)
    for lag in (1, 2, 4):
        for now in range(5 - lag):
            steps = positions[now + lag] - positions[now]
            lengths = np.linalg.norm(steps, axis=1)
            true = np.linalg.norm(values[now + lag] - values[now], axis=1)
            wanted = true * lengths.mean() / true.mean()
            for row in range(6):
                excess = (lengths[row] - wanted[row]) * steps[row] / lengths[row] / 3
                expected[now + lag, row] += excess
                expected[now, row] -= excess
    np.testing.assert_allclose(Paths(values).pull(positions), expected, atol=1e-12)


def test_with_one_scale_all_lengths_of_the_run_are_in_proportion():
    rng = np.random.default_rng(9)
    values = rng.standard_normal((4, 6, 3)) * np.array([1, 1, 1, 30])[:, None, None]
    positions = rng.standard_normal((4, 6, 2))
    pairs = [(now, now + lag) for lag in (1, 2) for now in range(4 - lag)]
    true, drawn = (
        np.array([np.linalg.norm(each[b] - each[a], axis=1) for a, b in pairs]) for each in (values, positions)
    )
    expected = np.zeros_like(positions)
    for (a, b), wanted, lengths in zip(pairs, true * drawn.sum() / true.sum(), drawn, strict=True):
        pull = ((lengths - wanted) / lengths)[:, None] * (positions[b] - positions[a]) / 2
        expected[b] += pull
        expected[a] -= pull
    np.testing.assert_allclose(Paths(values, lengths="run").pull(positions), expected, atol=1e-12)


@pytest.mark.parametrize("loss", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_rows_that_do_not_move_are_drawn_where_they_were(loss):
    """Ten rows stay, ten stay but for one jump, and the others wander around them."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((60, 6))
    values = rows + np.cumsum(0.3 * rng.standard_normal((5, 60, 6)), axis=0)
    values[:, :20] = rows[:20]
    values[3:, 10:20] += 3
    values[:, :10] += 1e-9 * rng.standard_normal((5, 10, 6))  # rounding
    positions = draw(values, FusedEmbedding(loss=loss, n_iter=60))
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=2)
    still = np.zeros((4, 60), bool)
    still[:, :20] = True
    still[2, 10:20] = False
    extent = np.ptp(positions, axis=(0, 1)).max()
    assert steps[still].max() < 1e-6 * extent
    assert steps[~still].min() > 1e-4 * extent


def test_an_average_over_a_stay_is_that_of_its_snapshots():
    values = np.array([0.0, 0.0, 5.0, 5.0, 0.0])[:, None, None] * np.ones((1, 2, 3))
    values[:, 1] = np.arange(5)[:, None]  # the second row always moves
    positions = np.random.default_rng(0).standard_normal((5, 2, 2))
    found = Stays(values).average(positions)
    np.testing.assert_array_equal(found[:, 1], positions[:, 1])
    for stay in ([0, 1], [2, 3], [4]):
        np.testing.assert_allclose(found[stay, 0], np.tile(positions[stay, 0].mean(axis=0), (len(stay), 1)))
    moving = Stays(np.random.default_rng(1).standard_normal((5, 2, 3)))
    assert moving.average(positions) is positions


def test_following_the_pull_alone_gives_a_true_path():
    """In the plane, paths can be drawn exactly: lengths between snapshots 1, 2 and 4 apart end up in proportion."""
    rng = np.random.default_rng(10)
    values = np.cumsum(rng.standard_normal((5, 20, 2)), axis=0)
    positions = values + 0.3 * rng.standard_normal(values.shape)
    paths = Paths(values)
    for _ in range(2000):
        positions = positions - 0.2 * paths.pull(positions)
    for lag in (1, 2, 4):
        true = np.linalg.norm(values[lag:] - values[:-lag], axis=2)
        drawn = np.linalg.norm(positions[lag:] - positions[:-lag], axis=2)
        assert min(spearmanr(a, b).statistic for a, b in zip(true, drawn, strict=True)) > 0.99


@pytest.mark.slow
def test_the_fuzzy_graph_of_a_snapshot_is_umaps_own():
    from umap import UMAP

    values = np.random.default_rng(11).standard_normal((2, 60, 4)).astype(np.float32).astype(np.float64)
    graphs, links = fuzzy_graphs(task_of(values))
    for snapshot, graph in zip(values, graphs, strict=True):
        own = UMAP(n_neighbors=10, random_state=0, n_jobs=1, n_epochs=1).fit(snapshot).graph_
        np.testing.assert_allclose(graph.toarray(), own.toarray(), atol=1e-5)
    dense = links.toarray()
    np.testing.assert_array_equal(dense, dense.T)
    assert 0 < dense[:60, 60:].max() <= 0.6 + 0.6 - 0.36
    assert not dense[:60, :60].any()


def test_a_linear_map_draws_drift_exactly():
    """Where the layout is a linear map of the vectors, so is what is drawn of a small movement, up to the ridge."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((200, 2))
    values = np.stack([rows, rows + 0.001 * rng.standard_normal((200, 2))])
    layout = np.stack([rows, rows]) * [10, 4]
    neighborhoods = [find_neighborhood(snapshot, perplexity=15) for snapshot in values]
    drawn = draw_drift(values, layout, neighborhoods=neighborhoods)
    true = (values[1] - values[0]) * [10, 4]
    assert np.corrcoef((drawn[1] - drawn[0]).ravel(), true.ravel())[0, 1] > 0.95
    np.testing.assert_allclose(drawn.mean(axis=0), rows * [10, 4], atol=0.02)


def test_rows_that_moved_far_stay_where_the_layout_put_them():
    rng = np.random.default_rng(2)
    values = np.stack([rng.standard_normal((50, 4)), 100 + rng.standard_normal((50, 4))])
    layout = rng.standard_normal((2, 50, 2))
    neighborhoods = [find_neighborhood(snapshot, perplexity=15) for snapshot in values]
    np.testing.assert_allclose(draw_drift(values, layout, neighborhoods=neighborhoods), layout, atol=1e-9)


@pytest.mark.slow
def test_many_rows_that_wander_keep_their_neighbors():
    rng = np.random.default_rng(12)
    centers = 4 * rng.standard_normal((30, 20))
    rows = centers[rng.integers(30, size=1024)] + rng.standard_normal((1024, 20))
    values = rows + np.cumsum(0.3 * rng.standard_normal((8, 1024, 20)), axis=0)
    positions = draw(values, FusedEmbedding())
    told = measure_faithfulness(values, positions)
    assert told.neighbor_recall > 20 * told.neighbor_recall_chance


def test_interpolated_repulsion_is_nearly_that_of_all_pairs(monkeypatch):
    values = moving_groups(4)[:2]
    task = task_of(values)
    positions = 5 * task.start(scale=1.0).reshape(-1, 2)
    interpolation = {"n_interpolation_points": 3, "min_num_intervals": 50, "ints_in_interval": 1}
    options = {"dof": 1, "bh_params": {}, "fft_params": interpolation, "reference_embedding": None, "n_jobs": 1}
    exact = TsneLoss(task)(positions, None, should_eval_error=True, **options)
    monkeypatch.setattr("fmcluster.analysis.embedding._losses.MOST_ROWS", 79)
    close = TsneLoss(task)(positions, None, should_eval_error=True, **options)
    assert close[0] == pytest.approx(exact[0], rel=1e-2)
    assert np.linalg.norm(close[1] - exact[1]) < 0.02 * np.linalg.norm(exact[1])
    assert not np.array_equal(close[1], exact[1])
