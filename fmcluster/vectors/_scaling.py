"""Scaling of rows: nothing, their mean subtracted, or their norm made one."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Scaling = Literal["none", "centered", "unit"]
Factor = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Scale = tuple[Matrix | None, Factor | None]  # of each row: what is subtracted, and what it is multiplied with

_SHORTEST = 1e-30  # of a row whose norm, and one over it, float32 holds well


def moments_of(block: Matrix) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the sum and the sum of squares of each row."""
    return block.sum(axis=1, dtype=np.float64), np.einsum("ij,ij->i", block, block, dtype=np.float64)


def scale_of(
    total: npt.NDArray[np.float64], squares: npt.NDArray[np.float64], *, n_features: int, scaling: Scaling
) -> Scale:
    """Return what is done to rows, by their sums and sums of squares over all features."""
    if scaling == "centered":
        return (total / n_features).astype(np.float32)[:, None], None
    if scaling == "unit":
        norm = np.sqrt(squares)
        factor = np.divide(1, norm, out=np.zeros_like(norm), where=norm > 0)[:, None]
        held = ((norm == 0) | ((norm > _SHORTEST) & (norm < 1 / _SHORTEST))).all()
        return None, factor.astype(np.float32) if held else factor
    return None, None


def apply_scale(block: Matrix, scale: Scale) -> Matrix:
    """Return a block of rows, less what is subtracted, times what it is multiplied with."""
    offset, factor = scale
    if offset is not None:
        block = block - offset
    if factor is not None:
        block = (block * factor).astype(np.float32, copy=False)
    return block
