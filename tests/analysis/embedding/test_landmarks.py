"""Large embeddings: landmarks are fitted, and the rest lies where its neighbors do."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from fmcluster.analysis.embedding import _embed as module
from fmcluster.analysis.embedding import _landmarks as landmarks_module
from fmcluster.analysis.embedding._embed import embed
from fmcluster.analysis.embedding._fused_embedding import FusedEmbedding
from fmcluster.analysis.embedding._landmarks import Landmarks, choose_landmarks, put_among
from tests.analysis.embedding.test_embed import scores_of

pytestmark = pytest.mark.slow

N_SNAPSHOTS, N_ROWS, N_GROUPS = 7, 120, 4


def drifting_groups() -> tuple[np.ndarray, np.ndarray]:
    """Four groups that drift, far apart; scores of shape (snapshot, row, feature), and the group of each row."""
    random = np.random.default_rng(1)
    group = np.arange(N_ROWS) % N_GROUPS
    centers = np.eye(N_GROUPS, 6) * 20
    rows = centers[group] + random.normal(size=(N_ROWS, 6))
    drift = np.linspace(0, 1, N_SNAPSHOTS)[:, None, None] * random.normal(size=(1, N_ROWS, 6))
    return rows + drift, group


def test_landmarks_are_the_same_rows_of_evenly_spaced_snapshots():
    chosen = choose_landmarks(500, 512, random_state=0)
    assert (chosen.snapshots[0], chosen.snapshots[-1], len(chosen.snapshots)) == (0, 499, 20)
    assert set(np.diff(chosen.snapshots)) <= {26, 27}
    assert list(chosen.rows) == list(range(512))
    many = choose_landmarks(2, 60_000, random_state=0)
    assert many.count == 20_000
    assert len(set(many.rows.tolist())) == 10_000
    assert list(choose_landmarks(2, 60_000, random_state=0).rows) == list(many.rows)
    assert list(choose_landmarks(2, 60_000, random_state=1).rows) != list(many.rows)


def test_a_large_embedding_has_its_landmarks_where_they_are_alone_and_groups_together(monkeypatch):
    values, group = drifting_groups()
    monkeypatch.setattr(module, "MOST_ROWS", 500)
    monkeypatch.setattr(landmarks_module, "MOST_LANDMARKS", 180)
    monkeypatch.setattr(landmarks_module, "_MOST_SNAPSHOTS", 3)
    scores = scores_of(values.reshape(-1, 6), N_SNAPSHOTS)
    embedding = embed(scores, random_state=0)
    assert embedding.method == "FusedEmbedding of 180 of 840 rows, the others placed among them"
    positions = embedding.values.reshape(N_SNAPSHOTS, N_ROWS, 2)
    chosen = choose_landmarks(N_SNAPSHOTS, N_ROWS, random_state=0)
    assert list(chosen.snapshots) == [0, 3, 6]
    known = values[np.ix_(chosen.snapshots, chosen.rows)]
    alone = FusedEmbedding(random_state=0).fit_transform(known.reshape(-1, 6), np.repeat(np.arange(3), 60))
    np.testing.assert_array_equal(positions[np.ix_(chosen.snapshots, chosen.rows)], alone.reshape(3, 60, 2))
    for snapshot in positions:  # the nearest other row is of the same group
        apart = np.linalg.norm(snapshot[:, None] - snapshot[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        assert (group[apart.argmin(axis=1)] == group).mean() > 0.97
    assert embedding.faithfulness.n_rows == N_ROWS
    assert embedding.faithfulness.neighbor_recall > 2 * embedding.faithfulness.neighbor_recall_chance
    again = embed(scores, random_state=0)
    np.testing.assert_array_equal(again.values, embedding.values)


def test_large_snapshots_one_by_one_have_landmarks_of_their_own(monkeypatch):
    values, group = drifting_groups()
    monkeypatch.setattr(module, "MOST_ROWS", N_ROWS - 1)
    monkeypatch.setattr(landmarks_module, "MOST_LANDMARKS", 60)
    embedding = embed(scores_of(values.reshape(-1, 6), N_SNAPSHOTS), fit="each", random_state=0)
    assert embedding.method == "FusedEmbedding of 60 of 120 rows of each snapshot, the others placed among them"
    chosen = choose_landmarks(1, N_ROWS, random_state=0)
    for snapshot, positions in zip(values, embedding.values.reshape(N_SNAPSHOTS, N_ROWS, 2), strict=True):
        alone = FusedEmbedding(random_state=0).fit_transform(snapshot[chosen.rows])
        np.testing.assert_allclose(pdist(positions[chosen.rows]), pdist(alone))  # turned onto the one before
        apart = squareform(pdist(positions))
        np.fill_diagonal(apart, np.inf)
        assert (group[apart.argmin(axis=1)] == group).mean() > 0.97


def test_rows_equal_to_landmarks_lie_where_these_do():
    random = np.random.default_rng(3)
    known = random.normal(size=(200, 2)) * [30, 10]
    chosen = Landmarks(np.array([0]), np.arange(200))
    twice = np.concatenate([known, known])[None]
    positions = known[None] / 2  # the plane itself, to half its size
    placed = put_among(twice, positions, landmarks=chosen, random_state=0)[0, 200:]
    error = np.linalg.norm(placed - positions[0], axis=1)
    assert np.median(error) < 0.1 * positions[0].std()
