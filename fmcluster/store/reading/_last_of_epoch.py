"""Last snapshot of an epoch: the one that is meant where an epoch is asked for."""

import numpy as np
import numpy.typing as npt


def last_of_epoch(epochs: npt.ArrayLike, epoch: int) -> int | None:
    """Return the position of the last snapshot of an epoch; None where no snapshot is of this epoch.

    Parameters
    ----------
    epochs : array-like of shape (n_snapshots,), int
        The epoch of each snapshot, or of each row of a table that is in the order of snapshots.
    epoch : int
        The epoch.

    Examples
    --------
    >>> last_of_epoch([0, 1, 1, 2], 1), last_of_epoch([0, 1, 1, 2], 5)
    (2, None)
    """
    found = np.flatnonzero(np.asarray(epochs) == epoch)
    return int(found[-1]) if len(found) else None
