"""Views: what a row is, by name or as an einops pattern over ``n c h w``; and boxes of these axes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

Box = Mapping[str, slice]  # where each of the axes n, c, h is cut; one that is missing is whole


@dataclass(frozen=True)
class View:
    """What a row of a matrix is.

    Attributes
    ----------
    pattern : str
        As einops has it: the row axes and the feature axes.
    row : str
        What a row is called.
    meaning : str
        What it is.
    together : str
        What is so of rows that lie close together.
    """

    pattern: str
    row: str
    meaning: str
    together: str


VIEWS = {
    "channel": View(
        "n c h w -> c (n h w)",
        row="channel",
        meaning="one channel: its response to all images, at all positions",
        together="Neighbors respond in the same way",
    ),
    "feature_map": View(
        "n c h w -> (n c) (h w)",
        row="feature map",
        meaning="one feature map: a channel on one image",
        together="Feature maps that lie together have similar patterns",
    ),
    "sample": View(
        "n c h w -> n (c h w)",
        row="sample",
        meaning="one image as the layer sees it",
        together="Images that lie together are similar to the network",
    ),
    "position": View(
        "n c h w -> (n h w) c",
        row="position",
        meaning="one position of one image, over all channels",
        together="Neighbors look the same to the network",
    ),
}
_PATTERN = re.compile(r"\s*n c h w\s*->\s*(\w|\([\w ]+\))\s+(\w|\([\w ]+\))\s*")


def parse_view(view: str) -> tuple[str, str]:
    """Return the row axes and the feature axes of a view, as letters of ``nchw``.

    Examples
    --------
    >>> parse_view("channel"), parse_view("n c h w -> (n c) (h w)")
    (('c', 'nhw'), ('nc', 'hw'))
    """
    match = _PATTERN.fullmatch(VIEWS[view].pattern if view in VIEWS else view)
    groups = [re.sub(r"\W", "", group) for group in match.groups()] if match else []
    if sorted("".join(groups)) != sorted("nchw"):
        near = get_close_matches(view, VIEWS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"{view!r} is not a view; {hint}expected one of {', '.join(VIEWS)}, "
            f'or an einops pattern such as "n c h w -> (n c) (h w)"'
        )
    return groups[0], groups[1]


@dataclass(frozen=True)
class Unit:
    """What of an axis is decoded at once, however little of it is asked for: positions along the axis.

    Attributes
    ----------
    chunk : int
        In a chunk.
    file : int
        In a file of chunks; where more than half of it is asked for, all of it is decoded.
    """

    chunk: int
    file: int

    def align(self, step: int) -> int:
        """Return the largest step, at most as large, whose parts have no chunk in common; or one within a chunk."""
        if step >= self.file:
            return step // self.file * self.file
        if step < self.chunk:
            return step
        return max(self.chunk, min(step, self.file // 2) // self.chunk * self.chunk)


def split_box(
    box: dict[str, slice],
    axes: Sequence[str],
    *,
    sizes: Mapping[str, int],
    size: int,
    limit: int,
    units: Mapping[str, Unit] | None = None,
) -> Iterator[dict[str, slice]]:
    """Cut a box along `axes`, the first of them first, until its `size` is under the `limit`; between chunks, if so."""
    if size <= limit or not axes:
        yield box
        return
    axis, *others = axes
    length = sizes[axis]
    step = max(1, limit * length // size)
    if units is not None and axis in units:
        step = units[axis].align(step)
    for start in range(0, length, step):
        stop = min(start + step, length)
        inner = {**box, axis: slice(start, stop)}
        yield from split_box(inner, others, sizes=sizes, size=size // length * (stop - start), limit=limit, units=units)
