"""Words for numbers: what a result's numbers mean, in sentences."""

import math

from ...analysis import Faithfulness, Scores
from ...vectors import VIEWS
from ._layer_content import LayerContent


def faithfulness_line(faithfulness: Faithfulness) -> str:
    """Say how far an embedding can be believed.

    Examples
    --------
    >>> faithfulness_line(Faithfulness(0.53, 0.06, 15, 64, 0.93, 0.43, 0.4))  # doctest: +NORMALIZE_WHITESPACE
    'neighbor recall 0.53 (chance 0.06): points that lie close together are mostly similar, but not always;
    motion 0.43: how far a point travels says only roughly how much it changed'
    """
    kept, chance = faithfulness.neighbor_recall, faithfulness.neighbor_recall_chance
    if math.isnan(kept):
        near = "too few points to say whether neighbors are kept"
    else:
        share = (kept - chance) / (1 - chance) if chance < 1 else 0.0
        near = f"neighbor recall {kept:.2f} (chance {chance:.2f}): {_nearness(share)}"
    if math.isnan(faithfulness.motion):
        return f"{near}; motion: not available, nothing moved or there is one snapshot"
    return f"{near}; motion {faithfulness.motion:.2f}: {_motion(faithfulness.motion)}"


def how_it_was_made(content: LayerContent) -> str:
    """Say what the embedding and the clusters were fitted on."""
    scores, embedding, clusters = content.scores, content.embedding, content.clusters
    held = float(scores.explained_variance_ratio.sum())
    fit = {
        "pooled": "fitted on all snapshots together (pooled), so that a position and a color mean the same in each",
        "each": "fitted on each snapshot by itself (each)",
    }.get(embedding.fit, f"fitted on the last snapshot of epoch {embedding.fit_epoch}")
    rows = (
        f"{content.n_rows} of {content.rows_in_view}, drawn at random"
        if content.n_rows < content.rows_in_view
        else "all"
    )
    return (
        f"{embedding.method} and {clusters.method} of {scores.values.shape[1]} principal components, which hold "
        f"{held:.1%} of the variance; {fit}. Rows of the {embedding.view} view: {rows}.{_positions_line(scores)}"
    )


def _positions_line(scores: Scores) -> str:
    """Say at how many positions rows were compared, and how near a random sketch came, where that is so."""
    words = ""
    if scores.of_features is not None:
        off = 1 / math.sqrt(scores.n_features)
        words += (
            f" They are compared at {scores.n_features:,} of {scores.of_features:,} positions, drawn at random, others "
            f"of each image (standard error of a correlation: {off:.4f} at most)."
        )
    if scores.method == "randomized":
        words += (
            f" The components are those of a random sketch: variances along them are right to {scores.error:.1e} of "
            f"the largest."
        )
    return words


def row_noun(view: str) -> str:
    """Return what a row of a view is called in the plural."""
    return f"{one_row(view)}s"


def one_row(view: str) -> str:
    """Return what a row of a view is called in the singular."""
    return VIEWS[view].row if view in VIEWS else "row"


def row_meaning(view: str) -> str:
    """Say what a point in the embeddings is."""
    if view not in VIEWS:
        return f"one row of the view {view}"
    return f"{VIEWS[view].meaning}. {VIEWS[view].together}"


def _nearness(share: float) -> str:
    if share >= 0.7:
        return "points that lie close together really are similar"
    if share >= 0.45:
        return "points that lie close together are mostly similar, but not always"
    if share >= 0.2:
        return "points that lie close together are often similar, and often not"
    return "do not read much into which points lie close together"


def _motion(motion: float) -> str:
    if motion >= 0.7:
        return "how far a point travels says how much it changed"
    if motion >= 0.4:
        return "how far a point travels says only roughly how much it changed"
    return "do not read how much a point changed from how far it travels"
