"""Loss scale: what a loss is multiplied with before its gradients are computed."""

import math
from typing import Any, Protocol


class Scaler(Protocol):
    """What scales a loss, as `torch.amp.GradScaler` does."""

    def get_scale(self) -> float:
        """Return what the loss is multiplied with."""


def as_scale(loss_scale: float | Scaler) -> float:
    """Return a loss scale as a number; raise `TypeError` where it is none, `ValueError` where it is not positive."""
    value: Any = loss_scale.get_scale() if hasattr(loss_scale, "get_scale") else loss_scale
    try:
        scale = float(value)
    except (TypeError, ValueError, RuntimeError):  # the last of a tensor of several numbers
        raise TypeError(
            f"loss_scale is {loss_scale!r}; expected a number, or a gradient scaler with get_scale()"
        ) from None
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"loss_scale is {scale}; expected a positive number, 1 where the loss is not scaled")
    return scale
