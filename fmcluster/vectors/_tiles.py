"""Tiles: features of all rows that are held as they are stored, and worked on in blocks of float32.

A chunk is decoded as a whole. Where a block of all rows holds less of a sample than a chunk does, each chunk would be
read once for every block that it has a share in: with more snapshots there are more rows, and more such blocks.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from ._views import Box, Unit, split_box


@dataclass(frozen=True, eq=False)
class Tile:
    """Some features of all rows.

    Attributes
    ----------
    box : dict
        Which samples, channels and lines they are.
    blocks : tuple of dict
        Parts of it, from its own beginning, each small enough to be worked on.
    """

    box: Box
    blocks: tuple[Box, ...]


def units_of(source: object) -> dict[str, Unit]:
    """Return what of each of the axes n and c is decoded at once; nothing of a source that does not say."""
    return dict(getattr(source, "units", {}))


def itemsize_of(source: object) -> int:
    """Return the bytes of a stored value; those of float32 of a source that does not say."""
    return int(np.dtype(getattr(source, "dtype", np.float32)).itemsize)


def lengths_of(box: Box, sizes: dict[str, int]) -> dict[str, int]:
    """Return how long a box is along each axis."""
    return {axis: len(range(*box.get(axis, slice(None)).indices(n))) for axis, n in sizes.items()}


def cut_tile(box: Box, axes: str, *, sizes: dict[str, int], copies: int, block_bytes: int) -> Tile:
    """Cut a box along `axes`, but the width, so that `copies` blocks of float32 stay under a size."""
    inside = lengths_of(box, sizes)
    size = 4 * copies * prod(inside.values())
    return Tile(box, tuple(split_box({}, list(axes.partition("w")[0]), sizes=inside, size=size, limit=block_bytes)))


def unit_bytes(axes: str, *, sizes: dict[str, int], units: dict[str, Unit], copies: int) -> int:
    """Return the bytes, as float32, of the least of the features `axes` that reads no chunk twice; 0: not known."""
    if not units:
        return 0
    size, first = 4 * copies * prod(sizes.values()), axes[0]
    if first not in units:
        return size
    return size // sizes[first] * min(units[first].chunk, sizes[first])
