"""One map for all snapshots."""

import logging
import sys
import warnings
from typing import Any, Protocol

import numpy as np

from .estimators import fresh, name_of
from .faithfulness import measure_faithfulness
from .results import Embedding, Scores

logger = logging.getLogger(__name__)


class Reducer(Protocol):
    """A scikit-learn style reducer."""

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Return positions of the rows of X."""


def embed(scores: Scores, reducer: Reducer | None = None, *, random_state: int = 0) -> Embedding:
    """Map the rows of all snapshots together, so that places mean the same in each.

    Parameters
    ----------
    scores : Scores
        Made by `pca`.
    reducer : scikit-learn style reducer, optional
        Anything with ``fit_transform`` to two dimensions, such as ``TSNE()`` or ``PCA(2)``; it is cloned where it can
        be. By default ``umap.UMAP``, which compiles for up to a minute when a process first uses it.
    random_state : int
        Seed of the default reducer; a reducer that is passed has its own.

    Returns
    -------
    Embedding
        ``values`` of shape (n_rows, 2), float64, and how faithful they are.

    Raises
    ------
    TypeError
        Where `reducer` has no ``fit_transform``.
    ValueError
        Where there are too few rows, or the reducer's output is not finite or not of two columns.

    References
    ----------
    L. McInnes, J. Healy and J. Melville, "UMAP: Uniform Manifold Approximation and Projection for Dimension
    Reduction", arXiv:1802.03426, 2018.
    """
    if len(scores.rows) < 4:
        raise ValueError(f"{len(scores.rows)} rows make no map; expected at least 4 (take more snapshots or rows)")
    if reducer is None:
        chosen = _umap(len(scores.rows), random_state)
    else:
        if not hasattr(reducer, "fit_transform"):
            raise TypeError(f"{name_of(reducer)} has no fit_transform; expected a scikit-learn style reducer")
        chosen = fresh(reducer)
    values = np.asarray(chosen.fit_transform(scores.values), dtype=np.float64)
    if values.shape != (len(scores.rows), 2):
        raise ValueError(
            f"{name_of(chosen)} gave shape {values.shape}; expected ({len(scores.rows)}, 2): two dimensions"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name_of(chosen)} gave positions that are not finite; try another reducer or other parameters"
        )
    return Embedding(
        rows=scores.rows,
        layer=scores.layer,
        view=scores.view,
        fit="pooled",
        values=values,
        method=name_of(chosen),
        faithfulness=measure_faithfulness(scores.by_snapshot(scores.values), scores.by_snapshot(values)),
    )


def _umap(n_rows: int, random_state: int) -> Reducer:
    if "umap" not in sys.modules:
        logger.info("UMAP compiles for up to a minute when a process first uses it")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)  # of no use here
        from umap import UMAP

    # a seed makes UMAP single-threaded; saying so keeps it from warning. Few rows have few neighbours and no spectrum.
    few = n_rows <= 16
    reducer: Reducer = UMAP(
        n_neighbors=min(15, n_rows - 1), init="random" if few else "spectral", random_state=random_state, n_jobs=1
    )
    return reducer
