"""Showing a model the probe."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..errors import CaptureError
from ..store import Quantity, open_run
from ._datasets import classes
from ._hooks import Firing, GradientHooks, hooked
from ._identity import Identity
from ._isolation import isolated
from ._layout import Planned, discover
from ._models import device_of
from ._options import Keep
from ._probe_set import Probe, ProbeBatch
from .transfer import Copier
from .writing import Session, Taken, stored_digests

Loss = Callable[[Any, Any], torch.Tensor]


class ProbeCapture:
    """Snapshots of what a model makes of a probe.

    Parameters
    ----------
    model : Module
        The model.
    modules : mapping of str to Module
        Those of its modules that are recorded.
    probe : Probe
        What it is shown.
    keep : Keep
        What is kept of the layers.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module], *, probe: Probe, keep: Keep) -> None:
        self.probe = probe
        self._model = model
        self._modules = modules
        self._keep = keep
        self.layers: dict[Firing, Planned] = {}

    def discover(self) -> None:
        """Show the model one sample, to see what the layers return."""
        self._device = device_of(self._model)
        with isolated(self._model):
            sample = self.probe.first().to(self._device)
            self.layers = discover(self._model, self._modules, sample=sample, keep=self._keep)

    def start(self, session: Session, copier: Copier) -> None:
        """Lay out the run, or check that it can be gone on with."""
        self._session = session
        self._copier = copier
        session.lay_out(
            [layer.spec for layer in self.layers.values()],
            kind="probe",
            n_samples=self.probe.n_samples,
            shard_samples=self.probe.batch_size,
            classes=classes(self.probe.dataset),
        )
        self._identity = Identity(self.probe, stored_digests(open_run(session.path)))

    def after_failure(self) -> None:
        """Bring the samples' table along again, if it was lost."""
        self._identity.stored = self._session.writer.n_snapshots > 0

    def take(self, taken: Taken, *, loss: Loss | None, check: Callable[[], None]) -> None:
        """Show the model all of the probe; `check` is called after each batch."""
        brings_samples = not self._identity.stored
        batches = []
        inference = loss is None and torch.is_inference_mode_enabled()  # which allows of no gradients
        with torch.inference_mode(inference), isolated(self._model, gradients=loss is not None):
            for batch in self.probe:
                self._check_whole(batch)
                self._identity.check(batch)
                if brings_samples:
                    self._put_pictures(taken, batch)
                _Pass(self, taken=taken, batch=batch).run(loss)
                check()
                batches.append(batch.without_images())
        self._identity.remember(batches)
        self._session.check_overflow(taken)
        if brings_samples:
            self._identity.stored = True
            for name, values in self._identity.tables(batches).items():
                dimensions = ("item", "byte") if name == "digest" else ("item",)
                work = partial(self._session.writer.add_static, f"samples/{name}", values, dimensions=dimensions)
                self._session.put_alone(taken, work, what=f"samples/{name}")
        self._session.commit(taken, np.arange(self.probe.n_samples))

    def _check_whole(self, batch: ProbeBatch) -> None:
        due = min(self.probe.batch_size, self.probe.n_samples - batch.offset)
        if len(batch) != due:
            raise CaptureError(
                f"the probe gave {len(batch)} samples from sample {batch.offset} on, where {due} are due; pass a data "
                f"set whose items are all there"
            )

    def _put_pictures(self, taken: Taken, batch: ProbeBatch) -> None:
        pictures = self.probe.display(batch.images)
        if pictures is not None:
            work = partial(
                self._session.writer.add_static,
                "inputs/display",
                pictures,
                dimensions=("item", "row", "column", "rgb"),
                offset=batch.offset,
                length=self.probe.n_samples,
            )
            self._session.put_alone(taken, work, what="inputs/display")


