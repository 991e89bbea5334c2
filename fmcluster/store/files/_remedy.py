"""Remedy: what has to be otherwise before what could not be written can be, as the error tells."""

import errno

from ...errors import Refused, StoreError, Unreachable

_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_PERMISSION = (errno.EACCES, errno.EPERM)
_DEVICE = (errno.EIO, errno.ENXIO, errno.ENODEV, getattr(errno, "ESTALE", errno.EIO), errno.ETIMEDOUT)
_FILES = (errno.EMFILE, errno.ENFILE)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR)
_MENDED = "Once that is mended, "


def remedy(error: BaseException) -> str:
    """Return, as the beginning of a sentence, when it is worth trying again; empty where nothing is known of that.

    Examples
    --------
    >>> remedy(OSError(errno.ENOSPC, "No space left on device"))
    'Once there is room on the disk, '
    >>> remedy(TypeError("unsupported operand"))
    ''
    """
    if isinstance(error, MemoryError):
        return "Once there is memory, of which smaller batches and fewer layers take less, "
    if isinstance(error, Unreachable):
        return _MENDED if isinstance(error, Refused) else "Once it answers, "
    if not isinstance(error, OSError):
        return ""
    known = {
        **dict.fromkeys(_ROOM, "Once there is room on the disk, "),
        **dict.fromkeys(_PERMISSION, "Once there is permission to write there, "),
        **dict.fromkeys(_DEVICE, "Once the disk, or the connection to it, works again, "),
        **dict.fromkeys(_FILES, "Once this process may open more files (ulimit -n), "),
        **dict.fromkeys(_IN_THE_WAY, "With a path in which no file stands in the place of a folder, "),
        errno.ENOENT: "Once its folder is there, ",
        errno.EROFS: "Once the file system can be written to, ",
        errno.ENAMETOOLONG: "With a shorter path, ",
        errno.EFBIG: "Once files may be as large there (ulimit -f, or another file system), ",
    }
    return known.get(error.errno or 0, _MENDED)


def in_words(error: BaseException) -> str:
    """Return the class of an error, and its message where it has one; of one of the package, the message."""
    if isinstance(error, StoreError):
        return str(error).rstrip(".")
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
