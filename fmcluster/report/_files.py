"""Pages as files: the templates they are made from, and how one is put where it belongs."""

import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined


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
    """Return the path of a file to write, or raise where it cannot be one."""
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the page cannot be written to {target}: there is no folder {target.parent}")
    if target.is_dir():
        raise IsADirectoryError(f"the page cannot be written to {target}: it is a folder; pass the path of a file")
    return target


def replace(target: Path, page: str) -> None:
    """Write the page beside its target, then put it there: a reader sees the old file or the new one."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        beside.write_text(page, encoding="utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
