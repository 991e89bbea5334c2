"""Probe pass: one batch of the probe on its way through the model, and back from its loss."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ...errors import CaptureError
from ...store import Quantity
from ..forward import Firing, GradientHooks, device_of, hooked, same_random_numbers
from ..inputs import ProbeBatch
from ..layers import PlannedLayer
from ..transfer import Copy
from ._context import SnapshotContext

Loss = Callable[[Any, Any], torch.Tensor]


class ProbePass:
    """One batch of the probe on its way through the model.

    Parameters
    ----------
    model : Module
        The model.
    modules : mapping of str to Module
        Those of its modules that are recorded.
    context : SnapshotContext
        What every forward pass of the snapshot knows.
    batch : ProbeBatch
        What the model is shown.
    number : int
        Which batch of the probe it is.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        *,
        context: SnapshotContext,
        batch: ProbeBatch,
        number: int,
    ) -> None:
        self._model = model
        self._modules = modules
        self._context = context
        self._batch = batch
        self._number = number
        self._device = device_of(model)
        self._seen: set[tuple[Firing, Quantity]] = set()
        self._hooks = GradientHooks()
        self._edges: dict[Firing, GradientEdge] = {}
        self._several = {(firing.name, firing.call) for firing in context.layers if firing.part}

    def run(self, loss: Loss | None) -> None:
        """Show the batch to the model; with a loss, go back from it to the images.

        Raises
        ------
        CaptureError
            Where a layer changed, or the loss is not one number that depends on the outputs.
        """
        inputs, layers = self._batch.inputs.to(self._device), self._context.layers
        leaf = inputs.first
        if loss is not None:
            inputs, leaf = inputs.with_leaf()
        with hooked(self._modules, partial(self._on_output, follows_gradient=loss is not None)):
            try:
                with same_random_numbers(self._model):
                    outputs = inputs.show(self._model)
                if loss is not None:
                    self._go_back(loss, outputs, leaf)
                    self._hooks.check()
            finally:
                self._hooks.remove()
        if missing := [firing for firing in layers if (firing, "activation") not in self._seen]:
            name = layers[missing[0]].spec.name
            raise CaptureError(
                f"layer {name!r} did not fire for every batch of epoch {self._context.snapshot.epoch}. Where that "
                f"depends on the images, leave it out, such as with layers=[..., {'!' + missing[0].name!r}]"
            )
        for firing, planned in layers.items() if loss is not None else ():
            if (firing, "gradient") not in self._seen:  # the loss does not depend on it
                self._put(planned, "gradient", None)

    def _go_back(self, loss: Loss, outputs: Any, leaf: torch.Tensor) -> None:
        targets = self._batch.targets
        value = loss(outputs, targets.to(self._device) if isinstance(targets, torch.Tensor) else targets)
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r}"
            raise CaptureError(f"loss returned {got}; expected a tensor of one number that depends on the outputs")
        # with respect to images and outputs alone: the parameters' .grad stays what it is
        if leaf.requires_grad:
            torch.autograd.grad(value, [leaf], allow_unused=True, retain_graph=True)
        # not on the way to an image: of words, or behind a part of the model without gradients
        missed = [edge for firing, edge in self._edges.items() if (firing, "gradient") not in self._seen]
        if missed:
            torch.autograd.grad(value, missed, allow_unused=True)

    def _on_output(self, firing: Firing, output: torch.Tensor, *, module: nn.Module, follows_gradient: bool) -> None:
        planned = self._context.layers.get(firing)
        if planned is None and firing.part and (firing.name, firing.call) in self._several:
            return  # what was no batch in the first sample's output is left out
        expected = None if planned is None else planned.output_shape(len(self._batch))
        shape = tuple((output if planned is None else planned.samples_first(output)).shape)
        if planned is None or shape != expected:
            raise CaptureError(
                f"layer {firing.name + firing.part!r} changed in epoch {self._context.snapshot.epoch}: "
                f"call {firing.call + 1} returned {shape}, expected "
                f"{expected or 'no such call'}, as for the first batch{_why(firing.name, planned, shape, expected)}"
            )
        self._copy(firing, planned, "activation", output)
        if follows_gradient and output.requires_grad:
            self._edges[firing] = get_gradient_edge(output)
            self._hooks.follow(output, partial(self._copy, firing, planned, "gradient"), layer=planned.spec.name)

    def _copy(self, firing: Firing, planned: PlannedLayer, quantity: Quantity, tensor: torch.Tensor | None) -> None:
        if tensor is None or (firing, quantity) in self._seen:  # nothing came back through it, or the same once more
            return
        rows = planned.in_order(planned.samples_first(tensor))
        copy = self._context.copier.copy(rows, planned.reduction_of(quantity))
        self._seen.add((firing, quantity))
        self._put(planned, quantity, copy)

    def _put(self, planned: PlannedLayer, quantity: Quantity, copy: Copy | None) -> None:
        slot, count = self._batch.offset, len(self._batch)
        self._context.put(planned, quantity, copy=copy, slot=slot, count=count, batch=self._number)


def _why(module: str, planned: PlannedLayer | None, shape: tuple[int, ...], expected: tuple[int, ...] | None) -> str:
    """Say why an output may have another shape than in the first batch, and what to do."""
    if planned is None or expected is None or len(shape) != len(expected):
        return ""
    leave_out = f"leave it out, such as with layers=[..., {'!' + module!r}]"
    if shape[1:] == expected[1:]:
        n = planned.spec.rows_folded
        several = f" with {n} rows for each sample" if n > 1 else ""
        return f"{several}. Where the images decide how many rows there are, {leave_out}"
    if shape[:1] == expected[:1]:
        sizes = "resize them to one size, show them all in one batch"
        return f". Where that follows from the images' sizes, {sizes}, or {leave_out}"
    return ""
