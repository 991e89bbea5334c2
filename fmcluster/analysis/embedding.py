"""One map for all snapshots."""

from typing import Any, Protocol

import numpy as np

from .arguments import require
from .estimators import fresh, name_of
from .faithfulness import measure_faithfulness
from .fused import FusedTSNE
from .results import Embedding, Scores

MOST_ROWS = 100_000


class Reducer(Protocol):
    """A scikit-learn style reducer."""

    def fit_transform(self, X: Any) -> Any:
        """Return positions of the rows of X."""


def embed(scores: Scores, reducer: Reducer | FusedTSNE | None = None, *, random_state: int = 0) -> Embedding:
    """Map the rows of all snapshots together, so that places mean the same in each.

    Parameters
    ----------
    scores : Scores
        Made by `pca`.
    reducer : scikit-learn style reducer, optional
        Anything with ``fit_transform`` to two dimensions, such as ``UMAP()``, ``TSNE()`` or ``PCA(2)``; it is cloned
        where it can be. By default `FusedTSNE`, made for several snapshots of the same rows.
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
        Where there are too few rows (or, for the default, too many), or the reducer's output is not finite or not of
        two columns.
    """
    require(scores, Scores, verb="embed", made_by="pca(vectors)")
    if len(scores.rows) < 4:
        raise ValueError(f"{len(scores.rows)} rows make no map; expected at least 4 (take more snapshots or rows)")
    if reducer is None:
        if len(scores.rows) > MOST_ROWS:
            raise ValueError(
                f"the default map takes at most {MOST_ROWS:,} rows, this is {len(scores.rows):,}; draw fewer rows of "
                f"each snapshot (vectors(..., n_rows=...)), or pass a reducer that takes as many"
            )
        reducer = FusedTSNE(random_state=random_state)
    if not hasattr(reducer, "fit_transform"):
        raise TypeError(f"{name_of(reducer)} has no fit_transform; expected a scikit-learn style reducer")
    chosen: Reducer | FusedTSNE = fresh(reducer)
    if isinstance(chosen, FusedTSNE):
        values = chosen.fit_transform(scores.values, scores.rows["snapshot"])
    else:
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
