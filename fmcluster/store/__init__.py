"""Format v1: what a run is on disk, how it is written, and how it is read."""

from .format import STATISTICS, Kind, LayerSpec, RunKind
from .layer import Layer
from .names import escape
from .room import Mode
from .run import Run, open_run
from .verify import missing_files, verify
from .writer import RunWriter

__all__ = [
    "STATISTICS",
    "Kind",
    "Layer",
    "LayerSpec",
    "Mode",
    "Run",
    "RunKind",
    "RunWriter",
    "escape",
    "missing_files",
    "open_run",
    "verify",
]
