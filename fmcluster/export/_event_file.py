"""Event file: what TensorBoard reads, written whole, and by the caller's own thread, which hears of a full disk."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..store import stage
from ._new_folder import new_folder

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter

PREFIX = "events.out.tfevents."
_FIRST_BIN, _LARGEST_BIN, _GROWTH = 1e-12, 1e20, 1.1  # TensorBoard's own


class EventFile:
    """Takes values, each of a name at a step, and writes them; `torch.utils.tensorboard` makes their form.

    Parameters
    ----------
    records : RecordWriter
        TensorBoard's own, of an open file.
    """

    def __init__(self, records: "RecordWriter") -> None:
        from torch.utils.tensorboard import summary

        self._records = records
        self._form: Any = summary
        self._write(file_version="brain.Event:2")

    def add_scalar(self, name: str, value: float, *, step: int) -> None:
        """Add a number."""
        self._add(self._form.scalar(name, value), step=step)

    def add_histogram(self, name: str, values: npt.NDArray[np.float64], *, step: int) -> None:
        """Add the histogram of values, of shape (n,), finite.

        TensorBoard's own bins end at 1e20: of values that are all beyond, it would say that there are none.
        """
        beyond = np.abs(values).max(initial=0) > _LARGEST_BIN
        self._add(self._form.histogram(name, values, _bins_around(values) if beyond else _bins()), step=step)

    def add_image(self, name: str, pixels: npt.NDArray[np.uint8], *, step: int) -> None:
        """Add a picture of shape (height, width, 3)."""
        self._add(self._form.image(name, pixels, dataformats="HWC"), step=step)

    def add_text(self, name: str, markdown: str, *, step: int) -> None:
        """Add prose."""
        self._add(self._form.text(name, markdown), step=step)

    def _add(self, value: Any, *, step: int) -> None:
        self._write(summary=value, step=step)

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())


@contextmanager
def write_events(folder: Path, *, suffix: str) -> Iterator[EventFile]:
    """Within the block, write events, which become a file in a folder once all are there.

    Parameters
    ----------
    folder : Path
        Made where it is not there; where the block fails, it is gone again.
    suffix : str
        How the file's name ends.

    Raises
    ------
    OSError
        Where they cannot be written, as when the disk is full.
    """
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time_ns()
    name = f"{PREFIX}{now // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{now % 10**9}{suffix}"
    with new_folder(folder), stage(folder / "events") as beside:
        whole = beside / "whole"  # a name by which TensorBoard, which may look on, takes it for nothing of its own
        with whole.open("wb") as file:
            yield EventFile(RecordWriter(file))
        whole.replace(folder / name)


def check_tensorboard() -> None:
    """Raise ImportError that names the extra where TensorBoard is not there."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportError(f"TensorBoard is not installed ({error}): pip install 'fmcluster[tensorboard]'") from error


def _bins_around(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the edges of bins from the least of the values to the largest, and wider where these are nearly equal."""
    low, high = float(values.min()), float(values.max())
    least = 1e-3 * max(abs(low), abs(high))
    margin = least if high - low < least else 0.0
    return np.histogram_bin_edges(values, "sturges", range=(low - margin, high + margin))


def _bins() -> list[float]:
    """Return the bounds of TensorBoard's bins: they grow by a tenth, to both sides of zero."""
    bounds = [_FIRST_BIN]
    while bounds[-1] * _GROWTH < _LARGEST_BIN:
        bounds.append(bounds[-1] * _GROWTH)
    return [*(-bound for bound in reversed(bounds)), 0.0, *bounds]
