"""Predicted changes: what interventions make of a layer's stored feature maps, fitted on these themselves."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ..analysis.diagnosis import head_of, passes_on
from ..store import KernelGeometry, Layer, Run
from ._least_squares import (
    COPIES_TO_SOLVE,
    MOST_WEIGHTS,
    inner_weights,
    kernel_patches,
    order_by_redundancy,
    predict_from_others,
    solve,
)
from .interventions import Groups, KernelSize, Resolution, Separable, Skipped, Width, averaged

_CONVOLUTION = re.compile(r"Conv(Transpose)?\dd$")

Difference = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Makes of feature maps, and of what the layer was given, the change of the former: float32, of the same shape."""


@dataclass(frozen=True, eq=False)
class PredictedChange:
    """One change of a layer's feature maps.

    Attributes
    ----------
    intervention, layer, what, how : str
        As `ablate` names them.
    amount : float
        How much of it: larger changes more.
    at : str
        The layer whose feature maps are changed.
    difference : callable
        Makes of its feature maps, and what it was given, what is added to them.
    leaves_out : bool
        Whether a layer is left out. Otherwise the change is what an approximation of its feature maps leaves over.
    """

    intervention: str
    layer: str
    what: str
    how: str
    amount: float
    at: str
    difference: Difference
    leaves_out: bool = False


