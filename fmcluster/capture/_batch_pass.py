"""One training batch on its way through the model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import CaptureError
from ..store import Quantity
from ._hooks import Firing, GradientHooks
from ._layout import Planned, Seen, is_kept, names_of
from ._options import spec_of
from .transfer import Copy

if TYPE_CHECKING:
    from ._live import LiveCapture


@dataclass(frozen=True)
class _Piece:
    """A copy of some of a batch's rows, kept until the run is laid out."""

    firing: Firing
    quantity: Quantity
    start: int
    count: int
    copy: Copy


class Batch:
    """One batch on its way through the model, in however many passes.

    Parameters
    ----------
    capture : LiveCapture
        Where it belongs.
    slot : int
        Of its first sample.
    length : int
        How many samples it has.
    """

    def __init__(self, capture: "LiveCapture", *, slot: int, length: int) -> None:
        self.capture = capture
        self.slot = slot
        self.length = length
        self.seen: dict[Firing, Seen] = {}
        self._rows: dict[Firing, int] = {}
        self._gradients: dict[Firing, dict[int, int]] = {}
        self._open: set[tuple[Firing, int]] = set()
        self._held: list[_Piece] = []
        self._hooks = GradientHooks()

    @property
    def is_complete(self) -> bool:
        """Whether every layer that has fired has returned all rows."""
        return self._whole() == {(firing.name, firing.call) for firing in self._rows}

    def on_output(self, firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        """Take an output."""
        start = self._rows.get(firing, 0)
        count = output.shape[0] if output.ndim else 0
        planned = self._planned(firing, module, output, count)
        if planned is None:
            return
        if tuple(output.shape[1:]) != planned.output or start + count > self.length:
            if firing.part and not self.capture.layers:
                self._rows[firing] = self.length + 1  # it is no batch after all
                return
            raise CaptureError(
                f"layer {planned.spec.name!r} changed: it returned {tuple(output.shape)} for a batch of {self.length} "
                f"samples ({start} of which it had returned before); expected (n, "
                f"{', '.join(map(str, planned.output))}), and no more rows than the batch has"
            )
        self._rows[firing] = start + count
        self._keep(firing, planned, "activation", start, output)
        if self.capture.keep.gradient:
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
        if not self.capture.layers:
            self._leave_out_what_is_no_batch()
        expected = self.capture.layers or self.seen
        told = f"the batch of samples in slots {self.slot} to {self.slot + self.length - 1}"
        if not self._rows:
            raise CaptureError(f"no layer fired for {told}: call the model inside `with recorder.batch(indices):`")
        for firing in expected:
            if (count := self._rows.get(firing, 0)) != self.length:
                raise CaptureError(
                    f"layer {names_of(firing)[2 if firing.call else 1]!r} returned {count} rows for {told}; "
                    f"expected {self.length}, one per index"
                )
        if not self.capture.keep.gradient:
            return
        self._hooks.check()
        if not any(self._gradients.values()):
            raise CaptureError(
                f"no gradient came back for {told}: call backward() inside `with recorder.batch(indices):`, or leave "
                f"'gradient' out of `record`"
            )
        for firing in self.capture.layers:
            self._leave_blank(firing)

    def deliver_held(self) -> None:
        """Hand over what had to wait for the run to be laid out."""
        held, self._held = self._held, []
        for piece in held:
            self._deliver(self.capture.layers[piece.firing], piece.quantity, piece.start, piece.count, piece.copy)
        if held and self.capture.keep.gradient:
            for firing in self.capture.layers:
                self._leave_blank(firing)

    def abandon(self) -> None:
        """Take back what was handed over."""
        for piece in self._held:
            piece.copy.release()
        self._held.clear()
        self.capture.rewind()

    def remove_hooks(self) -> None:
        """Remove the hooks from tensors that may outlive the batch."""
        self._hooks.remove()

    def _whole(self) -> set[tuple[str, int]]:
        """Return the calls that have returned all rows, in one of their tensors at least."""
        return {(firing.name, firing.call) for firing, count in self._rows.items() if count == self.length}

    def _leave_out_what_is_no_batch(self) -> None:
        """Forget such tensors beside one that is: what they have for rows is not samples."""
        whole = self._whole()
        odd = {f for f, count in self._rows.items() if count != self.length and f.part and (f.name, f.call) in whole}
        for firing in odd:
            del self.seen[firing], self._rows[firing]
            self._gradients.pop(firing, None)
        for piece in self._held:
            if piece.firing in odd:
                piece.copy.release()
        self._held = [piece for piece in self._held if piece.firing not in odd]

    def _planned(self, firing: Firing, module: nn.Module, output: torch.Tensor, count: int) -> Planned | None:
        """Return what is planned for an output; in the first batch, what will be."""
        layers = self.capture.layers
        if layers:
            if firing in layers:
                return layers[firing]
            if firing.part and any((f.name, f.call) == (firing.name, firing.call) for f in layers):
                return None  # what was no batch in the first batch's output is left out
            raise CaptureError(
                f"layer {firing.name!r} changed: it fired {firing.call + 1} times for one batch, which it did not in "
                f"the first. What is not training belongs outside `with recorder.batch(indices):`"
            )
        if firing not in self.seen:
            if not is_kept(firing, output, module=module, rows=max(1, min(count, self.length))):
                return None
            self.seen[firing] = Seen(tuple(output.shape[1:]), type(module).__name__)
        return self._planned_again(firing)

    def _planned_again(self, firing: Firing) -> Planned:
        if self.capture.layers:
            return self.capture.layers[firing]
        keep, seen = self.capture.keep, self.seen[firing]
        reduction = keep.of(names_of(firing), seen.shape)
        name = names_of(firing)[1]
        spec = spec_of(name, reduction, shape=seen.shape, module=seen.module, gradient=keep.gradient)
        return Planned(spec, seen.shape, reduction)

    def _follow(self, firing: Firing, planned: Planned, start: int, output: torch.Tensor) -> None:
        if not output.requires_grad:
            self._open.add((firing, start))
            return
        self._hooks.follow(output, partial(self._on_gradient, firing, planned, start), layer=planned.spec.name)

    def _on_gradient(self, firing: Firing, planned: Planned, start: int, gradient: torch.Tensor | None) -> None:
        if gradient is None:
            return
        parts = self._gradients.setdefault(firing, {})
        if start in parts:
            raise CaptureError(
                f"a second gradient came back through layer {planned.spec.name!r} in one batch; record one backward "
                f"pass, of the sum of the losses"
            )
        parts[start] = gradient.shape[0]
        self._keep(firing, planned, "gradient", start, gradient)

    def _keep(self, firing: Firing, planned: Planned, quantity: Quantity, start: int, tensor: torch.Tensor) -> None:
        reduction = planned.gradient if quantity == "gradient" else planned.reduction
        laid_out = bool(self.capture.layers)
        copy = self.capture.copier.copy(tensor, reduction, waits=laid_out)
        if laid_out:
            self._deliver(planned, quantity, start, tensor.shape[0], copy)
        else:
            self._held.append(_Piece(firing, quantity, start, tensor.shape[0], copy))

    def _deliver(self, planned: Planned, quantity: Quantity, start: int, count: int, copy: Copy) -> None:
        capture, slot = self.capture, self.slot + start
        taken, filling, name = capture.taken, capture.filling(), planned.spec.name
        assert taken is not None
        deliver: Callable[[Any], None] = lambda values: filling.place(  # noqa: E731
            name, quantity, slot=slot, count=count, values=values
        )
        capture.session.put_copy(taken, copy, layer=name, quantity=quantity, slot=slot, deliver=deliver)

    def _leave_blank(self, firing: Firing) -> None:
        """Leave the rows without a gradient blank: of a frozen layer, or one that the loss does not depend on."""
        capture, spec = self.capture, self.capture.layers[firing].spec
        taken, filling = capture.taken, capture.filling()
        assert taken is not None
        start = 0
        for begin, count in [*sorted(self._gradients.get(firing, {}).items()), (self.length, 0)]:
            if begin > start:
                place = partial(
                    filling.place, spec.name, "gradient", slot=self.slot + start, count=begin - start, values=None
                )
                capture.session.put(taken, place, what=f"the gradient of layer {spec.name!r}")
            start = begin + count