class _Pass:
    """One batch of the probe on its way through the model."""

    def __init__(self, capture: ProbeCapture, *, taken: Taken, batch: ProbeBatch) -> None:
        self._capture = capture
        self._taken = taken
        self._batch = batch
        self._seen: set[tuple[Firing, Quantity]] = set()
        self._hooks = GradientHooks()
        self._edges: dict[Firing, GradientEdge] = {}
        layers = capture.layers
        self._several = {(firing.name, firing.call) for firing in layers if firing.part}

    def run(self, loss: Loss | None) -> None:
        capture, images = self._capture, self._batch.images.to(self._capture._device)
        leaf = images
        if loss is not None and images.is_floating_point():
            leaf = images.detach().requires_grad_()
            images = leaf.clone()  # the model may change it in place, which a leaf does not allow
        with hooked(capture._modules, partial(self._on_output, follows_gradient=loss is not None)):
            try:
                outputs = capture._model(images)
                if loss is not None:
                    self._go_back(loss, outputs, leaf)
                    self._hooks.check()
            finally:
                self._hooks.remove()
        if missing := [firing for firing in capture.layers if (firing, "activation") not in self._seen]:
            name = capture.layers[missing[0]].spec.name
            raise CaptureError(f"layer {name!r} did not fire for every batch of epoch {self._taken.epoch}")
        for firing, planned in capture.layers.items() if loss is not None else ():
            if (firing, "gradient") not in self._seen:  # the loss does not depend on it
                work = partial(self._write, planned, "gradient", None)
                capture._session.put(self._taken, work, what=f"the gradient of layer {planned.spec.name!r}")

    def _go_back(self, loss: Loss, outputs: Any, leaf: torch.Tensor) -> None:
        targets = self._batch.targets
        value = loss(outputs, targets.to(self._capture._device) if isinstance(targets, torch.Tensor) else targets)
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
            told = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r}"
            raise CaptureError(f"loss returned {told}; expected a tensor of one number that depends on the outputs")
        # with respect to images and outputs alone: the parameters' .grad stays what it is
        if leaf.requires_grad:
            torch.autograd.grad(value, [leaf], allow_unused=True, retain_graph=True)
        # not on the way to an image: of words, or behind a part of the model without gradients
        missed = [edge for firing, edge in self._edges.items() if (firing, "gradient") not in self._seen]
        if missed:
            torch.autograd.grad(value, missed, allow_unused=True)

    def _on_output(self, firing: Firing, output: torch.Tensor, *, module: nn.Module, follows_gradient: bool) -> None:
        planned = self._capture.layers.get(firing)
        if planned is None and firing.part and (firing.name, firing.call) in self._several:
            return  # what was no batch in the first sample's output is left out
        expected = None if planned is None else (len(self._batch), *planned.output)
        if planned is None or tuple(output.shape) != expected:
            raise CaptureError(
                f"layer {firing.name + firing.part!r} changed in epoch {self._taken.epoch}: call {firing.call + 1} "
                f"returned {tuple(output.shape)}, expected {expected or 'no such call'}, as for the first sample"
            )
        self._copy(firing, planned, "activation", output)
        if follows_gradient and output.requires_grad:
            self._edges[firing] = get_gradient_edge(output)
            self._hooks.follow(output, partial(self._copy, firing, planned, "gradient"), layer=planned.spec.name)

    def _copy(self, firing: Firing, planned: Planned, quantity: Quantity, tensor: torch.Tensor | None) -> None:
        if tensor is None or (firing, quantity) in self._seen:  # nothing came back through it, or the same once more
            return
        capture = self._capture
        copy = capture._copier.copy(tensor, planned.gradient if quantity == "gradient" else planned.reduction)
        self._seen.add((firing, quantity))
        deliver = partial(self._write, planned, quantity)
        capture._session.put_copy(
            self._taken, copy, layer=planned.spec.name, quantity=quantity, slot=self._batch.offset, deliver=deliver
        )

    def _write(self, planned: Planned, quantity: Quantity, values: Any) -> None:
        self._capture._session.writer.write(
            planned.spec.name, offset=self._batch.offset, values=values, quantity=quantity
        )
