"""Batch pass: one training batch on its way through the model, in however many forward passes."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ...errors import CaptureError
from ...store import Quantity
from ..forward import Firing, GradientHooks
from ..layers import AxisTracker, FirstOutput, PlannedLayer, first_output, is_kept, lists_with, names_of, plan_layer
from ..options import Keep
from ..transfer import Copier, Copy
from ._context import SnapshotContext

_EITHER = (
    "it has as many tokens as the batch has samples, and a module that takes sequences first was given them as the "
    "model was, so that the samples may come first or the tokens"
)


@dataclass(frozen=True)
class _HeldCopy:
    """A copy of some of a batch's rows, held until the run is created."""

    firing: Firing
    quantity: Quantity
    start: int
    count: int
    copy: Copy


class BatchPass:
    """One batch on its way through the model, in however many forward passes.

    Parameters
    ----------
    context : SnapshotContext or None
        What every forward pass of the epoch knows; None in the first batch, which shows what the layers return.
    keep : Keep
        What is kept of the layers.
    copier : Copier
        Takes what is kept of an output to the host's memory.
    slot, length : int
        Slot of its first sample, and how many samples it has.
    number : int
        Which batch of the epoch it is.
    tracker : AxisTracker
        Knows, in the first batch, which axis holds the channels.
    optional : bool
        Whether modules that return no batch are left out; else they are an error.
    on_error : callable, optional
        Takes what goes wrong in a hook on a gradient.

    Attributes
    ----------
    seen : dict of Firing to FirstOutput
        In the first batch: what the layers returned.
    left_out : dict of str to str
        In the first batch: why a part of an output, or an optional layer, is not recorded.
    """

    def __init__(
        self,
        context: SnapshotContext | None,
        *,
        keep: Keep,
        copier: Copier,
        slot: int,
        length: int,
        number: int,
        tracker: AxisTracker,
        optional: bool = False,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self.length = length
        self.seen: dict[Firing, FirstOutput] = {}
        self.left_out: dict[str, str] = {}
        self._context = context
        self._keep = keep
        self._copier = copier
        self._slot = slot
        self._number = number
        self._tracker = tracker
        self._optional = optional
        self._fired: dict[Firing, None] = {}  # in the first batch
        self._followed: set[Firing] = set()  # to which the samples could be
        self._square: set[Firing] = set()
        self._rows: dict[Firing, int] = {}
        self._gradients: dict[Firing, dict[int, int]] = {}
        self._open: set[tuple[Firing, int]] = set()
        self._held: list[_HeldCopy] = []
        self._hooks = GradientHooks(on_error=on_error)

    @property
    def is_complete(self) -> bool:
        """Whether every layer that has fired has returned all rows."""
        return self._whole() == {(firing.name, firing.call) for firing in self._rows}

    def on_output(self, firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        """Take an output."""
        start = self._rows.get(firing, 0)
        planned = self._planned(firing, module, output)
        if planned is None:
            return
        shape = tuple(planned.samples_first(output).shape)
        count = shape[0] if shape else 0
        if shape[1:] != planned.output or start + count > self.length:
            if firing.part and self._context is None:
                self._rows[firing] = self.length + 1  # it is no batch after all
                return
            raise CaptureError(
                f"layer {planned.spec.name!r} changed: it returned {shape} for a batch of {self.length} "
                f"samples ({start} of which it had returned before); expected (n, "
                f"{', '.join(map(str, planned.output))}), and no more rows than the batch has. Of a layer that returns "
                f"several rows for each sample, Recorder can tell whose they are; here, leave it out of `layers`, "
                f"such as with {'!' + firing.name!r}."
            )
        self._rows[firing] = start + count
        self._take(firing, planned, "activation", start, output)
        if self._keep.gradient:
            self._follow(firing, planned, start, output)

    def on_recomputed(self, name: str, output: torch.Tensor, *, part: str) -> None:
        """Follow the gradient of what is computed with a graph only now: checkpoints with ``use_reentrant=True``."""
        calls = [(firing, start) for firing, start in self._open if (firing.name, firing.part) == (name, part)]
        if not calls or not output.requires_grad:
            return
        if len(calls) > 1:
            raise CaptureError(
                f"layer {name!r} fired {len(calls)} times before a gradient came back, which comes from a "
                f"recomputation that does not say of which call; use torch.utils.checkpoint with use_reentrant=False"
            )
        ((firing, start),) = calls
        self._open.remove((firing, start))
        self._follow(firing, self._planned_again(firing), start, output)

    def finish(self) -> None:
        """Check that everything that was expected has arrived; what gradients there are not, are blank.

        Raises
        ------
        CaptureError
            Where a layer did not fire, or no gradient came back.
        """
        if self._context is None:
            self._leave_out_what_is_no_batch()
        expected = self.seen if self._context is None else self._context.layers
        batch = f"the batch of samples in slots {self._slot} to {self._slot + self.length - 1}"
        if not self._rows and self.left_out:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self.left_out.items())[:3])
            raise CaptureError(f"no layer returned a batch for {batch} ({reasons}). Choose others by `layers`.")
        if not self._rows:
            raise CaptureError(f"no layer fired for {batch}: call the model inside `with recorder.batch(indices):`")
        for firing in expected:
            if (count := self._rows.get(firing, 0)) != self.length:
                raise CaptureError(
                    f"layer {names_of(firing)[2 if firing.call else 1]!r} returned {count} rows for {batch}; "
                    f"expected {self.length}, one per index. Where the images decide how many there are, leave it out "
                    f"of `layers`, such as with {'!' + firing.name!r}"
                )
        if not self._keep.gradient:
            return
        self._hooks.check()
        if not any(self._gradients.values()):
            raise CaptureError(
                f"no gradient came back for {batch}: call backward() inside `with recorder.batch(indices):`, or leave "
                f"'gradient' out of `record`"
            )
        if self._context is not None:
            for firing in self._context.layers:
                self._leave_blank(firing, self._context)

    def deliver_held(self, context: SnapshotContext) -> None:
        """Hand over what had to wait for the run to be created."""
        held, self._held = self._held, []
        for piece in held:
            layer = context.layers[piece.firing]
            self._deliver(context, layer, piece.quantity, start=piece.start, count=piece.count, copy=piece.copy)
        if held and self._keep.gradient:
            for firing in context.layers:
                self._leave_blank(firing, context)

    def release_held(self) -> None:
        """Give back the memory of what will not be handed over."""
        held, self._held = self._held, []
        with ExitStack() as all_of_it:  # also where a device says only then that it has failed
            for piece in held:
                all_of_it.callback(piece.copy.release)

    def remove_hooks(self) -> None:
        """Remove the hooks from tensors that may outlive the batch."""
        self._hooks.remove()

    def _whole(self) -> set[tuple[str, int]]:
        """Return the calls that have returned all rows, in one of their tensors at least."""
        return {(firing.name, firing.call) for firing, count in self._rows.items() if count == self.length}

    def _leave_out_what_is_no_batch(self) -> None:
        """Forget such tensors beside one that is, and such optional layers: what they have for rows is not samples."""
        whole = self._whole()
        odd = {
            f
            for f, count in self._rows.items()
            if count != self.length and ((f.part and (f.name, f.call) in whole) or (self._optional and whole))
        }
        either = self._square if self._tracker.is_either else set()
        if named := [f.name for f in self._rows if f in either and not (f.part or self._optional)]:
            raise CaptureError(
                f"layer {named[0]!r} cannot be recorded: {_EITHER}. Show batches of another size, or leave it out of "
                f"`layers`."
            )
        odd |= either & self._rows.keys()
        for entries in lists_with(self.length, self._fired).values():
            odd |= set() if entries <= self._rows.keys() - odd else entries - self._followed
        for firing in [f for f in self._rows if f in odd]:
            none = f"its rows are not the {self.length} samples of the batch"
            self.left_out[names_of(firing)[1]] = _EITHER if firing in either else none
            del self.seen[firing], self._rows[firing]
            self._gradients.pop(firing, None)
        for piece in self._held:
            if piece.firing in odd:
                piece.copy.release()
        self._held = [piece for piece in self._held if piece.firing not in odd]

    def _planned(self, firing: Firing, module: nn.Module, output: torch.Tensor) -> PlannedLayer | None:
        """Return what is planned for an output; in the first batch, what will be."""
        if self._context is not None:
            layers = self._context.layers
            if firing in layers:
                return layers[firing]
            if firing.part and any((f.name, f.call) == (firing.name, firing.call) for f in layers):
                return None  # what was no batch in the first batch's output is left out
            if self._optional and all(f.name != firing.name for f in layers):
                return None
            raise CaptureError(
                f"layer {firing.name!r} changed: it fired {firing.call + 1} times for one batch, which it did not in "
                f"the first. What is not training belongs outside `with recorder.batch(indices):`"
            )
        self._fired[firing] = None
        if firing not in self.seen:
            known = self._tracker.samples_axis(output)
            samples_axis = known or 0
            if known is not None:
                self._followed.add(firing)
            count = output.shape[samples_axis] if output.ndim else 0
            if not is_kept(
                firing,
                output,
                module=module,
                rows=max(1, min(count, self.length)),
                samples_axis=samples_axis,
                is_constant=self._tracker.is_constant(output),
                is_either=known is None and self._is_square(output),
                optional=self._optional,
                left_out=self.left_out,
            ):
                return None
            if self._is_square(output):
                self._square.add(firing)
            self.seen[firing] = first_output(output, module=module, tracker=self._tracker, samples_axis=samples_axis)
        return self._planned_again(firing)

    def _is_square(self, output: torch.Tensor) -> bool:
        """Whether an output has as many tokens as the batch has samples."""
        return tuple(output.shape[:-1]) == (self.length, self.length)

    def _planned_again(self, firing: Firing) -> PlannedLayer:
        if self._context is not None:
            return self._context.layers[firing]
        return plan_layer(firing, self.seen[firing], keep=self._keep, name=names_of(firing)[1])

    def _follow(self, firing: Firing, planned: PlannedLayer, start: int, output: torch.Tensor) -> None:
        if not output.requires_grad:
            self._open.add((firing, start))
            return
        self._hooks.follow(output, partial(self._on_gradient, firing, planned, start), layer=planned.spec.name)

    def _on_gradient(self, firing: Firing, planned: PlannedLayer, start: int, gradient: torch.Tensor | None) -> None:
        if gradient is None:
            return
        parts = self._gradients.setdefault(firing, {})
        if start in parts:
            raise CaptureError(
                f"a second gradient came back through layer {planned.spec.name!r} in one batch; record one backward "
                f"pass, of the sum of the losses"
            )
        parts[start] = planned.samples_first(gradient).shape[0]
        self._take(firing, planned, "gradient", start, gradient)

    def _take(
        self, firing: Firing, planned: PlannedLayer, quantity: Quantity, start: int, tensor: torch.Tensor
    ) -> None:
        """Copy what is kept of a tensor, and hand it over; in the first batch, hold it."""
        context, rows = self._context, planned.samples_first(tensor)
        count = rows.shape[0]
        copy = self._copier.copy(planned.in_order(rows), planned.reduction_of(quantity), waits=context is not None)
        if context is None:
            self._held.append(_HeldCopy(firing, quantity, start, count, copy))
        else:
            self._deliver(context, planned, quantity, start=start, count=count, copy=copy)

    def _deliver(
        self,
        context: SnapshotContext,
        layer: PlannedLayer,
        quantity: Quantity,
        *,
        start: int,
        count: int,
        copy: Copy | None,
    ) -> None:
        context.put(layer, quantity, copy=copy, slot=self._slot + start, count=count, batch=self._number)

    def _leave_blank(self, firing: Firing, context: SnapshotContext) -> None:
        """Leave the rows without a gradient blank: of a frozen layer, or one that the loss does not depend on."""
        start = 0
        for begin, count in [*sorted(self._gradients.get(firing, {}).items()), (self.length, 0)]:
            if begin > start:
                layer = context.layers[firing]
                self._deliver(context, layer, "gradient", start=start, count=begin - start, copy=None)
            start = begin + count
