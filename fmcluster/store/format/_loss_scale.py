"""Loss scales: what the loss was multiplied with before its gradients were computed; checked, and divided by."""

from typing import Any

import numpy as np
import numpy.typing as npt


def check_loss_scale(path: str, loss_scale: npt.NDArray[np.float64], *, n_slots: int, has_gradients: bool) -> None:
    """See that the run at `path` can hold the loss scale of each slot.

    Raises
    ------
    ValueError
        Where it cannot.
    """
    if not has_gradients:
        raise ValueError(f"{path} holds no gradients; a loss scale belongs to gradients: leave loss_scale out")
    if loss_scale.shape != (n_slots,) or loss_scale.dtype.kind != "f":
        raise ValueError(
            f"loss_scale is of {loss_scale.dtype} and shape {loss_scale.shape}; expected floats of ({n_slots},)"
        )
    known = loss_scale[~np.isnan(loss_scale)]
    if not (np.isfinite(known) & (known > 0)).all():
        raise ValueError(
            f"loss_scale holds {known[~(np.isfinite(known) & (known > 0))][0]}; expected positive numbers, "
            f"and NaN where the scale is not known"
        )


def unscale(values: npt.NDArray[Any], scale: npt.NDArray[np.float64], *, path: str, snapshot: int) -> npt.NDArray[Any]:
    """Return gradients divided by the loss scale of each sample; `path` and `snapshot` are for messages.

    Raises
    ------
    ValueError
        Where it is not known of one.
    """
    if np.isnan(scale).any():
        raise ValueError(
            f"{path} holds no loss scale for {np.isnan(scale).sum()} of the {len(scale)} samples asked for of snapshot "
            f"{snapshot}. Read without unscaled=True; a new run keeps the scale with "
            f"recorder.batch(indices, loss_scale=scaler.get_scale()), 1 where the loss is not scaled"
        )
    return (values / scale.reshape(-1, *(1 for _ in values.shape[1:]))).astype(values.dtype)
