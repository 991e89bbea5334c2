"""Files that are written beside where they belong, and then put there: nobody ever finds half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LONGEST = 40  # characters of the name that are kept; four bytes each at most, and a file system takes 255


@contextmanager
def write_beside(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Within the block, write to the path that it gets; the file is then put in place of `target`, if nothing failed.

    Parameters
    ----------
    target : path-like
        Where the file belongs. Where it is a link, what it leads to is replaced.

    Yields
    ------
    Path
        In the same folder, with the same suffix.

    Raises
    ------
    OSError
        Where it cannot be written or replaced; `target` is then as it was, and so it is after any other exception.

    Examples
    --------
    >>> with write_beside("numbers.txt") as file:  # doctest: +SKIP
    ...     file.write_text("1 2 3")
    """
    final = Path(os.path.realpath(target))
    beside = final.with_name(f".{final.stem[:_LONGEST]}.{os.getpid()}.part{final.suffix[:_LONGEST]}")
    with suppress(FileNotFoundError):
        beside.unlink()  # of a process of the same number that was killed; or a link
    try:
        yield beside
        beside.replace(final)
    finally:
        with suppress(OSError):  # where it could not be made, it need not be removed
            beside.unlink(missing_ok=True)
