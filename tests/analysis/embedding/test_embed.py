"""Maps of all snapshots: together, each by itself, or by the map of one."""

import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from fmcluster.analysis._results import Scores
from fmcluster.analysis.embedding._embed import embed
from fmcluster.analysis.embedding._fused_embedding import FusedEmbedding
from fmcluster.analysis.embedding._preservation import measure_faithfulness


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


def turning(n_snapshots: int) -> np.ndarray:
    """Rows that stay where they are, seen from another side in every snapshot: (snapshot, row, feature)."""
    rows = np.random.default_rng(0).standard_normal((30, 2)) * [5, 1]
    angles = np.linspace(0, 2, n_snapshots)
    turns = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    return np.stack([rows @ turn + 10 * angle for turn, angle in zip(turns, angles, strict=True)])


class Identity:
    """A reducer that leaves two features as they are, and counts what it was fitted on."""

    def fit_transform(self, X):
        self.fitted = len(X)
        return X

    def transform(self, X):
        return np.asarray(X) + 1000 * self.fitted


@pytest.mark.slow
def test_the_default_is_the_fused_map_of_all_snapshots():
    values = np.random.default_rng(1).standard_normal((4, 30, 5))
    scores = scores_of(values.reshape(-1, 5), 4)
    embedding = embed(scores, random_state=3)
    expected = FusedEmbedding(random_state=3).fit_transform(scores.values, scores.rows["snapshot"])
    np.testing.assert_array_equal(embedding.values, expected)
    assert embedding.method == "FusedEmbedding"
    assert embedding.fit == "pooled"
    assert embedding.faithfulness == measure_faithfulness(values, expected.reshape(4, 30, 2))


def test_maps_of_each_snapshot_are_turned_and_moved_onto_the_one_before():
    """The same shape, turned and moved in every snapshot: aligned, all maps are the first."""
    values = turning(5)
    embedding = embed(scores_of(values.reshape(-1, 2), 5), Identity(), fit="each")
    for positions in embedding.by_snapshot(embedding.values):
        np.testing.assert_allclose(positions, values[0], atol=1e-9)
    assert embedding.fit == "each"


def test_alignment_mirrors_but_does_not_scale():
    values = turning(2)
    values[1] = 3 * values[0] * [1, -1]
    embedding = embed(scores_of(values.reshape(-1, 2), 2), Identity(), fit="each")
    first, second = embedding.by_snapshot(embedding.values)
    np.testing.assert_allclose(second - second.mean(axis=0), 3 * (first - first.mean(axis=0)), atol=1e-9)
    np.testing.assert_allclose(second.mean(axis=0), first.mean(axis=0))


def test_a_reducer_of_each_snapshot_sees_that_snapshot_alone():
    values = np.random.default_rng(2).standard_normal((3, 40, 5))
    mine = PCA(2)
    embedding = embed(scores_of(values.reshape(-1, 5), 3), mine, fit="each")
    for positions, rows in zip(embedding.by_snapshot(embedding.values), values, strict=True):
        own = PCA(2).fit_transform(rows)
        np.testing.assert_allclose(
            np.linalg.norm(positions - positions.mean(axis=0), axis=1), np.linalg.norm(own, axis=1)
        )
    assert not hasattr(mine, "components_")


def test_an_epochs_map_takes_in_the_others_by_transform():
    values = turning(3)
    embedding = embed(scores_of(values.reshape(-1, 2), 3), Identity(), fit_epoch=1)
    expected = values + 30_000
    expected[1] = values[1]
    np.testing.assert_array_equal(embedding.by_snapshot(embedding.values), expected)
    assert (embedding.fit, embedding.fit_epoch) == ("epoch", 1)
    assert embedding.method == "Identity"


def test_the_principal_components_of_an_epoch_project_the_others():
    values = np.random.default_rng(3).standard_normal((3, 40, 5))
    embedding = embed(scores_of(values.reshape(-1, 5), 3), PCA(2), fit_epoch=2)
    fitted = PCA(2).fit(values[2])
    np.testing.assert_allclose(embedding.values, fitted.transform(values.reshape(-1, 5)), atol=1e-9)


