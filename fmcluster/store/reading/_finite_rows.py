"""Finite rows: what of a layer can be analyzed where none of its snapshots is finite, and what is left out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...vectors import DrawnPositions, Vectors
from ._diverged import find_diverged
from ._finite_part import MOST_CHANNELS, MOST_SAID, FinitePart, NotFinite
from ._layer import Layer

if TYPE_CHECKING:
    from ._run import Run


def part_by_rows(run: "Run", layer: str) -> FinitePart:
    """Return the finite part of a layer; where there is none, the snapshots at which most of its channels are finite.

    Raises
    ------
    ValueError
        Where there are none of these either.
    """
    try:
        return run.finite_part(layers=[layer])
    except ValueError:
        share = (run.finiteness.counts(layer) > 0).mean(axis=1)
        snapshots = np.flatnonzero(share <= MOST_CHANNELS).tolist()
        if not snapshots:
            raise
        diverged = find_diverged(run, [layer])
        left_out = diverged[~diverged["snapshot"].isin(snapshots)].reset_index(drop=True)
        return FinitePart([layer], snapshots, None, NotFinite(snapshots=left_out, n_layers=1))


def snapshots_by_rows(layer: Layer, snapshots: Sequence[int]) -> list[int]:
    """Return those of some snapshots at which a layer, or its gradient, is finite.

    Where there are none, those at which most channels are, or have some finite values; else all.
    """
    known = layer.statistics
    at = known["snapshot"]
    broken = (known["nonfinite"] > 0).groupby(at).mean()
    empty = known["mean"].isna().groupby(at).mean()  # over the finite values
    for share, most in ((broken, 0.0), (broken, MOST_CHANNELS), (empty, MOST_CHANNELS)):
        if found := [number for number in snapshots if share[number] <= most]:
            return found
    return list(snapshots)


def without_broken_rows(vectors: Vectors) -> Vectors:
    """Leave out the rows that are not finite; of a run's layer whose statistics say there are none, nothing is read.

    Raises
    ------
    ValueError
        Where no row is left.
    """
    source = vectors.source
    layer = source.source if isinstance(source, DrawnPositions) else source
    if isinstance(layer, Layer):
        known = layer.statistics
        if not known.loc[known["snapshot"].isin(vectors.snapshots), "nonfinite"].any():
            return vectors
    return vectors.without_nonfinite()


def describe_excluded(vectors: Vectors) -> list[str]:
    """Say which rows are left out, as they are not finite: a sentence, or nothing."""
    if vectors.excluded is None:
        return []
    identity = [name for name in vectors.excluded if name not in ("snapshot", "epoch", "step")]
    rows = vectors.excluded[identity].drop_duplicates()
    named = [", ".join(f"{what} {value}" for what, value in row.items()) for row in rows[:MOST_SAID].to_dict("records")]
    more = f" and {len(rows) - MOST_SAID} more" if len(rows) > MOST_SAID else ""
    return [
        f"Left out: {len(rows)} of {len(rows) + vectors.rows_per_snapshot} rows of the {vectors.view} view of "
        f"{vectors.layer} ({'; '.join(named)}{more}), which hold NaN or infinite values."
    ]
