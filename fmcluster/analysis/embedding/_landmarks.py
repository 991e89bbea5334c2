"""Landmarks: some rows of some snapshots, on which a large embedding is fitted; the others are put among them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._results import Array
from ._motion import Stays

MOST_LANDMARKS = 20_000
_MOST_SNAPSHOTS = 20
_PERPLEXITY = 5  # of a row that is placed, as openTSNE has it
_N_ITER = 100


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Which rows of which snapshots they are.

    Attributes
    ----------
    snapshots : ndarray of shape (n,), int64
        Evenly spaced; the first and the last are among them.
    rows : ndarray of shape (m,), int64
        The same in each.
    """

    snapshots: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many there are in all."""
        return len(self.snapshots) * len(self.rows)


def choose_landmarks(n_snapshots: int, n_rows: int, *, random_state: int) -> Landmarks:
    """Return at most 20,000 landmarks: of up to 20 snapshots, as many rows as there is room for, drawn once."""
    at = np.unique(np.linspace(0, n_snapshots - 1, min(n_snapshots, _MOST_SNAPSHOTS)).round().astype(np.int64))
    count = min(n_rows, max(1, MOST_LANDMARKS // len(at)))
    drawn = np.random.default_rng(random_state).choice(n_rows, count, replace=False)
    return Landmarks(at, np.sort(drawn).astype(np.int64))


def put_among(blocks: Array, positions: Array, *, landmarks: Landmarks, random_state: int) -> Array:
    """Embed the other rows among the landmarks, by t-SNE's loss with the landmarks held fast.

    A row is placed among the landmarks of its own snapshot; where that has none, among those of the last snapshot
    before and the first after it that have. A row that does not move stays where it was put (`Stays`).

    Parameters
    ----------
    blocks : ndarray of shape (n_snapshots, n_rows, n_features)
        All rows.
    positions : ndarray of shape (n_landmark_snapshots, n_landmark_rows, 2)
        Of the landmarks.
    landmarks : Landmarks
        Which rows these are.
    random_state : int
        Seed of the approximate search for neighbors.

    Returns
    -------
    ndarray of shape (n_snapshots, n_rows, 2), float64

    References
    ----------
    P. G. Poličar, M. Stražar and B. Zupan, "Embedding to reference t-SNE space addresses batch effects in single-cell
    classification", Machine Learning 112, 2023.
    """
    out = np.empty((*blocks.shape[:2], 2))
    out[np.ix_(landmarks.snapshots, landmarks.rows)] = positions
    rest = np.setdiff1d(np.arange(blocks.shape[1]), landmarks.rows)
    at = landmarks.snapshots
    for k, snapshot in enumerate(at):
        known = blocks[snapshot, landmarks.rows]
        if len(rest):
            out[snapshot, rest] = _place(blocks[snapshot, rest], known, positions[k], random_state=random_state)
        if k + 1 < len(at) and at[k + 1] > snapshot + 1:
            between = slice(int(snapshot) + 1, int(at[k + 1]))
            rows = blocks[between].reshape(-1, blocks.shape[2])
            known = np.concatenate([known, blocks[at[k + 1], landmarks.rows]])
            placed = _place(rows, known, np.concatenate(positions[k : k + 2]), random_state=random_state)
            out[between] = placed.reshape(-1, blocks.shape[1], 2)
    return Stays(blocks).average(out)


def _place(rows: Array, known: Array, positions: Array, *, random_state: int) -> Array:
    """Embed rows among those whose positions are known."""
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    near = PerplexityBasedNN(known, perplexity=min(30.0, (len(known) - 1) / 3), random_state=random_state)
    center = (positions.max(axis=0) + positions.min(axis=0)) / 2  # which transform subtracts
    fixed = TSNEEmbedding(positions.copy(), near, random_state=random_state)
    placed: Array = np.asarray(fixed.transform(rows, perplexity=_PERPLEXITY, n_iter=_N_ITER), dtype=np.float64)
    placed += center
    return placed
