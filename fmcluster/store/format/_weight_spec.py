"""Weight specification: what is stored of a parameter or buffer, and in which parts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np

PART_BYTES = 32 << 20
"""What is written, and held in memory, at a time: a whole tensor, or a part of one that is larger."""

WEIGHT_DTYPES = (
    *("bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "bfloat16"),
)
_NAMED = "out_channel|in_channel|channel|token|time|frame|height|width"
_AXIS = re.compile(rf"{_NAMED}|axis_\d+")

Part = tuple[int, ...]
"""Which part of a tensor: along each axis, the number of the part, as in the name of its file."""


@dataclass(frozen=True)
class WeightSpec:
    """What is stored of a parameter or buffer.

    Attributes
    ----------
    name : str
        As in ``model.named_parameters()`` or ``model.named_buffers()``.
    shape : tuple of int
        Its shape; empty for a single number.
    dtype : str
        Its dtype in the model, such as ``"float32"``; ``"bfloat16"`` is stored as float32, which holds it exactly.
    kind : {"parameter", "buffer"}
        What it is.
    dimensions : tuple of str
        Names of its axes, as many as `shape` has.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: Literal["parameter", "buffer"]
    dimensions: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.dtype not in WEIGHT_DTYPES:
            raise ValueError(
                f"{self.kind} {self.name!r} is of {self.dtype}; expected one of {', '.join(WEIGHT_DTYPES)}"
            )
        if len(self.dimensions) != len(self.shape) or not are_weight_axes(["snapshot", *self.dimensions]):
            raise ValueError(f"{self.kind} {self.name!r} of shape {self.shape} cannot have the axes {self.dimensions}")

    @property
    def stored_dtype(self) -> str:
        """NumPy name of the dtype in which it is stored."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of one snapshot of it, uncompressed."""
        return prod(self.shape) * np.dtype(self.stored_dtype).itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a part: all of the tensor, or of a large one as many of its rows as `PART_BYTES` hold."""
        shape, rest = [], self.nbytes
        for n in self.shape:
            row = rest // max(1, n)
            shape.append(max(1, n if rest <= PART_BYTES else min(n, PART_BYTES // max(1, row))))
            rest = row if rest > PART_BYTES else rest
        return tuple(shape)

    def parts(self) -> Iterator[tuple[Part, tuple[slice, ...]]]:
        """Go through its parts, as `parts_of` does."""
        return parts_of(self.shape, chunks=self.chunks)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of its group."""
        return {"name": self.name, "kind": self.kind, "dtype": self.dtype}


def parts_of(shape: tuple[int, ...], *, chunks: tuple[int, ...]) -> Iterator[tuple[Part, tuple[slice, ...]]]:
    """Go through the parts of a tensor: the number of each, and where it lies. Of no values there is none."""
    for part in product(*(range(-(-n // step)) for n, step in zip(shape, chunks, strict=True))):
        box = zip(part, chunks, shape, strict=True)
        yield part, tuple(slice(at * step, min((at + 1) * step, n)) for at, step, n in box)


def are_weight_axes(dimensions: Sequence[str]) -> bool:
    """Whether the axes of an array are of snapshots, and then such as parameters and buffers have, each once."""
    first, *rest = dimensions
    named = all(isinstance(each, str) and _AXIS.fullmatch(each) for each in rest)
    return first == "snapshot" and named and len(set(rest)) == len(rest)