class LayerReader:
    """The feature maps of one snapshot of a run, read in blocks of images.

    Parameters
    ----------
    run : Run
        The run.
    snapshot : int
        The number of the snapshot.
    blocks : sequence of ndarray of int64
        Dataset indices.
    patch_bytes : int
        What the patches that a kernel sees may take: of several images, or of some rows of one.
    fit_bytes : int
        What fitting a kernel may take.
    """

    def __init__(
        self,
        run: Run,
        *,
        snapshot: int,
        blocks: Sequence[npt.NDArray[np.int64]],
        patch_bytes: int,
        fit_bytes: int,
    ) -> None:
        self.run = run
        self.patch_bytes = patch_bytes
        self.fit_bytes = fit_bytes
        self._snapshot = snapshot
        self._blocks = blocks

    def blocks(
        self, layer: Layer, *, gradient: bool = False, given: bool = False
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield a layer's feature maps, their gradients where asked for, and what it was given, Tensors of float32."""
        source = self.input_of(layer)
        for samples in self._blocks:
            out = [self._read(layer, samples)]
            if gradient:
                out.append(self._read(layer.gradient, samples))
            if given and source is not None and layer.input is not None:
                values = self._read(source, samples)
                out.append(functional.relu(values) if layer.input.relu else values)
            yield tuple(out)

    def input_of(self, layer: Layer) -> Layer | None:
        """Return the layer whose whole feature maps it was given; None where they were not recorded."""
        if layer.input is None or layer.input.layer not in self.run.layers:
            return None
        found = self.run[layer.input.layer]
        return found if is_whole(found) else None

    def users_of(self, layer: Layer) -> list[Layer]:
        """Return the recorded layers that were given a layer's feature maps."""
        return [self.run[name] for name, given in self._inputs.items() if given == layer.name]

    @cached_property
    def _inputs(self) -> dict[str, str]:
        found = {name: self.run[name].input for name in self.run.layers}
        return {name: given.layer for name, given in found.items() if given is not None}

    def _read(self, layer: Layer, samples: npt.NDArray[np.int64]) -> torch.Tensor:
        values = layer.read(snapshot=self._snapshot, samples=samples.tolist())
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def predicted_changes(reader: LayerReader, name: str) -> Iterator[PredictedChange | Skipped]:
    """Yield the changes of a layer that its feature maps, and those of its neighbors, are enough for.

    Parameters
    ----------
    reader : LayerReader
        Of the run.
    name : str
        The layer.
    """
    layer = reader.run[name]
    convolution = "Conv" in layer.module and layer.dimensions[2:] == ("channel", "height", "width")
    if not is_whole(layer):
        yield Skipped("all", name, "a part of its feature maps was recorded, or their averages")
        return
    given = reader.input_of(layer)
    if not passes_on(layer.module):
        yield from _depth(layer, given)
    if convolution or "Linear" in layer.module:
        yield from _width(reader, layer)
    if convolution:
        yield from _kernels(reader, layer, given)
        yield from _resolution(layer)
    elif _CONVOLUTION.search(layer.module):
        asked = (KernelSize().name, Separable().name, Groups().name, Resolution().name)
        yield from (Skipped(each, name, f"it is a {layer.module}, not a 2-D convolution") for each in asked)


def is_whole(layer: Layer) -> bool:
    return layer.crop is None and not layer.average_pooled and layer.n_channels == layer.n_output_channels


def _depth(layer: Layer, given: Layer | None) -> Iterator[PredictedChange | Skipped]:
    if given is None:
        yield Skipped("depth", layer.name, "what it was given is not recorded")
    elif given.shape == layer.shape:
        difference: Difference = lambda maps, before: _of(before) - maps  # noqa: E731
        what = "replaced by the identity"
        yield PredictedChange("depth", layer.name, what, "", 1.0, layer.name, difference, leaves_out=True)


def _resolution(layer: Layer) -> Iterator[PredictedChange]:
    asked = Resolution()
    height, width = layer.shape[-2:]
    for factor in asked.factors_of(height, width):
        what = asked.in_words(height, width, factor=factor)
        yield PredictedChange(asked.name, layer.name, what, "", 1 - 1 / factor**2, layer.name, _averaged(factor))


def _averaged(factor: int) -> Difference:
    return lambda maps, _given: averaged(maps, factor) - maps


def _width(reader: LayerReader, layer: Layer) -> Iterator[PredictedChange | Skipped]:
    """Remove channels where the next layer reads them, behind what only passes them on."""
    at = layer
    while len(users := reader.users_of(at)) == 1:
        user = users[0]
        fits = passes_on(user.module) and user.n_channels == layer.n_channels and is_whole(user)
        if not fits or "gradient" not in user.quantities:
            break
        at = user
    width = layer.n_channels
    if at.name == head_of(reader.run):
        yield Skipped(Width().name, layer.name, "its channels are what the network returns, such as scores of classes")
        return
    if layer.kernel is not None and layer.kernel.groups != 1:
        return
    if width < 2 or at.dimensions[2:] not in (("channel",), ("channel", "height", "width")):
        return
    mean, covariance, energy = _moments(reader, at)
    order = order_by_redundancy(covariance, energy)
    asked = Width()
    for count in asked.counts_of(width):
        removed = order[:count]
        kept, weights, constant = predict_from_others(mean, covariance, removed=removed)
        what = asked.in_words(width, count=count)
        difference = _predicted(removed, kept, weights, constant)
        yield PredictedChange(asked.name, layer.name, what, "redundancy, folded", count / width, at.name, difference)


def _moments(reader: LayerReader, layer: Layer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean and covariance of the channels over all positions, and the mean square of their gradients."""
    zero = torch.zeros((), dtype=torch.float64)
    total, squares, energy, count = zero, zero, zero, 0
    for values, slope in reader.blocks(layer, gradient=True):
        rows = values.movedim(1, -1).reshape(-1, values.shape[1]).double()
        total, squares, count = total + rows.sum(0), squares + rows.T @ rows, count + len(rows)
        energy = energy + slope.double().square().movedim(1, -1).reshape(len(rows), -1).sum(0)
    mean = total / count
    return mean, squares / count - torch.outer(mean, mean), energy / count


def _predicted(removed: torch.Tensor, kept: torch.Tensor, weights: torch.Tensor, constant: torch.Tensor) -> Difference:
    def difference(maps: torch.Tensor, _given: torch.Tensor | None) -> torch.Tensor:
        found = torch.einsum("rk,nk...->nr...", weights.float(), maps[:, kept])
        out = torch.zeros_like(maps)
        out[:, removed] = found + constant.float().reshape(1, -1, *(1 for _ in maps.shape[2:])) - maps[:, removed]
        return out

    return difference


def _kernels(reader: LayerReader, layer: Layer, given: Layer | None) -> Iterator[PredictedChange | Skipped]:
    """Replace the kernel by a smaller one, a separable one, or one of groups."""
    kernel = layer.kernel
    if kernel is None:
        asked = (KernelSize().name, Separable().name, Groups().name) if _CONVOLUTION.search(layer.module) else ()
        reason = "it is no plain 2-D convolution, or pads with other values than zeros"
        yield from (Skipped(each, layer.name, reason) for each in asked)
        return
    wanted = [KernelSize().name] * (max(kernel.size) > 1)
    wanted += [] if kernel.groups > 1 else [Separable().name, Groups().name]
    if not wanted:
        return
    reason = ""
    if given is None:
        reason = "what it was given is not recorded"
    elif (n_weights := given.n_channels // kernel.groups * kernel.size[0] * kernel.size[1]) > MOST_WEIGHTS:
        reason = f"an output channel has {n_weights} weights, over {MOST_WEIGHTS}"
    elif (needed := 8 * (kernel.groups + COPIES_TO_SOLVE) * (n_weights + 1) ** 2) > reader.fit_bytes:
        reason = f"the moments of its kernel take {needed / 2**20:,.0f} MiB while it is fitted, over max_bytes"
    if given is None or reason:
        yield from (Skipped(name, layer.name, reason) for name in wanted)
        return
    squares, products = _patch_moments(reader, layer, kernel)
    yield from _kernel_size(layer, kernel, given, squares=squares, products=products)
    if kernel.groups == 1:
        yield from _refits(layer, kernel, squares, products=products)


def _refits(
    layer: Layer, kernel: KernelGeometry, squares: torch.Tensor, *, products: torch.Tensor
) -> Iterator[PredictedChange]:
    """Refit separable kernels and groups in place of the weights that explain what the layer returned."""
    weights = solve(squares[0], products[0])[:-1].T  # outputs, weights; without the constant
    weight = weights.reshape(len(weights), -1, *kernel.size)
    for asked in (Separable(), Groups()):
        for refit in asked.refits(weight.shape, kernel.groups):
            change = asked.solve(weight, squares[:, :-1, :-1], setting=refit.setting) - weight
            difference = _reweighted(kernel, change.float())
            yield PredictedChange(asked.name, layer.name, refit.what, "", refit.amount, layer.name, difference)


def _reweighted(kernel: KernelGeometry, change: torch.Tensor) -> Difference:
    (top, bottom), (left, right) = kernel.padding

    def difference(maps: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor:
        padded = functional.pad(_of(given), [left, right, top, bottom])
        found: torch.Tensor = functional.conv2d(
            padded, change, stride=kernel.stride, dilation=kernel.dilation, groups=kernel.groups
        )
        return found

    return difference


def _kernel_size(
    layer: Layer, kernel: KernelGeometry, given: Layer, *, squares: torch.Tensor, products: torch.Tensor
) -> Iterator[PredictedChange]:
    """Refit an inner part of the kernel to what the layer returned, with a constant for each channel."""
    asked = KernelSize()
    for size in asked.sizes_of(kernel.size):
        inner = inner_weights(kernel.size, size).flatten().repeat(given.n_channels // kernel.groups)
        chosen = torch.cat([inner, torch.ones(1, dtype=torch.bool)]).nonzero().flatten()
        fitted = torch.stack(
            [solve(one[chosen][:, chosen], other[chosen]) for one, other in zip(squares, products, strict=True)]
        )
        what = asked.in_words(kernel.size, size=size)
        amount = 1 - float(inner.double().mean())
        difference = _refitted(layer, kernel, chosen=chosen, weights=fitted.float(), n_weights=len(inner))
        yield PredictedChange(asked.name, layer.name, what, "", amount, layer.name, difference)


def _patch_moments(reader: LayerReader, layer: Layer, kernel: KernelGeometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Return second moments of a kernel's patches, and a constant, and their products with the outputs, by group."""
    squares = products = torch.zeros((), dtype=torch.float64)
    height = layer.shape[-2]
    for values, before in reader.blocks(layer, given=True):
        n_rows = max(1, reader.patch_bytes // patch_bytes(layer, before.shape[1]))
        at_once = max(1, n_rows // height)
        for some, inputs in zip(torch.split(values, at_once), torch.split(before, at_once), strict=True):
            for start in range(0, height, n_rows):
                rows = range(start, min(height, start + n_rows))
                patches = _patches(inputs, kernel, rows=rows)
                outputs = torch.unflatten(some[:, :, start : rows.stop], 1, (kernel.groups, -1))
                outputs = outputs.permute(1, 0, 3, 4, 2).flatten(1, 3).double()
                if not squares.ndim:
                    squares = patches.new_zeros(len(patches), patches.shape[1], patches.shape[1])
                    products = patches.new_zeros(len(patches), patches.shape[1], outputs.shape[2])
                squares.baddbmm_(patches, patches.transpose(1, 2))
                products.baddbmm_(patches, outputs)
    return squares, products


def patch_bytes(layer: Layer, n_inputs: int) -> int:
    """Return what a convolution's patches take, of one row of its outputs, and these, in float32 and float64."""
    assert layer.kernel is not None
    height, width = layer.kernel.size
    return 12 * layer.shape[-1] * (n_inputs * height * width + layer.kernel.groups + layer.n_channels)


def _patches(inputs: torch.Tensor, kernel: KernelGeometry, *, rows: range) -> torch.Tensor:
    """Return what a kernel sees, and a constant: float64 Tensor of (groups, n_weights + 1, n_samples * n_positions)."""
    seen = kernel_patches(inputs, kernel, rows=rows).permute(0, 3, 1, 2)
    out = torch.ones(len(seen), seen.shape[1] + 1, *seen.shape[2:], dtype=torch.float64)
    out[:, :-1] = seen
    return out.flatten(2)


def _refitted(
    layer: Layer, kernel: KernelGeometry, *, chosen: torch.Tensor, weights: torch.Tensor, n_weights: int
) -> Difference:
    """Replace what a layer returned by a kernel's weights that were fitted, zero but for those chosen."""
    whole = torch.zeros(len(weights), weights.shape[2], n_weights + 1)
    whole[:, :, chosen] = weights.transpose(1, 2)
    made = _reweighted(kernel, whole[:, :, :-1].reshape(layer.n_channels, -1, *kernel.size))
    constant = whole[:, :, -1].reshape(-1, 1, 1)
    return lambda maps, given: made(maps, given) + constant - maps


def _of(value: torch.Tensor | None) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)
    return value
