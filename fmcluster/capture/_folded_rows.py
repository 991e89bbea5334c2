"""Folded rows: whose the rows of an output are, where a module returns several for each sample."""

import torch

from ._axes import Fold
from ._hooks import is_batch


def rows_per_sample(output: torch.Tensor, n_rows: int) -> int:
    """Return how many rows an output has for each sample, where they are a whole number of 2 at least; else 0."""
    if not is_batch(output) or output.ndim > 4 or n_rows < 2:
        return 0
    several, rest = divmod(output.shape[0], n_rows)
    return several if several > 1 and not rest else 0


def summaries(output: torch.Tensor) -> torch.Tensor:
    """Return a few numbers that tell one row of an output from another, Tensor of shape (n_rows, 4), float64."""
    rows = (output.dequantize() if output.is_quantized else output).detach().flatten(1).double().cpu()
    weights = torch.linspace(-1, 1, rows.shape[1], dtype=torch.float64)
    return torch.stack([rows.mean(1), rows.square().mean(1).sqrt(), rows @ weights, rows[:, 0]], dim=1)


def fold_of(all_rows: torch.Tensor, without_first: torch.Tensor | None, *, n_samples: int) -> Fold | None:
    """Tell whose the rows of an output are, by which of them are there again without the first sample."""
    several = len(all_rows) // n_samples
    if without_first is None or len(without_first) != several * (n_samples - 1):
        return None
    fitting = []
    for by_sample in (True, False):
        fold = Fold(several, by_sample)
        expected, found = fold.of(all_rows)[1:], fold.of(without_first)
        if torch.allclose(expected, found, rtol=1e-3, atol=1e-5 * float(all_rows.abs().max())):
            fitting.append(fold)
    # where both fit, rows are alike, or there are two samples and no telling
    return fitting[0] if len(fitting) == 1 else None
