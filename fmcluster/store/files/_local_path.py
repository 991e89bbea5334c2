"""Paths that are written to: folders of this machine, and no URLs."""

import os
import re
from pathlib import Path

# A Path has one slash where the URL had two. A scheme has two letters or more: C:/ is a drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path, as the user gave it or as a `Path` of it, is a URL."""
    return _URL.fullmatch(os.fspath(path)) is not None


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that something is to be written to, once it is known to be no URL.

    Parameters
    ----------
    path : path-like
        As the user gave it, or as a `Path` of it, which has one slash less.

    Raises
    ------
    ValueError
        For a URL, of which `Path` would make a folder named ``s3:`` in the current one; for an empty path, or one that
        no system takes.
    """
    if not os.fspath(path) or "\0" in str(path):
        raise ValueError(f"path is {os.fspath(path)!r}; expected that of a folder, without null characters")
    if is_url(path):
        raise ValueError(
            f"path is the URL {whole_url(path)}; expected a folder of this machine. A run is recorded there, or into "
            f"an object store such as s3://bucket/run.zarr; results are written to this machine alone"
        )
    return Path(path)


def whole_url(path: str | os.PathLike[str]) -> str:
    """Return a path as text; of a URL that went through `Path`, with the slash that it lost.

    Examples
    --------
    >>> whole_url(Path("s3://bucket/run.zarr")), whole_url("C:/run.zarr")
    ('s3://bucket/run.zarr', 'C:/run.zarr')
    """
    text = os.fspath(path)
    url = _URL.fullmatch(text)
    return f"{url[1]}://{url[2]}" if url and "://" not in text else text
