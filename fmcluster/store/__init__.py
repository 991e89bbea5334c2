"""Format v1: what a run is on disk, how it is written, and how it is read."""

from .format import STATISTICS, LayerSpec
from .layer import Layer
from .names import escape
from .run import Run, open_run
from .verify import missing_files, verify
from .writer import Mode, RunWriter

__all__ = [
    "STATISTICS",
    "Layer",
    "LayerSpec",
    "Mode",
    "Run",
    "RunWriter",
    "escape",
    "missing_files",
    "open_run",
    "verify",
]
