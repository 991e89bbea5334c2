"""New folder: made for what is written into it, and gone again where that fails."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Within the block, a folder is there; where the block fails, what was made of it and is empty is removed."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # what is not empty stays
            for each in made:
                each.rmdir()
        raise
