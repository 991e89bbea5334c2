"""Names in a run: the paths of its groups and arrays, and of the files that it, or who writes it, has."""

import re

_SEGMENT = r"(?!\.|__|c\.|c/|zarr\.json(?:/|$))[a-z0-9_.~-]{1,240}"
_PATH = re.compile(
    r"epoch|step|index|loss_scale|checksums|statistic|samples(/(sample|label|path|digest))?|inputs(/display)?"
    rf"|metrics(/{_SEGMENT})?|layers(/{_SEGMENT}(/(activation|gradient|statistics|gradient_statistics|channel))?)?"
    rf"|weights(/{_SEGMENT}(/value)?)?|weight_norms(/(weight|norm|gradient_norm|update_norm))?"
    rf"|normalizations(/{_SEGMENT}(/(mean|variance))?)?"
)
_FILE = re.compile(
    r"zarr\.json(\.partial)?|c(\.[0-9]+)*(\.partial)?|(zarr|c(\.[0-9]+)*)\.[0-9a-f]{32}\.partial"  # zarr's own, too
)


def is_node(path: str) -> bool:
    """Whether a group or an array of a run may lie at a path.

    Examples
    --------
    >>> is_node("layers/conv1/activation"), is_node("../other.zarr"), is_node("layers/conv1/notes")
    (True, False, False)
    """
    return _PATH.fullmatch(path) is not None


def is_own(path: str) -> bool:
    """Whether a file may be one of a run's, or one that is being written.

    Examples
    --------
    >>> is_own("zarr.json"), is_own("index/c.0.0"), is_own("index/c.0.0.partial")
    (True, True, True)
    >>> is_own("notes.txt"), is_own("mine/zarr.json"), is_own("index/c.0.0/mine")
    (False, False, False)
    """
    folder, _, name = path.rpartition("/")
    return (not folder or is_node(folder)) and _FILE.fullmatch(name) is not None
