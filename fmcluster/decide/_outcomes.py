"""Outcomes: what a network makes of each sample of the probe, as loss, right or wrong, and probabilities."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..capture import ModelInputs

Loss = Callable[[Any, Any], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What a network makes of the samples.

    Attributes
    ----------
    loss : Tensor of shape (n_samples,), float64, or None
        The loss of each; None where there are no labels.
    right : Tensor of shape (n_samples,), float64, or None
        Share of right predictions: 0 or 1, of dense predictions in between; None where there are no labels.
    log_p : Tensor of shape (n_samples, n_classes, ...), float64
        Logarithms of the probabilities.
    """

    loss: torch.Tensor | None
    right: torch.Tensor | None
    log_p: torch.Tensor

    def divergence(self, other: "Outcomes") -> torch.Tensor:
        """Return the Kullback-Leibler divergence of another's probabilities from these, ndarray of (n_samples,)."""
        each = self.log_p.exp() * (self.log_p - other.log_p)
        return each.sum(1).flatten(1).mean(1) if each.ndim > 2 else each.sum(1)


def outcomes_of(outputs: list[Any], targets: list[Any], *, loss: Loss | None) -> Outcomes:
    """Compute the outcomes of all batches.

    Raises
    ------
    TypeError
        Where a model's outputs hold no scores.
    ValueError
        Where a loss is not a number.
    """
    losses, right, log_p = [], [], []
    for output, target in zip(outputs, targets, strict=True):
        scores = scores_of(output).detach()
        log_p.append(functional.log_softmax(scores.double(), dim=1).cpu())
        if target is not None:
            losses.append(sample_losses(output, target, loss=loss).detach().double().cpu())
            right.append(_right(scores, target))
    known = [each for each in right if each is not None]
    return Outcomes(
        loss=torch.cat(losses) if losses else None,
        right=torch.cat(known) if len(known) == len(outputs) else None,
        log_p=torch.cat(log_p),
    )


def scores_of(output: Any) -> torch.Tensor:
    """Return the scores of the classes among a model's outputs: a tensor, ``logits``, ``out``, or the first of several.

    Raises
    ------
    TypeError
        Where there are none of shape (n_samples, n_classes, ...).
    """
    found = output
    if isinstance(output, Mapping) or hasattr(output, "logits"):
        names = ("logits", "out")
        found = next((output[name] for name in names if isinstance(output, Mapping) and name in output), None)
        found = getattr(output, "logits", None) if found is None else found
    elif isinstance(output, tuple | list) and output:
        found = output[0]
    if not isinstance(found, torch.Tensor) or found.ndim < 2 or not found.is_floating_point():
        shown = tuple(found.shape) if isinstance(found, torch.Tensor) else type(output).__name__
        raise TypeError(
            f"the model returned {shown}; expected scores of shape (n_samples, n_classes), or an output with logits: "
            f"wrap the model in one that returns them"
        )
    return found


def sample_losses(output: Any, target: Any, *, loss: Loss | None) -> torch.Tensor:
    """Return the loss of each sample, Tensor of shape (n_samples,)."""
    target = torch.as_tensor(target, device=scores_of(output).device)
    if loss is None:
        n_classes = scores_of(output).shape[1]
        low, high = int(target.min()), int(target.max())
        if not target.is_floating_point() and (low < 0 or high >= n_classes):
            raise ValueError(
                f"the probe's labels are from {low} to {high}, and the model gives scores of {n_classes} classes; "
                f"expected labels from 0 to {n_classes - 1}. Pass a probe of its classes, or a loss of your own"
            )
        return _by_sample(functional.cross_entropy(scores_of(output), target, reduction="none"))
    if isinstance(loss, nn.Module) and getattr(loss, "reduction", None) == "mean":
        each = copy(loss)
        each.reduction = "none"  # type: ignore[assignment]
        found = each(output, target)
        if found.ndim:
            return _by_sample(found)
    rows = []
    for number in range(len(target)):
        part = slice(number, number + 1)
        value = loss(ModelInputs((output,)).rows(part).args[0], target[part])
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise ValueError(f"loss returned {type(value).__name__}; expected a tensor that is one number")
        rows.append(value.reshape(()))
    return torch.stack(rows)


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """Return the mean over samples, and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _by_sample(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def _right(scores: torch.Tensor, target: Any) -> torch.Tensor | None:
    """Return the share of right predictions of each sample; None where the targets are no classes."""
    target = torch.as_tensor(target, device=scores.device)
    if target.is_floating_point() or target.shape != (scores.shape[0], *scores.shape[2:]):
        return None
    return _by_sample((scores.argmax(1) == target).double()).cpu()
