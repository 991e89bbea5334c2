"""Embeddings of the rows of all snapshots: of all together, of one after the other, or by that of one epoch."""

from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol

import numpy as np
from scipy.linalg import orthogonal_procrustes

from .._estimators import fresh, name_of
from .._parallel import run_each
from .._results import Array, Embedding, Fit, Scores
from .._validation import fitted_snapshot, name_fit, require, require_finite
from ._fused_embedding import FusedEmbedding
from ._landmarks import Landmarks, choose_landmarks, put_among
from ._preservation import measure_faithfulness

MOST_ROWS = 100_000


class Reducer(Protocol):
    """A scikit-learn style reducer."""

    def fit_transform(self, X: Any) -> Any:
        """Return positions of the rows of X."""


def embed(
    scores: Scores,
    reducer: Reducer | None = None,
    *,
    fit: Fit = "pooled",
    fit_epoch: int | None = None,
    random_state: int = 0,
    executor: Executor | None = None,
) -> Embedding:
    """Embed the rows of all snapshots into one plane.

    Parameters
    ----------
    scores : Scores
        Made by `pca`.
    reducer : scikit-learn style reducer, optional
        Anything with ``fit_transform`` to two dimensions, such as ``UMAP()``, ``TSNE()`` or ``PCA(2)``; it is cloned
        where it can be. umap-learn's ``AlignedUMAP()`` is given which rows are the same. By default `FusedEmbedding`,
        made for several snapshots of the same rows. Of more than 100,000 rows that are embedded at once, it is fitted
        on at most 20,000: the same rows, drawn at random, of up to 20 snapshots (with ``fit="each"``, of each); the
        others are placed among them by openTSNE. ``method`` says so.
    fit : {"pooled", "each"}
        ``"pooled"``: the rows of all snapshots together, so that a position means the same in each. ``"each"``: a
        reducer for each snapshot; then each embedding is rotated, mirrored and shifted (not scaled) onto the one
        before, as well as the positions of the same rows allow.
    fit_epoch : int, optional
        An epoch: the reducer is fitted on the rows of its last snapshot, and all other rows are put into that embedding
        by ``transform``.
    random_state : int
        Seed of the default reducer; a reducer that is passed has its own.
    executor : concurrent.futures.Executor, optional
        Where the snapshots are embedded, unless they are together.

    Returns
    -------
    Embedding
        ``values`` of shape (n_rows, 2), float64, and how faithful they are; ``fit`` says which of the three it is.

    Raises
    ------
    TypeError
        Where `reducer` has no ``fit_transform``, or no ``transform`` and is fitted on one epoch.
    ValueError
        Where there are too few rows, scores are not finite, there is no such epoch, or the reducer's output is not
        finite or not of two columns.

    References
    ----------
    P. H. Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31, 1966.
    """
    require(scores, Scores, verb="embed", made_by="pca(vectors)")
    snapshot = fitted_snapshot(scores.rows, fit=fit, fit_epoch=fit_epoch)
    require_finite(scores)
    blocks = scores.by_snapshot(scores.values)
    together = fit == "pooled" and snapshot is None
    fitted = len(scores.rows) if together else blocks.shape[1]
    if fitted < 4:
        where = "" if together else " of a snapshot"
        raise ValueError(
            f"an embedding takes at least 4 rows, and there are {fitted}{where}: take more snapshots or rows"
        )
    landmarks = None
    if reducer is None:
        reducer = FusedEmbedding(random_state=random_state)
        if fitted > MOST_ROWS:
            landmarks = choose_landmarks(len(blocks) if together else 1, blocks.shape[1], random_state=random_state)
    _require_reducer(reducer, fit=fit, fit_epoch=fit_epoch)
    if together:
        values = _embed_together(reducer, blocks, landmarks=landmarks)
    elif fit == "each":
        embed_one = partial(_embed_each, reducer, landmarks=landmarks)
        values = np.stack(list(_follow(run_each(embed_one, blocks, executor=executor))))
    else:
        at = scores.rows["snapshot"].unique().tolist().index(snapshot)
        values = _embed_into(reducer, blocks, at, executor=executor)
    return Embedding(
        rows=scores.rows,
        layer=scores.layer,
        view=scores.view,
        fit=name_fit(fit, fit_epoch),
        fit_epoch=fit_epoch,
        values=values.reshape(-1, 2),
        method=name_of(reducer) + _describe(landmarks, fitted=fitted, together=together),
        faithfulness=measure_faithfulness(blocks, values),
    )


