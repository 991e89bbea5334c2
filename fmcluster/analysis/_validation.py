"""Argument checks: the types of results, finite scores, and what `fit` and `fit_epoch` mean."""

import numpy as np
import pandas as pd

from ._results import Fit, Scores, snapshot_of_epoch


def require(value: object, kind: type, *, verb: str, made_by: str) -> None:
    """Raise `TypeError` where `value` is of another type, and say what makes the right one."""
    if not isinstance(value, kind):
        raise TypeError(f"{verb} received a {type(value).__name__}; expected {kind.__name__}, made by {made_by}")


def require_finite(scores: Scores) -> None:
    """Raise `ValueError` where a score is NaN or infinite."""
    if not np.isfinite(scores.values).all():
        raise ValueError("the scores hold NaN or infinite values; leave such rows out with vectors.without_nonfinite()")


def fitted_snapshot(
    rows: pd.DataFrame, fit: Fit, fit_epoch: int | None, *, allowed: tuple[str, ...] = ("pooled", "each")
) -> int | None:
    """Check `fit` and `fit_epoch`, and return the snapshot that the epoch means.

    Parameters
    ----------
    rows : DataFrame
        The rows of the result, with columns ``snapshot`` and ``epoch``.
    fit : {"pooled", "each"}
        What the user asked for.
    fit_epoch : int or None
        The epoch to fit on, instead of all snapshots.
    allowed : tuple of str
        The values of `fit` that the verb knows.

    Returns
    -------
    int or None
        The number of the epoch's last snapshot; None where no epoch is given.

    Raises
    ------
    ValueError
        For another `fit`, an epoch together with ``fit="each"``, or an epoch without a snapshot.
    """
    if fit not in allowed:
        expected = " or ".join(f'"{name}"' for name in allowed)
        raise ValueError(f"fit is {fit!r}; expected {expected}; to fit on one epoch, pass fit_epoch=...")
    if fit_epoch is None:
        return None
    if fit == "each":
        raise ValueError(f'fit is "each" and fit_epoch is {fit_epoch!r}; pass one of the two')
    return snapshot_of_epoch(rows, fit_epoch)


def name_fit(fit: Fit, fit_epoch: int | None) -> str:
    """Return what a result carries as its `fit`: ``"epoch"`` where it was fitted on one."""
    return fit if fit_epoch is None else "epoch"
