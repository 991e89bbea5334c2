"""Repeats: whether a model gives the same values for the same batch, layer by layer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..forward import Firing, hooked, is_batch, isolated, same_random_numbers
from ..inputs import ModelInputs
from ._samples_first import samples_first

_MOST_VALUES = 256  # of a row


@contextmanager
def as_at_first(model: nn.Module) -> Iterator[None]:
    """Within the block, buffers and random numbers begin as they did in every other such block."""
    with isolated(model), same_random_numbers(model):
        yield


def glimpse(output: torch.Tensor) -> torch.Tensor:
    """Return some values of a batch, evenly spread over each row: Tensor of shape (n_rows, at most 256), a copy."""
    plain = output.dequantize() if output.is_quantized else output
    rows = plain.detach().as_subclass(torch.Tensor).flatten(1)
    n = rows.shape[1]
    return rows[:, torch.linspace(0, n - 1, min(n, _MOST_VALUES), device=rows.device).long()]


def shown_again(
    model: nn.Module, modules: Mapping[str, nn.Module], *, inputs: ModelInputs, layers: Mapping[Firing, int]
) -> dict[Firing, torch.Tensor]:
    """Show the model the same batch again, from the same state; return glimpses of what these layers return.

    `layers` says along which axis their samples are.
    """
    found: dict[Firing, torch.Tensor] = {}

    def note(firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        if firing in layers and is_batch(output):
            found[firing] = glimpse(samples_first(output, layers[firing]))

    with as_at_first(model), hooked(modules, note, optional=True):
        inputs.show(model)
    return found


def differing(before: Mapping[Firing, torch.Tensor], after: Mapping[Firing, torch.Tensor]) -> set[Firing]:
    """Tell which outputs are not the same in two forward passes, or are not there in both, by glimpses of them.

    Sums whose order is not fixed, as threads and atomic operations have them, make no difference: it has to be over
    2^-10 of the root mean square, which is twice what float16, in which values are stored, rounds off; of coarser
    dtypes over four times their precision.
    """
    return {firing for firing in before.keys() | after.keys() if not _are_same(before.get(firing), after.get(firing))}


def why_varying(layers: Sequence[str]) -> str:
    """Say what is wrong with layers that vary, and what to do."""
    others = f" (so did {', '.join(layers[1:4])}{' and others' if len(layers) > 4 else ''})" if layers[1:] else ""
    return (
        f"layer {layers[0]!r} gave other values when the model was shown the same batch again, in evaluation mode and "
        f"with the same random state{others}: it draws random numbers that a recorder cannot hold (a generator made "
        f"in forward, the time, os.urandom), or keeps a state that is no buffer. Snapshots of unchanged weights will "
        f"differ there, and so will CKA, drift and what follows from them. Make the generator in __init__ "
        f"(self.generator = torch.Generator()), draw nothing in evaluation mode, or leave these layers out"
    )


def _are_same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    tolerance = max(2**-10, 4 * torch.finfo(one.dtype).eps)
    one, other = one.double(), other.double()
    finite = one.isfinite() & other.isfinite()
    rest = torch.where(finite, 0, one), torch.where(finite, 0, other)
    if not torch.allclose(*rest, rtol=0, atol=0, equal_nan=True):
        return False
    one, other = torch.where(finite, one, 0), torch.where(finite, other, 0)
    return bool((one - other).abs().amax() <= tolerance * one.square().mean().sqrt())
