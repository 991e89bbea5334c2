"""Weights of a model: all its parameters and buffers, copied one part at a time, and the inputs of its BatchNorms."""

from collections.abc import Callable, Mapping
from functools import partial
from math import sqrt
from typing import Literal

import torch
from torch import nn

from ...errors import CaptureError
from ...store import WEIGHT_DTYPES, Part, WeightSpec
from .._compat import BATCH_NORM
from ..transfer import Copier, ExactCopy
from ..writing import PendingSnapshot, Session, WeightNorms
from ._normalization_inputs import NormalizationInputs, n_channels

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMALIZATIONS = (
    *(BATCH_NORM, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
)
_OF_POSITIONS = {1: ("time",), 2: ("height", "width"), 3: ("frame", "height", "width")}
_GRADIENT_ROWS = 1 << 20  # of a sparse gradient, at a time


class ModelWeights:
    """The parameters and buffers of a model that a recorder records, and its BatchNorms.

    Parameters
    ----------
    model : Module, optional
        The model, plain. By default there is nothing to record.

    Attributes
    ----------
    specs : list of WeightSpec
        Its parameters, then its buffers.
    normalizations : dict of str to int
        By name, the number of channels of each BatchNorm.

    Raises
    ------
    ValueError
        For a parameter or buffer that cannot be recorded, by its name.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self._model = model
        self._modules = {} if model is None else batch_norms(model)
        self.specs = [] if model is None else weight_specs(model)
        self.normalizations = {name: n_channels(module) for name, module in self._modules.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of one snapshot, uncompressed."""
        return sum(spec.nbytes for spec in self.specs)

    def inputs_of(self, snapshot: PendingSnapshot) -> NormalizationInputs:
        """Return what the inputs of the BatchNorms are added to, for one snapshot."""
        inputs = NormalizationInputs(self._modules)
        snapshot.beside.append(inputs.arrays)
        return inputs

    def put(self, snapshot: PendingSnapshot, *, copier: Copier, session: Session) -> None:
        """Copy all parameters and buffers as they are now, part by part, and queue them to be written.

        Raises
        ------
        CaptureError
            Where one is not what it was when the recording began.
        """
        if self._model is None:
            return
        tensors = self._checked(self._model)
        norms = WeightNorms(self.specs)
        for spec in self.specs:
            tensor = tensors[spec.name]
            if spec.kind == "parameter" and tensor.grad is not None:
                norms.add_gradient(spec.name, _norm(tensor.grad, spec))
            for part, box in session.writer.weights.parts(spec.name):
                copy = copier.copy_exactly(tensor.detach()[box], spec.stored_dtype)
                work = partial(_write, session, norms, name=spec.name, part=part, copy=copy)
                session.put_weight(snapshot, work, name=spec.name, release=copy.release)
        snapshot.beside.append(lambda: norms.arrays(is_first=session.writer.n_snapshots == 0))

    def _checked(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        """Return the tensors by name, as they were described when the recording began."""
        now = {spec.name: spec for spec in weight_specs(model)}
        for spec in self.specs:
            found = now.pop(spec.name, None)
            if found is None or (found.shape, found.dtype, found.kind) != (spec.shape, spec.dtype, spec.kind):
                is_now = "gone" if found is None else f"a {found.kind} of shape {found.shape} in {found.dtype}"
                raise CaptureError(
                    f"the {spec.kind} {spec.name!r} changed since the recording began: it is {is_now}, and was of "
                    f"shape {spec.shape} in {spec.dtype}. Weights that are recorded keep names, shapes and dtypes"
                )
        if now:
            raise CaptureError(
                f"the {next(iter(now.values())).kind} {next(iter(now))!r} is new since the recording began. Weights "
                f"that are recorded keep names, shapes and dtypes"
            )
        return _tensors(model)


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return a model's BatchNorms by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BATCH_NORM)}


def weight_specs(model: nn.Module) -> list[WeightSpec]:
    """Return what is stored of a model's parameters and buffers: a tensor that goes by two names, twice.

    Raises
    ------
    ValueError
        For one that cannot be stored as it is, by its name.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    specs = []
    for name, tensor in _tensors(model).items():
        kind: Literal["parameter", "buffer"] = "parameter" if name in parameters else "buffer"
        if (why := _obstacle(tensor)) is not None:
            raise ValueError(
                f"the {kind} {name!r} {why}; weights are recorded as dense arrays of the dtypes that NumPy has, and of "
                f"bfloat16. Nothing was recorded; leave 'weight' out of `record`"
            )
        shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        parent, _, leaf = name.rpartition(".")
        axes = _axes(modules.get(parent), leaf, n_axes=len(shape))
        specs.append(WeightSpec(name, shape, dtype, kind, axes))
    return specs


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def _obstacle(tensor: torch.Tensor) -> str | None:
    """Say why a tensor cannot be stored as it is; None where it can."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    checks: tuple[tuple[Callable[[], bool], str], ...] = (
        (lambda: nn.parameter.is_lazy(tensor), "is lazy and has no values yet (show the model a batch first)"),
        (lambda: tensor.is_quantized, f"is quantized ({dtype})"),
        (lambda: tensor.layout != torch.strided, f"is sparse ({str(tensor.layout).removeprefix('torch.')})"),
        (lambda: tensor.device.type == "meta", "is on the meta device and has no values"),
        (lambda: hasattr(tensor, "__tensor_flatten__"), f"is a {type(tensor).__name__}, made of other tensors"),
        (lambda: dtype not in WEIGHT_DTYPES, f"is of {dtype}"),
    )
    return next((why for fails, why in checks if fails()), None)


def _axes(module: nn.Module | None, leaf: str, *, n_axes: int) -> tuple[str, ...]:
    """Return names of a tensor's axes: what they are of, where its module says it, and their numbers else."""
    named: tuple[str, ...] = ()
    if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
        channels = ("in_channel", "out_channel") if isinstance(module, _TRANSPOSED) else ("out_channel", "in_channel")
        named = ("out_channel",) if leaf == "bias" else (*channels, *_OF_POSITIONS.get(n_axes - 2, ()))
    elif isinstance(module, nn.Linear):
        named = ("out_channel",) if leaf == "bias" else ("out_channel", "in_channel")
    elif isinstance(module, nn.Embedding):
        named = ("token", "channel")
    elif isinstance(module, _NORMALIZATIONS):
        named = ("channel",)
    return named if len(named) == n_axes else tuple(f"axis_{axis}" for axis in range(n_axes))


def _norm(gradient: torch.Tensor, spec: WeightSpec) -> float:
    """Return the Euclidean norm of a gradient, its squares summed in float64 part by part."""
    given = gradient.detach()
    with torch.no_grad(), torch.autocast(given.device.type, enabled=False):
        if given.layout == torch.strided:
            pieces = [given[box] for _, box in spec.parts()]
        else:
            pieces = list(torch.split(given.coalesce().values(), _GRADIENT_ROWS))
        return sqrt(sum(_sum_of_squares(piece) for piece in pieces))


def _sum_of_squares(values: torch.Tensor) -> float:
    values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    values = values.cpu() if values.device.type == "mps" else values  # which has no float64
    return float(values.to(torch.float64).square().sum())


def _write(session: Session, norms: WeightNorms, *, name: str, part: Part, copy: ExactCopy) -> None:
    """Write a part of a parameter or buffer; the snapshot before is committed by now."""
    weights = session.writer.weights
    norms.add(name, part=part, values=copy.values, before=weights.before(name, part=part))
    weights.write(name, copy.values, part=part)
