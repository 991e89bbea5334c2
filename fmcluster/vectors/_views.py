"""Views as einops patterns over ``n c h w``, and boxes of these axes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

Box = Mapping[str, slice]  # where each of the axes n, c, h is cut; one that is missing is whole

VIEWS = {
    "channel": "n c h w -> c (n h w)",
    "feature_map": "n c h w -> (n c) (h w)",
    "sample": "n c h w -> n (c h w)",
    "position": "n c h w -> (n h w) c",
}
_PATTERN = re.compile(r"\s*n c h w\s*->\s*(\w|\([\w ]+\))\s+(\w|\([\w ]+\))\s*")


def parse_view(view: str) -> tuple[str, str]:
    """Return the row axes and the feature axes of a view, as letters of ``nchw``.

    Examples
    --------
    >>> parse_view("channel"), parse_view("n c h w -> (n c) (h w)")
    (('c', 'nhw'), ('nc', 'hw'))
    """
    match = _PATTERN.fullmatch(VIEWS.get(view, view))
    groups = [re.sub(r"\W", "", group) for group in match.groups()] if match else []
    if sorted("".join(groups)) != sorted("nchw"):
        near = get_close_matches(view, VIEWS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"{view!r} is not a view; {hint}expected one of {', '.join(VIEWS)}, "
            f'or an einops pattern such as "n c h w -> (n c) (h w)"'
        )
    return groups[0], groups[1]


def split_box(
    box: dict[str, slice], axes: Sequence[str], *, sizes: Mapping[str, int], size: int, limit: int
) -> Iterator[dict[str, slice]]:
    """Cut a box along `axes`, the first of them first, until its `size` is under the `limit`."""
    if size <= limit or not axes:
        yield box
        return
    axis, *others = axes
    length = sizes[axis]
    step = max(1, limit * length // size)
    for start in range(0, length, step):
        stop = min(start + step, length)
        inner = {**box, axis: slice(start, stop)}
        yield from split_box(inner, others, sizes=sizes, size=size // length * (stop - start), limit=limit)
