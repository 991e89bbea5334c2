"""Loading of recorded weights: into a model, all or none, bit for bit; torch is not imported for it."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ._weight_names import prefixes_before, without_wrapped_parts

Array = npt.NDArray[Any]


class HasWeights(Protocol):
    """What weights can be put into: a `torch.nn.Module`."""

    def named_parameters(self, *, remove_duplicate: bool) -> Iterable[Any]:
        """Return names and parameters."""

    def named_buffers(self, *, remove_duplicate: bool) -> Iterable[Any]:
        """Return names and buffers."""


def put_into(model: HasWeights, values: Mapping[str, Array], *, dtypes: Mapping[str, str], run: str) -> None:
    """Put recorded weights into a model; see `RecordedWeights.load_weights`.

    Parameters
    ----------
    model : Module
        The model.
    values : mapping of str to ndarray
        By name, the recorded parameters and buffers; those of bfloat16 as float32.
    dtypes : mapping of str to str
        By name, the dtype that they had in the recorded model.
    run : str
        Where they come from, for messages.
    """
    tensors = _tensors(model, values)
    _check(tensors, values, run=run)
    fitting = {name: _fitting(tensor, values[name], dtypes[name], name=name) for name, tensor in tensors.items()}
    _check_tied(tensors, fitting)
    for name, tensor in tensors.items():
        _copy(tensor.detach(), fitting[name])


def _tensors(model: HasWeights, values: Mapping[str, Array]) -> dict[str, Any]:
    """Return a model's tensors under the recorded names: prefixes of wrappers go where the names then match."""
    if not hasattr(model, "named_parameters") or not hasattr(model, "named_buffers"):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for plain in (own, {without_wrapped_parts(name): tensor for name, tensor in own.items()}):
        beneath = [
            {name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
            for prefix in prefixes_before(plain, values)
        ]
        fitting = [cut for cut in beneath if cut.keys() == values.keys()]
        if len(fitting) == 1:
            return {name: fitting[0][name] for name in values}
    inner = {without_wrapped_parts(name): tensor for name, tensor in own.items()}  # as the error is to name them
    parallel = "module." if all(name.startswith("module.") for name in inner) else ""
    return {name.removeprefix(parallel): tensor for name, tensor in inner.items()}


def _check(tensors: Mapping[str, Any], values: Mapping[str, Array], *, run: str) -> None:
    """Raise `ValueError` where names or shapes differ, with the first that does."""
    for name, held in values.items():
        if name not in tensors:
            differs = f"the model has no {name!r}, which the run holds with the shape {held.shape}"
        elif (shape := tuple(tensors[name].shape)) != held.shape:
            differs = f"the model's {name!r} has the shape {shape}, and the run's {held.shape}"
        else:
            continue
        raise ValueError(f"{run} holds the weights of another model: {differs}. Nothing was changed.")
    if more := [name for name in tensors if name not in values]:
        raise ValueError(
            f"{run} holds the weights of another model: it has no {more[0]!r}, which the model has with the shape "
            f"{tuple(tensors[more[0]].shape)}; it holds {len(values)}, of {', '.join(list(values)[:8])}"
            f"{' and so on' if len(values) > 8 else ''}. Nothing was changed."
        )


def _fitting(tensor: Any, values: Array, recorded: str, *, name: str) -> Array:
    """Return values in a tensor's dtype, those of bfloat16 as the integers of their bits.

    Raises
    ------
    ValueError
        Where a value does not fit exactly.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    try:
        if dtype == recorded and dtype != "bfloat16":
            return values
        if dtype == "bfloat16":
            wide = _exactly(values, "float32")
            bits = np.ascontiguousarray(wide).view(np.uint32)
            if (bits & 0xFFFF).any():
                raise ValueError("a value has more digits than that holds")
            return (bits >> 16).astype(np.uint16).view(np.int16).reshape(values.shape)
        return _exactly(values, dtype)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name!r} was recorded in {recorded}, and does not fit the model's {dtype} without loss ({error}). "
            f"Nothing was changed; convert the model first, such as by model.float()."
        ) from error


def _exactly(values: Array, dtype: str) -> Array:
    """Return values in another dtype of NumPy's; raise `ValueError` where they would not be the same."""
    if values.dtype.kind == "c" and np.dtype(dtype).kind != "c":
        raise ValueError("complex numbers are not real")
    with np.errstate(all="ignore"):
        there = values.astype(dtype)
        back = there.astype(values.dtype)
    if not np.array_equal(back, values, equal_nan=values.dtype.kind in "fc"):
        raise ValueError("a value would become another")
    return there


def _check_tied(tensors: Mapping[str, Any], values: Mapping[str, Array]) -> None:
    """Raise `ValueError` where one tensor goes by two names that were recorded with different values."""
    first: dict[int, str] = {}
    for name, tensor in tensors.items():
        known = first.setdefault(id(tensor), name)
        if known != name and values[known].tobytes() != values[name].tobytes():
            raise ValueError(f"{known!r} and {name!r} are one tensor in the model, and two in the run")


def _copy(tensor: Any, values: Array) -> None:
    """Copy values into a tensor, which shares its memory with the model's."""
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has none: its bits, as integers of the same size
        tensor = tensor.view(tensor.new_empty(0).short().dtype)
    plain = tensor.resolve_conj().resolve_neg()  # itself, but of a lazy conjugate
    tensor.copy_(plain.new_tensor(np.array(values)))
