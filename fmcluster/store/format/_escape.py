"""Escaped names: every module name as a legal, case-safe path on every system, and back."""

import re
from hashlib import sha256

_PLAIN = re.compile(r"[a-z0-9_.-]")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_LONGEST = 200


def escape(name: str) -> str:
    """Turn a module name into a path segment.

    Bytes other than lower-case letters, digits and ``_ . -`` become ``~`` and two hexadecimal digits, so that names
    that differ only in case stay apart on file systems that fold it. The first character is written so too where
    the plain name is reserved: by Zarr (a leading ``__``, ``zarr.json``, a chunk's ``c.``), by Windows (``con``,
    ``aux``, ...), or as a hidden file. A name too long for a file system ends in its digest.

    Examples
    --------
    >>> escape("layer1.0.conv2"), escape("Mixed_5b"), escape("aux")
    ('layer1.0.conv2', '~4dixed_5b', '~61ux')
    """
    if not name:
        return "~"
    path = "".join(
        char if _PLAIN.fullmatch(char) else "".join(f"~{byte:02x}" for byte in char.encode()) for char in name
    )
    if path.startswith((".", "__", "c.")) or path in ("c", "zarr.json") or _RESERVED.fullmatch(path):
        path = f"~{ord(path[0]):02x}{path[1:]}"
    if path.endswith("."):
        path = path[:-1] + "~2e"
    if len(path) > _LONGEST:
        path = f"{path[:_LONGEST]}~~{sha256(name.encode()).hexdigest()[:16]}"
    return path