def _require_reducer(reducer: object, *, fit: Fit, fit_epoch: int | None) -> None:
    if isinstance(reducer, type):
        raise TypeError(
            f"embed received the class {reducer.__name__}; expected an instance of it: {reducer.__name__}(...)"
        )
    if not hasattr(reducer, "fit_transform"):
        raise TypeError(f"{name_of(reducer)} has no fit_transform; expected a scikit-learn style reducer")
    if fit == "pooled" and fit_epoch is None:
        return
    if _is_aligned(reducer):
        received = f"fit={fit!r}" if fit_epoch is None else f"fit_epoch={fit_epoch!r}"
        raise TypeError(f'AlignedUMAP embeds all snapshots at once; expected fit="pooled", received {received}')
    if fit_epoch is not None and not hasattr(reducer, "transform"):
        raise TypeError(
            f"{name_of(reducer)} has no transform, so that other rows cannot be put into the embedding of epoch "
            f"{fit_epoch}; pass a reducer that has one, such as PCA(2) or UMAP(), or leave out fit_epoch"
        )


def _is_aligned(reducer: object) -> bool:
    """Tell whether this is umap-learn's AlignedUMAP, without importing umap-learn, which takes seconds."""
    return any(kind.__name__ == "AlignedUMAP" and kind.__module__.startswith("umap") for kind in type(reducer).__mro__)


def _describe(landmarks: Landmarks | None, *, fitted: int, together: bool) -> str:
    """Say on how many rows an embedding was fitted, where these are not all."""
    if landmarks is None:
        return ""
    where = "" if together else " of each snapshot"
    return f" of {landmarks.count:,} of {fitted:,} rows{where}, the others placed among them"


def _embed_together(reducer: Any, blocks: Array, *, landmarks: Landmarks | None = None) -> Array:
    """Embed all snapshots at once: ndarray of shape (n_snapshots, rows per snapshot, 2)."""
    if landmarks is not None:
        fixed = _embed_together(reducer, blocks[np.ix_(landmarks.snapshots, landmarks.rows)])
        return put_among(blocks, fixed, landmarks=landmarks, random_state=reducer.random_state)
    n_snapshots, n_rows = blocks.shape[:2]
    chosen = fresh(reducer)
    rows = blocks.reshape(n_snapshots * n_rows, -1)
    if _is_aligned(chosen):
        if n_snapshots < 2:
            raise ValueError("AlignedUMAP aligns snapshots, and there is only one; pass UMAP() instead")
        same = {row: row for row in range(n_rows)}
        found = np.concatenate(chosen.fit_transform(list(blocks), relations=[same] * (n_snapshots - 1)))
        nowhere = ~np.isfinite(found).all(axis=1)
        if nowhere.any():
            row = int(np.flatnonzero(nowhere)[0])
            raise ValueError(
                f"AlignedUMAP gave no position to {nowhere.sum()} of {len(nowhere)} rows (the first: row "
                f"{row % n_rows} of snapshot {row // n_rows}): it has none for rows that are no other row's neighbor; "
                f"raise its n_neighbors, or use another reducer"
            )
    elif isinstance(chosen, FusedEmbedding):
        found = chosen.fit_transform(rows, np.repeat(np.arange(n_snapshots), n_rows))
    else:
        found = chosen.fit_transform(rows)
    return _positions(found, len(rows), reducer).reshape(n_snapshots, n_rows, 2)


def _embed_each(reducer: Any, rows: Array, *, landmarks: Landmarks | None) -> Array:
    if landmarks is not None:
        (values,) = _embed_together(reducer, rows[None], landmarks=landmarks)
        return np.asarray(values)
    return _positions(fresh(reducer).fit_transform(rows), len(rows), reducer)


def _follow(embeddings: Iterator[Array]) -> Iterator[Array]:
    """Turn, mirror and move each embedding onto the one before."""
    before: Array | None = None
    for positions in embeddings:
        if before is None:
            before = positions
        else:
            middle, centered = before.mean(axis=0), positions - positions.mean(axis=0)
            turn, _ = orthogonal_procrustes(centered, before - middle)
            before = centered @ turn + middle
        yield before


def _embed_into(reducer: Any, blocks: Array, at: int, *, executor: Executor | None) -> Array:
    """Embed one snapshot, and put the others into its plane."""
    fitted = fresh(reducer)
    own = _positions(fitted.fit_transform(blocks[at]), blocks.shape[1], reducer)
    others = np.delete(blocks, at, axis=0)
    found = list(run_each(partial(_put, fitted), others, executor=executor))
    found.insert(at, own)
    return np.stack(found)


def _put(fitted: Any, rows: Array) -> Array:
    return _positions(fitted.transform(rows), len(rows), fitted)


def _positions(found: Any, n_rows: int, reducer: object) -> Array:
    """Check what a reducer returned."""
    values = np.asarray(found, dtype=np.float64)
    if values.shape != (n_rows, 2):
        raise ValueError(f"{name_of(reducer)} gave shape {values.shape}; expected ({n_rows}, 2): two dimensions")
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name_of(reducer)} gave positions that are not finite; try another reducer or other parameters"
        )
    return values
