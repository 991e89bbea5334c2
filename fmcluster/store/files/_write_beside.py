"""Files that are written beside where they belong, and then put there: nobody ever finds half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._stage import stage


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
        Of the same name, in a folder beside `target`.

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
    with stage(final) as folder:
        yield folder / final.name
        (folder / final.name).replace(final)
