"""Pages as files: the templates they are made from, and how one is put where it belongs."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..store import remedy, write_beside


def environment() -> Environment:
    """Return what fills the templates: everything is escaped, and what is missing is an error."""
    return Environment(
        loader=PackageLoader("fmcluster", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def checked_target(target: Path) -> Path:
    """Return the path of a file to write, or raise where it cannot be one: before the work, not after it."""
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the page cannot be written to {target}: there is no folder {target.parent}")
    if target.is_dir():
        raise IsADirectoryError(f"the page cannot be written to {target}: it is a folder; pass the path of a file")
    with _in_words(target), TemporaryFile(dir=target.parent):
        pass
    return target


def replace(target: Path, page: str) -> None:
    """Write the page beside its target, then put it there: a reader sees the old file or the new one."""
    with _in_words(target), write_beside(target) as beside:
        beside.write_text(
            page, encoding="utf-8", errors="backslashreplace"
        )  # names of files may hold halves of letters


@contextmanager
def _in_words(target: Path) -> Iterator[None]:
    """Say which page could not be written, by the name that was asked for, and why."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error) or type(error).__name__).lower()
        if error.errno in (errno.EMFILE, errno.ENFILE):  # of no folder
            raise OSError(f"the page cannot be written to {target}: {why}. {remedy(error)}write it again") from error
        raise OSError(
            f"the page cannot be written to {target}: the system says {why!r} of the folder {target.parent}; choose "
            "another with -o or the path"
        ) from error
