"""Plan of reading: which matrix one pass over vectors adds up, and in blocks of what size, under a budget of memory."""

import os
from dataclasses import dataclass, replace

from ...vectors import Vectors

BLOCK_BYTES = 64 << 20
_SMALL_BLOCK_BYTES = 24 << 20  # with smaller ones, more workers spend what they win on reading
_KEPT_BYTES = 48 << 20  # malloc keeps about so much of what is freed
_TILE_BLOCK_BYTES = 16 << 20  # of a tile, worked on at a time
_READ_BYTES = 24 << 20  # decoded at once, to be put into a tile
_TILE_CHUNKS = 8  # that a tile holds: where samples lie scattered, one at its edge is read twice
OVERSAMPLING = 10
N_ITERATIONS = 2  # of the sketch
N_PASSES = 2 * N_ITERATIONS + 3  # that it takes over all values, each with as many multiplications as it has columns
MANY_PRODUCTS = 1 << 34  # a few seconds of a processor
GROUPS = 16  # of parts that an executor is handed: each comes back as a matrix


@dataclass(frozen=True)
class Plan:
    """Which matrix is accumulated, and in blocks of what size.

    Attributes
    ----------
    method : {"gram", "covariance", "randomized"}
        Rows by rows; features by features; or rows by a few random directions, more than the components asked for.
    side : int
        Rows and columns of the accumulated matrix; of a randomized one, its columns.
    block_bytes : int
        About how large a block of vectors is.
    workers : int
        How many threads there is memory for.
    tile_bytes : int
        How much is held as it is stored, where a block has less of all rows than a chunk; else 0.
    over : {"rows", "features"}
        Of a randomized one: whether the random directions are multiplied with the rows' products or the features'.
    """

    method: str
    side: int
    block_bytes: int
    workers: int
    tile_bytes: int = 0
    over: str = "rows"


def plan_reading(vectors: Vectors, *, n_components: int, max_bytes: int, exact: bool = True) -> Plan:
    """Choose the smaller side, or where that is too large a random sketch, and see that everything fits.

    Parameters
    ----------
    exact : bool
        Whether a sketch is taken only where the smaller side does not fit. If not, it is also where that side takes
        over 17 billion multiplications, and twice as many as the sketch does.

    Raises
    ------
    MemoryError
        Where not even the sketch and the result would fit into `max_bytes`.
    """
    rows, features = vectors.shape
    columns = 3 + len(vectors.row_axes)
    # scores, and the labels of the rows while their table is put together, and after
    result = rows * n_components * 8 + rows * 8 * 3 * columns
    method, side = ("gram", rows) if rows <= features else ("covariance", features)
    # accumulated in float64, one product beside it; then its eigenvectors and the solver's working copy
    whole = side * side * (8 + 8) + 8 * side * n_components
    width = min(n_components + OVERSAMPLING, rows, features)
    sketch, turned = 4 * rows * width * 8, 4 * (features + 1) * (width + 1) * 8
    # what is accumulated, what it takes in all, what one block has to hold of it, and by features of all rows or rows
    by_features, by_rows = (rows, True), (features, False)
    tried = [
        Plan(method, side, 0, 0),
        Plan("randomized", width, 0, 0),
        Plan("randomized", width, 0, 0, over="features"),
    ]
    needs = [
        (whole, side * side, by_rows if method == "covariance" else by_features),
        (sketch, rows * width, by_features),
        (turned, features * width, by_rows),
    ]
    kept = min(_KEPT_BYTES, max_bytes // 6) + result
    hasty = not exact and products_of(rows, features) > max(MANY_PRODUCTS, 2 * N_PASSES * rows * features * width)
    for plan, (matrix, one, (length, cut)) in zip(tried[hasty:], needs[hasty:], strict=True):
        room = max_bytes - kept - matrix
        # features of all samples: where a block has few of them, it reads a part of each chunk
        most = max_bytes if "n" in vectors.row_axes and plan.method == "gram" else BLOCK_BYTES
        for workers in range(min(os.cpu_count() or 1, GROUPS), 0, -1):
            sizes = _divide(
                (room - (workers > 1) * (2 * workers - 1) * one * 8) // workers,
                copies=6 if workers == 1 else 4,
                least=max(4 * length, _SMALL_BLOCK_BYTES if workers > 1 else 0),
                most=most,
                whole=vectors.whole_feature_bytes if cut else (0, 0),
                at_any_price=workers == 1,
            )
            if sizes is not None:
                return replace(plan, block_bytes=sizes[0], tile_bytes=sizes[1], workers=workers)
    raise MemoryError(
        f"the {vectors.view} view of {vectors.layer} has {rows} rows of {features} features; its {method} matrix "
        f"and {n_components} scores a row take {_mib(whole + result)}, a random sketch {_mib(sketch + result)}, the "
        f"budget is {_mib(max_bytes)}. Draw fewer rows (vectors(..., n_rows=...)), take fewer snapshots or samples, or "
        f"raise max_bytes."
    )


def products_of(rows: int, features: int) -> int:
    """Return how many multiplications the exact matrix takes, of the smaller side, of which half is enough."""
    return min(rows, features) ** 2 * max(rows, features) // 2


def _divide(
    room: int, *, copies: int, least: int, most: int, whole: tuple[int, int], at_any_price: bool
) -> tuple[int, int] | None:
    """Return how large the blocks and the tiles of a worker are that has so much room; None: it is too little.

    A total and a product each, totals that wait, and the sum of a run of them; a block each, and the copies it is made
    from and worked on in; a single one has another that is read ahead.

    Parameters
    ----------
    room : int
        Bytes.
    copies : int
        How many blocks there are at once.
    least, most : int
        What a block has to hold, and what it need not exceed.
    whole : tuple of int
        Bytes of features that read no chunk twice: in a block, and as they are stored.
    at_any_price : bool
        Whether chunks may be read several times, where there is no room for that.
    """
    block = min(max(most, whole[0]), room // copies)
    if block >= max(least, whole[0]):
        return block, 0
    if not whole[0]:
        return (block, 0) if at_any_price and block >= least else None
    small = max(least, min(_TILE_BLOCK_BYTES, room // (2 * copies)))
    tile = room - copies * small
    if tile >= whole[1] + _READ_BYTES:
        return small, min(tile - _READ_BYTES, _TILE_CHUNKS * whole[1])
    if not at_any_price or block < least:
        return None
    return (small, tile - _READ_BYTES) if tile - _READ_BYTES > small else (block, 0)


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.0f} MiB"
