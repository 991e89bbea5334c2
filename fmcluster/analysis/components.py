"""Exact principal components of vectors that may exceed memory."""

import numpy as np
from scipy.linalg import eigh

from ..vectors import Vectors
from .algebra import accumulate_covariance, accumulate_gram, plan_pass, read_ahead
from .arguments import require
from .results import Array, Scores

MAX_BYTES = 1 << 30


def pca(vectors: Vectors, *, n_components: int = 50, max_bytes: int = MAX_BYTES) -> Scores:
    """Reduce the rows of a view, over all its snapshots at once, to their principal component scores.

    Where there are fewer rows than features, the Gram matrix of the rows is accumulated in one pass over the disk, and
    its eigenvectors give the scores. Otherwise it is the covariance of the features, and a second pass projects the
    rows. Both are exact: products are summed in float64 (and taken in it, but for very long sums). With as many
    components as the matrix has rank, the scores keep all distances between rows.

    Parameters
    ----------
    vectors : Vectors
        Made by `Layer.vectors`.
    n_components : int
        How many components; fewer where rows or features are fewer.
    max_bytes : int
        Memory that may be taken, above what is in use. It bounds this pass over the vectors; what follows works on the
        scores alone.

    Returns
    -------
    Scores
        ``values`` of shape (n_rows, n_components), float64. Of each component, the score of largest magnitude is
        positive.

    Raises
    ------
    TypeError
        For what is not vectors.
    ValueError
        For fewer than one component, or activations that are not finite.
    MemoryError
        Where the smaller side of the matrix does not fit into `max_bytes`.

    References
    ----------
    I. T. Jolliffe, *Principal Component Analysis*, 2nd edition, Springer 2002, section 3.5 (the singular value
    decomposition and its two eigenproblems).
    """
    require(vectors, Vectors, verb="pca", made_by='layer.vectors("channel")')
    if n_components < 1:
        raise ValueError(f"n_components is {n_components}; expected at least 1")
    n_components = min(n_components, *vectors.shape)
    plan = plan_pass(vectors, n_components=n_components, max_bytes=max_bytes)
    if plan.method == "gram":
        gram = accumulate_gram(vectors, block_bytes=plan.block_bytes)
        total = float(np.trace(gram))
        singular, left = _largest(gram, n_components)
        values = left * singular
    else:
        products, mean = accumulate_covariance(vectors, block_bytes=plan.block_bytes)
        total = float(np.trace(products))
        singular, axes = _largest(products, n_components)
        values = np.empty((vectors.shape[0], n_components))
        for start, block in read_ahead(vectors.row_blocks(max_bytes=plan.block_bytes // 2)):
            values[start : start + len(block)] = (block - mean) @ axes
    values *= np.where(values.max(axis=0) < -values.min(axis=0), -1, 1)
    return Scores(
        rows=vectors.rows,
        layer=vectors.layer,
        view=vectors.view,
        fit="pooled",
        values=values,
        singular_values=singular,
        total_variance=total / max(vectors.shape[0] - 1, 1),
        n_features=vectors.n_features,
        method=plan.method,
    )


def _largest(matrix: Array, count: int) -> tuple[Array, Array]:
    """Return the square roots of the largest eigenvalues, and their eigenvectors as columns."""
    side = len(matrix)
    eigenvalues, eigenvectors = eigh(
        matrix, subset_by_index=(side - count, side - 1), driver="evr", overwrite_a=True, check_finite=False
    )
    return np.sqrt(np.maximum(eigenvalues[::-1], 0)), eigenvectors[:, ::-1]