def test_of_an_epoch_with_several_snapshots_the_last_is_fitted():
    scores = scores_of(turning(4).reshape(-1, 2), 4)
    scores.rows["epoch"] = scores.rows["snapshot"] // 2
    found = embed(scores, Identity(), fit_epoch=0)
    untouched = (found.by_snapshot(found.values) == turning(4)).all(axis=(1, 2))
    assert untouched.tolist() == [False, True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("fit", [{"fit": "pooled"}, {"fit": "each"}, {"fit_epoch": 1}], ids=str)
def test_the_same_embedding_on_any_executor(fit):
    values = np.random.default_rng(4).standard_normal((3, 30, 4))
    scores = scores_of(values.reshape(-1, 4), 3)
    here = embed(scores, PCA(2), **fit)
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        for executor in (threads, processes):
            np.testing.assert_allclose(embed(scores, PCA(2), executor=executor, **fit).values, here.values, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("fit", [{"fit": "pooled"}, {"fit": "each"}, {"fit_epoch": 1}], ids=str)
def test_umap_is_a_reducer_like_any_other(fit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what umap-learn has to say when it is imported is not ours
        from umap import UMAP

        values = np.cumsum(np.random.default_rng(5).standard_normal((3, 80, 4)) * [[[1]], [[0.1]], [[0.1]]], axis=0)
        embedding = embed(scores_of(values.reshape(-1, 4), 3), UMAP(random_state=0, n_jobs=1), **fit)
    assert embedding.method == "UMAP"
    assert embedding.faithfulness.neighbor_recall > 1.5 * embedding.faithfulness.neighbor_recall_chance


@pytest.mark.slow
def test_aligned_umap_is_told_which_rows_are_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import AlignedUMAP

        values = np.repeat(np.random.default_rng(6).standard_normal((1, 60, 4)), 3, axis=0)
        embedding = embed(scores_of(values.reshape(-1, 4), 3), AlignedUMAP(random_state=0, n_neighbors=10, n_epochs=50))
        assert embedding.method == "AlignedUMAP"
        assert embedding.fit == "pooled"
        first, second, _ = embedding.by_snapshot(embedding.values)
        assert min(np.corrcoef(first[:, axis], second[:, axis])[0, 1] for axis in range(2)) > 0.8
        with pytest.raises(TypeError, match="AlignedUMAP embeds all snapshots at once"):
            embed(scores_of(values.reshape(-1, 4), 3), AlignedUMAP(), fit="each")
        with pytest.raises(ValueError, match="there is only one; pass UMAP"):
            embed(scores_of(values[0], 1), AlignedUMAP())


def test_rows_that_aligned_umap_puts_nowhere_are_named():
    class AlignedUMAP:
        """Like umap-learn's, which gives NaN to rows that its graph does not connect."""

        def fit_transform(self, X, *, relations):
            assert relations == [{row: row for row in range(20)}] * 2
            found = [np.array(rows[:, :2]) for rows in X]
            found[1][7] = np.nan
            return found

    AlignedUMAP.__module__ = "umap.aligned_umap"
    values = np.random.default_rng(7).standard_normal((60, 3))
    with pytest.raises(
        ValueError, match=r"no position to 1 of 60 rows \(the first: row 7 of snapshot 1\).*n_neighbors"
    ):
        embed(scores_of(values, 3), AlignedUMAP())


@pytest.mark.parametrize(
    ("reducer", "fit", "error", "message"),
    [
        (PCA, "pooled", TypeError, r"received the class PCA; expected an instance of it: PCA\(...\)"),
        (TSNE(), 1, TypeError, "TSNE has no transform, so that other rows cannot be put into the embedding of epoch 1"),
        (None, 1, TypeError, "FusedEmbedding has no transform"),
        (PCA(2), "all", ValueError, 'fit is \'all\'; expected "pooled" or "each"'),
        (PCA(2), 7, ValueError, "fit_epoch is 7"),
        (PCA(3), "each", ValueError, r"gave shape \(20, 3\)"),
        (PCA(3), 1, ValueError, r"gave shape \(20, 3\)"),
    ],
)
def test_what_cannot_be_embedded_like_this_is_refused(reducer, fit, error, message):
    how = {"fit_epoch": fit} if isinstance(fit, int) else {"fit": fit}
    with pytest.raises(error, match=message):
        embed(scores_of(np.random.default_rng(8).standard_normal((60, 4)), 3), reducer, **how)


def test_scores_that_are_not_finite_are_refused_with_the_way_out():
    values = np.zeros((60, 4))
    values[3, 1] = np.inf
    with pytest.raises(ValueError, match="without_nonfinite"):
        embed(scores_of(values, 3), PCA(2))


def test_each_snapshot_needs_rows_enough_where_each_is_mapped():
    scores = scores_of(np.random.default_rng(9).standard_normal((9, 2)), 3)
    with pytest.raises(ValueError, match="an embedding takes at least 4 rows, and there are 3 of a snapshot"):
        embed(scores, PCA(2), fit="each")
    assert np.isfinite(embed(scores).values).all()


@pytest.mark.parametrize("fit", ["pooled", "each"])
def test_one_snapshot_is_a_map_without_motion(fit):
    told = embed(scores_of(np.random.default_rng(10).standard_normal((30, 3)), 1), fit=fit).faithfulness
    assert told.neighbor_recall > 1.2 * told.neighbor_recall_chance
    assert np.isnan(told.motion)


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
    with pytest.raises(ValueError, match="an embedding takes at least 4 rows, and there are 3"):
        embed(scores_of(np.zeros((3, 2)), 1), PCA(2))
