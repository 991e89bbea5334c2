"""Maps of all snapshots, and how far they can be believed."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness

from fmcluster.analysis import FusedTSNE, Scores, embed
from fmcluster.analysis.drift import draw_drift
from fmcluster.analysis.faithfulness import measure_faithfulness
from fmcluster.analysis.neighbourhoods import find_neighbourhood, find_precisions, kernel


def scores_of(values: np.ndarray, n_snapshots: int) -> Scores:
    per = len(values) // n_snapshots
    snapshot = np.repeat(np.arange(n_snapshots), per)
    rows = pd.DataFrame(
        {"snapshot": snapshot, "epoch": snapshot, "step": snapshot, "channel": np.tile(np.arange(per), n_snapshots)}
    )
    return Scores(rows, "conv", "channel", "pooled", values, np.ones(values.shape[1]), 1.0, 99, "gram")


class Fixed:
    """A reducer that returns what it was given."""

    def __init__(self, positions):
        self.positions = positions

    def fit_transform(self, X, y=None):
        return self.positions


def test_any_reducer_maps_all_snapshots_at_once_and_stays_unfitted():
    values = np.random.default_rng(0).standard_normal((60, 5))
    mine = PCA(2)
    embedding = embed(scores_of(values, 3), mine)
    np.testing.assert_allclose(np.abs(embedding.values), np.abs(PCA(2).fit_transform(values)), atol=1e-10)
    assert not hasattr(mine, "components_")
    assert embedding.method == "PCA"
    assert embedding.fit == "pooled"
    assert list(embedding.frame.columns) == ["snapshot", "epoch", "step", "channel", "x", "y"]
    assert len(embedding.frame) == 60


def moving_groups(seed: int) -> np.ndarray:
    """Rows in four groups, (snapshot, row, feature): they hardly move but for the first ten, which change group."""
    rng = np.random.default_rng(seed)
    centres = 6 * rng.standard_normal((4, 8))
    rows = centres[np.arange(80) % 4] + rng.standard_normal((80, 8))
    drift = np.cumsum(0.02 * rng.standard_normal((12, 80, 8)), axis=0)
    values = rows + drift
    values[6:, :10] += (centres[(np.arange(10) + 1) % 4] - centres[np.arange(10) % 4])[None]
    return values


def test_the_default_keeps_neighbours_that_a_joint_tsne_loses():
    values = moving_groups(0)
    flat = values.reshape(-1, 8)
    flat = (flat - flat.mean(axis=0)) @ np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[2].T
    fused = embed(scores_of(flat, 12), random_state=0)
    joint = embed(scores_of(flat, 12), TSNE(random_state=0, init="pca", perplexity=15))
    assert fused.method == "FusedTSNE"
    assert fused.faithfulness.neighbours_kept > joint.faithfulness.neighbours_kept + 1
    moved = np.linalg.norm(np.diff(fused.by_snapshot(fused.values), axis=0), axis=2)
    assert np.median(moved[5, :10]) > 5 * np.median(moved[5, 10:])


def test_the_default_gives_the_same_twice():
    scores = scores_of(moving_groups(1).reshape(-1, 8), 12)
    np.testing.assert_array_equal(embed(scores).values, embed(scores).values)


def test_movements_too_small_to_change_neighbours_are_drawn_to_scale():
    """Rows drift a little, each at its own speed: the map has to show who drifts faster."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 6))
    speed = rng.lognormal(sigma=1, size=(60, 1)) * 0.01
    direction = rng.standard_normal((60, 6))
    values = np.stack([rows + t * speed * direction for t in range(6)])
    assert embed(scores_of(values.reshape(-1, 6), 6)).faithfulness.motion > 0.7


def test_a_linear_map_draws_drift_exactly():
    """Where the layout is a linear map of the vectors, so is what is drawn of a small movement, up to the ridge."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((200, 2))
    values = np.stack([rows, rows + 0.001 * rng.standard_normal((200, 2))])
    layout = np.stack([rows, rows]) * [10, 4]
    places = [find_neighbourhood(snapshot, perplexity=15) for snapshot in values]
    drawn = draw_drift(values, layout, neighbourhoods=places)
    true = (values[1] - values[0]) * [10, 4]
    step = drawn[1] - drawn[0]
    assert np.corrcoef(step.ravel(), true.ravel())[0, 1] > 0.95
    np.testing.assert_allclose(drawn.mean(axis=0), rows * [10, 4], atol=0.02)


def test_rows_that_moved_far_stay_where_the_layout_put_them():
    rng = np.random.default_rng(2)
    values = np.stack([rng.standard_normal((50, 4)), 100 + rng.standard_normal((50, 4))])
    layout = rng.standard_normal((2, 50, 2))
    places = [find_neighbourhood(snapshot, perplexity=15) for snapshot in values]
    np.testing.assert_allclose(draw_drift(values, layout, neighbourhoods=places), layout, atol=1e-9)


@pytest.mark.slow
def test_umap_is_a_reducer_like_any_other():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what umap-learn has to say when it is imported is not ours
        from umap import UMAP

        embedding = embed(scores_of(moving_groups(2).reshape(-1, 8), 12), UMAP(random_state=0, n_jobs=1))
    assert embedding.method == "UMAP"
    assert embedding.faithfulness.neighbours_kept > embedding.faithfulness.neighbours_chance


@pytest.mark.parametrize(("count", "per"), [(1, 4), (1, 30), (4, 1), (3, 2), (2, 3), (6, 16)])
def test_maps_of_few_rows_or_snapshots_work(count, per):
    scores = scores_of(np.random.default_rng(0).standard_normal((count * per, 3)), count)
    assert np.isfinite(embed(scores).values).all()


def test_rows_that_are_all_the_same_are_put_somewhere():
    assert np.isfinite(embed(scores_of(np.ones((60, 3)), 3)).values).all()


def test_affinities_have_the_perplexity_asked_for():
    """Within a snapshot, each row's affinities have the entropy of so many equal neighbours."""
    squares = np.sort(np.random.default_rng(0).random((50, 45)), axis=1)
    weights = kernel(squares, find_precisions(squares, perplexity=15))
    share = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(-(share * np.log(share)).sum(axis=1)), 15, rtol=1e-6)


