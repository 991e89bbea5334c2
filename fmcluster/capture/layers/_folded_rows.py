"""Folded rows: whose the rows of an output are, where a module returns several for each sample."""

from collections.abc import Collection, Mapping

import torch
from torch import nn

from ..forward import Firing, hooked, is_batch
from ..inputs import ModelInputs
from ._axis_tracker import Fold
from ._repeats import as_at_first, glimpse
from ._samples_first import samples_first


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


def at_other_samples(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    *,
    inputs: ModelInputs,
    folded: Collection[Firing],
    seen: Mapping[Firing, int],
    row_shapes: Mapping[Firing, tuple[int, ...]] | None = None,
) -> tuple[dict[Firing, int], dict[Firing, torch.Tensor], dict[Firing, torch.Tensor]]:
    """Show the model other samples: of another number, which tells a batch from what is as long by chance, or order.

    Of one sample, an output in the shape of a row (`row_shapes`) has lost its axis of samples, as by ``squeeze()``.

    Returns
    -------
    tuple of (dict of Firing to int, dict of Firing to Tensor, dict of Firing to Tensor)
        How many rows each output has; what tells the rows of those of `folded` from one another; and glimpses of those
        of `seen`, which says along which axis their samples are.
    """
    rows: dict[Firing, int] = {}
    again: dict[Firing, torch.Tensor] = {}
    glimpses: dict[Firing, torch.Tensor] = {}

    def count(firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        squeezed = len(inputs) == 1 and tuple(output.shape) == (row_shapes or {}).get(firing)
        output = output[None] if squeezed else samples_first(output, seen.get(firing, 0))
        rows[firing] = output.shape[0] if output.ndim else 0
        if firing in folded:
            again[firing] = summaries(output)
        if firing in seen and is_batch(output):
            glimpses[firing] = glimpse(output)

    with as_at_first(model), hooked(modules, count, optional=True):
        try:
            inputs.show(model)
        except Exception:  # a model that takes batches of one size only may raise what it likes: nothing is known then
            return {}, {}, {}
    return rows, again, glimpses


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
    # where both fit, rows are equal, or there are two samples, and nothing tells which is right
    return fitting[0] if len(fitting) == 1 else None
