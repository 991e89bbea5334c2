"""Root of a run as it was committed: what reading and resuming begin with."""

from typing import Any

from ._check_root import check_root, read_root
from ._metadata import check_digest


def committed_root(path: str) -> dict[str, Any]:
    """Return the content of a run's `zarr.json`, at a path or a URL, once all of it is known to be what was committed.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    StoreError
        Where it cannot be reached, is no run's, is of a newer format, was never finished, or is damaged.
    """
    root = read_root(path)
    check_root(path, root)
    check_digest(path, root)
    return root