def test_affinities_link_each_row_to_its_nearest_in_every_other_snapshot():
    values = moving_groups(3)
    groups = [np.arange(80 * snapshot, 80 * snapshot + 80) for snapshot in range(12)]
    places = [find_neighbourhood(rows, perplexity=15) for rows in values]
    matrix = FusedTSNE()._affinities(values.reshape(-1, 8), groups, places).toarray()
    np.testing.assert_allclose(matrix, matrix.T)
    for one in range(5):
        for other in range(5):
            block = matrix[80 * one : 80 * one + 80, 80 * other : 80 * other + 80]
            if one != other:
                nearest = cdist(values[one], values[other]).argmin(axis=1)
                assert (block[np.arange(80), nearest] > 0).all()
                assert (block > 0).sum() <= 2 * 80


def test_positions_of_a_view_keep_their_places_beside_the_map():
    rows = pd.DataFrame({"snapshot": 0, "epoch": 0, "step": 0, "sample": 0, "y": range(4), "x": range(4, 8)})
    scores = Scores(rows, "conv", "position", "pooled", np.eye(4), np.ones(4), 1.0, 4, "covariance")
    frame = embed(scores, Fixed(np.arange(8.0).reshape(4, 2))).frame
    assert frame["row"].tolist() == [0, 1, 2, 3]
    assert frame["column"].tolist() == [4, 5, 6, 7]
    assert frame["x"].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("reducer", "error", "message"),
    [
        (object(), TypeError, "no fit_transform"),
        (Fixed(np.zeros((60, 3))), ValueError, "gave shape"),
        (Fixed(np.full((60, 2), np.nan)), ValueError, "not finite"),
    ],
)
def test_what_is_no_map_is_refused(reducer, error, message):
    with pytest.raises(error, match=message):
        embed(scores_of(np.zeros((60, 4)), 3), reducer)


def test_too_few_rows_make_no_map():
    with pytest.raises(ValueError, match="3 rows make no map"):
        embed(scores_of(np.zeros((3, 2)), 1), PCA(2))


def test_a_perfect_map_keeps_everything():
    values = np.random.default_rng(1).standard_normal((4, 50, 2))
    told = measure_faithfulness(values, values * 3)
    assert told.n_neighbors == 15
    assert told.neighbours_kept == 15
    assert told.neighbours_chance == pytest.approx(15 * 15 / 49)
    assert told.trustworthiness == pytest.approx(1)
    assert told.motion == pytest.approx(1)
    assert told.motion_pooled == pytest.approx(1)


def test_a_random_map_keeps_what_chance_keeps():
    rng = np.random.default_rng(2)
    told = measure_faithfulness(rng.standard_normal((6, 200, 5)), rng.standard_normal((6, 200, 2)))
    assert told.neighbours_kept == pytest.approx(told.neighbours_chance, abs=0.15)
    assert told.trustworthiness == pytest.approx(0.5, abs=0.05)
    assert abs(told.motion) < 0.1


def test_motion_is_measured_step_by_step():
    """Rows move in the right order within each step, but the map shows the large step as the small one."""
    true = np.zeros((3, 10, 1))
    true[1] = np.arange(10)[:, None]
    true[2] = true[1] + 100 + np.arange(10)[:, None]
    drawn = np.zeros((3, 10, 2))
    drawn[1, :, 0] = 50 * np.arange(10)
    drawn[2, :, 0] = drawn[1, :, 0] + 0.1 * np.arange(10)
    told = measure_faithfulness(true, drawn)
    assert told.motion == pytest.approx(1)
    assert told.motion_pooled < 0.5


def test_trustworthiness_is_scikit_learns_within_each_snapshot():
    rng = np.random.default_rng(3)
    vectors, positions = rng.standard_normal((2, 40, 4)), rng.standard_normal((2, 40, 2))
    expected = np.mean([trustworthiness(a, b, n_neighbors=15) for a, b in zip(vectors, positions, strict=True)])
    assert measure_faithfulness(vectors, positions).trustworthiness == pytest.approx(expected)


def test_what_cannot_be_measured_is_not_a_number():
    one = measure_faithfulness(np.random.default_rng(4).standard_normal((1, 20, 3)), np.zeros((1, 20, 2)))
    assert np.isnan(one.motion)
    assert "not available" in str(one)
    still = measure_faithfulness(np.zeros((2, 20, 3)), np.zeros((2, 20, 2)))
    assert np.isnan(still.motion)


def test_faithfulness_of_many_rows_is_measured_on_some():
    rng = np.random.default_rng(5)
    values = rng.standard_normal((2, 5000, 2))
    told = measure_faithfulness(values, values)
    assert told.n_rows == 2000
    assert told.neighbours_kept == 15
    assert told.neighbours_chance == pytest.approx(225 / 1999)


def test_too_many_rows_for_the_default_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"at most 100,000 rows, this is 100,002.*n_rows"):
        embed(scores_of(np.zeros((100_002, 2)), 2))
