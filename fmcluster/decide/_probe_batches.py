"""Probe batches: a probe as ablation and plans are shown it, on the model's device, and the labels beside them."""

from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..capture import ModelInputs, Probe, ToInputs, device_of, isolated


@dataclass(frozen=True, eq=False)
class Shown:
    """A probe, and how it is shown.

    Attributes
    ----------
    probe : Dataset or DataLoader
        The images.
    batch_size : int
        Of the forward passes, where `probe` is a data set.
    to_inputs : callable, optional
        As in `ablate`.
    """

    probe: Dataset[Any] | DataLoader[Any]
    batch_size: int = 100
    to_inputs: ToInputs | None = None


def probe_batches(
    model: nn.Module,
    probe: Dataset[Any] | DataLoader[Any],
    *,
    batch_size: int,
    to_inputs: ToInputs | None,
) -> tuple[list[ModelInputs], list[Any]]:
    """Return the batches of a probe, on a model's device, and what they hold as labels; None where there are none.

    Raises
    ------
    ValueError
        For a probe of fewer than two samples.
    """
    accepts = tuple(signature(model.forward).parameters)
    shown = Probe(probe, batch_size=batch_size, to_inputs=to_inputs, accepts=accepts)
    if shown.n_samples < 2:
        raise ValueError("the probe has one sample; expected at least two, for means and standard errors")
    device = device_of(model)
    batches, targets = [], []
    with isolated(model, reads=shown.generators()):
        for batch in shown:
            batches.append(batch.inputs.to(device))
            known = batch.targets is not None and not (batch.labels < 0).all()
            dense = isinstance(batch.targets, torch.Tensor) and batch.targets.ndim > 1
            targets.append(batch.targets if dense else torch.as_tensor(batch.labels) if known else None)
    return batches, targets
