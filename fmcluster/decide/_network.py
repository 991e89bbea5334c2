"""Network on a probe: what its modules are given and return, and what they cost; nothing of it is changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from ..capture import ModelInputs, isolated, kernel_geometry
from ._compat import BATCH_NORM
from ._costs import Costs, own_costs
from ._first_input import hook_first
from ._kept_outputs import KeptOutputs
from ._least_squares import kernel_patches
from ._trace import Call, Key, Trace

Hooks = Mapping[str, Callable[..., Any]]
PARAMETRIC = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMALIZATION = (BATCH_NORM, nn.LayerNorm, nn.GroupNorm)
KEPT_BYTES = 256 << 20  # of patch moments, on each half: of a ResNet-18's convolutions, all but the last three


@dataclass(frozen=True, eq=False)
class Consumer:
    """The one module that reads the channels of another.

    Attributes
    ----------
    module : str
        The module, a convolution or a linear layer.
    between : tuple of str
        Modules with parameters between the two: normalizations.
    """

    module: str
    between: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ModuleFacts:
    """What a module was given and returned, and what it costs, of one sample.

    Attributes
    ----------
    given, returned : tuple of int
        Shapes of its first input and of its output, without the axis of samples; empty where it is no tensor.
    costs : Costs
        Of all that it holds.
    calls : int
        How often it was called.
    """

    given: tuple[int, ...]
    returned: tuple[int, ...]
    costs: Costs
    calls: int


class Network:
    """A model and a probe, as interventions see them.

    Parameters
    ----------
    model : Module
        The model; it is run in evaluation mode, and left as it was.
    batches : list of ModelInputs
        The probe, on the model's device.
    loss : callable
        Of the outputs and the number of a batch, the sum of the samples' losses; for rankings that need gradients.
    """

    def __init__(
        self, model: nn.Module, batches: list[ModelInputs], *, loss: Callable[[Any, int], torch.Tensor] | None
    ) -> None:
        self.model = model
        self.modules: dict[str, nn.Module] = {name: module for name, module in model.named_modules() if name}
        self._batches = batches
        self._loss = loss
        self._patch_moments: dict[str, torch.Tensor] = {}
        self._kept = KeptOutputs(model, self.show)
        self._last_patches: tuple[str, torch.Tensor] | None = None
        self._last_moments: tuple[str, tuple[torch.Tensor, torch.Tensor]] | None = None

    @property
    def has_loss(self) -> bool:
        """Whether there are labels to compute a loss of."""
        return self._loss is not None

    def weight(self, layer: str) -> torch.Tensor:
        """Return a module's weight, detached."""
        weight = self.modules[layer].weight
        assert isinstance(weight, torch.Tensor)
        return weight.detach()

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The model's parameters and buffers, by name."""
        return dict(self.model.named_parameters()) | dict(self.model.named_buffers())

    def is_convolution(self, layer: str) -> bool:
        """Whether a module is a plain 2-D convolution that was called once: one whose kernel may be replaced."""
        return kernel_geometry(self.modules[layer]) is not None and self.facts[layer].calls == 1

    @property
    def layers(self) -> list[str]:
        """Names of convolutions and linear layers that were called, in the order in which they were."""
        return [name for name in self.facts if isinstance(self.modules[name], PARAMETRIC)]

    @cached_property
    def facts(self) -> dict[str, ModuleFacts]:
        """By module, in the order of their calls: what it was given and returned, and its costs."""
        seen: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {}
        own: dict[str, Costs] = {}

        def note(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                given, returned = (_shape_of(args[0] if args else None), _shape_of(output))
                before = seen.get(name)
                seen[name] = (before[0], before[1], before[2] + 1) if before else (given, returned, 1)
                computes, normalizes = (isinstance(module, kinds) for kinds in (PARAMETRIC, NORMALIZATION))
                costs = own_costs(module, given, returned=returned, computes=computes, keeps=computes or normalizes)
                own[name] = own.get(name, Costs()) + costs

            return hook

        order: list[str] = []
        few = self._few  # before there are hooks

        def enter(name: str) -> Callable[..., None]:
            return lambda *_: None if name in order else order.append(name)

        with (
            self._hooked({name: enter(name) for name in self.modules}, before=True),
            self._hooked({name: note(name) for name in self.modules}),
        ):
            self.show(0, rows=few)
        out = {}
        for name in (each for each in order if each in seen):  # others raised, and who called them went on
            inside = (costs for other, costs in own.items() if other == name or other.startswith(f"{name}."))
            costs = replace(Costs.total(inside), parameters=_n_parameters(self.modules[name]))
            given, returned, calls = seen[name]
            out[name] = ModuleFacts(given, returned, costs, calls)
        return out

    @cached_property
    def costs(self) -> Costs:
        """Costs of the whole network, of one sample."""
        children = (facts.costs for name, facts in self.facts.items() if "." not in name)
        return replace(Costs.total(children), parameters=_n_parameters(self.model))

    @cached_property
    def trace(self) -> Trace:
        """The functions that are called in a forward pass."""
        held: dict[int, str] = {}
        for name, module in self.modules.items():
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                held[id(tensor)] = name
        trace = Trace(held)
        few = self._few  # before functions are noted
        with (
            self._hooked({name: partial(trace.enter, name) for name in self.modules}, before=True),
            self._hooked({name: partial(trace.leave, name) for name in self.modules}),
            trace,
        ):
            self.show(0, rows=few)
        return trace

    def consumer(self, layer: str) -> Consumer | None:
        """Return the one convolution or linear layer that reads a layer's channels, each by itself; None for none.

        Where a channel is added to another's, as in a residual stream, it has others to share its number with.
        """
        calls = [call for call in self.trace.calls if call.module == layer]
        if len(calls) != 1 or calls[0].output is None:
            return None
        if isinstance(self.modules[layer], nn.Linear) and len(calls[0].shape) != 2:
            return None
        n_channels = calls[0].shape[1]
        between: list[str] = []
        key: Key = calls[0].output
        while True:
            users = self.trace.used_by(key)
            if len(users) != 1:
                return None
            (user,) = users
            if user.module and isinstance(self.modules[user.module], PARAMETRIC):
                return self._as_consumer(user, n_channels, between)
            if not user.keeps_channels(n_channels) or user.output is None:
                return None
            if user.module:
                between.append(user.module)
            key = user.output

    def _as_consumer(self, user: Call, n_channels: int, between: list[str]) -> Consumer | None:
        module = self.modules[user.module]
        width = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        groups = 1 if isinstance(module, nn.Linear) else module.groups
        if width != n_channels or groups != 1 or self.facts[user.module].calls != 1:
            return None
        return Consumer(user.module, tuple(between))

    def of(self, model: nn.Module) -> "Network":
        """Return another model on the same probe, without a loss."""
        return Network(model, self._batches, loss=None)

    def some(self, rows: Sequence[torch.Tensor]) -> "Network":
        """Return the same model on some samples of each batch, without a loss; batches of none are left out."""
        parts = [batch.rows(part) for batch, part in zip(self._batches, rows, strict=True) if len(part)]
        return Network(self.model, parts, loss=None)

    def given(self, layer: str, number: int) -> torch.Tensor:
        """Return what a module is given first of a batch."""
        kept: list[torch.Tensor] = []
        self._look_at(layer, lambda _module, args: kept.append(args[0].detach()), number)
        return kept[-1]

    def _look_at(self, layer: str, take: Callable[..., None], *numbers: int) -> None:
        """Let a hook see what a module is given of some batches, or of all."""
        for number in numbers or range(self.n_batches):
            with self._kept.instead(number, [layer]), self._hooked({layer: take}, before=True):
                self.show(number)

    def moments(self, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and covariance of the channels of a layer's input, over all positions, in float64.

        Those of the last layer that was asked for are kept.
        """
        if self._last_moments is None or self._last_moments[0] != layer:
            self._last_moments = (layer, self._sum_moments(layer))
        return self._last_moments[1]

    def _sum_moments(self, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
        total = count = squares = None

        def take(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            nonlocal total, squares, count
            rows = _as_rows(args[0]).double()
            first, second = rows.sum(0), rows.T @ rows
            total = first if total is None else total + first
            squares = second if squares is None else squares + second
            count = len(rows) if count is None else count + len(rows)

        self._look_at(layer, take)
        assert total is not None
        assert squares is not None
        assert count is not None
        mean = total / count
        return mean, squares / count - torch.outer(mean, mean)

    def patch_moments(self, layer: str) -> torch.Tensor:
        """Return the second moments of what a convolution's kernel sees, in the order of its weights, in float64.

        Interventions ask for those of all layers, one intervention after the other. The first that fit into
        `KEPT_BYTES` are kept: to drop the oldest for the newest would drop each just before it is asked for again.
        Of the others, those that were asked for last: each of a layer's fits asks for them.

        Returns
        -------
        Tensor of shape (groups, k, k), float64
            k is the number of weights of an output channel. Not to be changed.
        """
        if self._last_patches is not None and self._last_patches[0] == layer:
            return self._last_patches[1]
        self._last_patches = None
        if layer in self._patch_moments:
            return self._patch_moments[layer]
        moments = self._sum_patches(layer)
        if moments.nbytes + sum(each.nbytes for each in self._patch_moments.values()) <= KEPT_BYTES:
            self._patch_moments[layer] = moments
        else:
            self._last_patches = (layer, moments)
        return moments

    def _sum_patches(self, layer: str) -> torch.Tensor:
        """Sum up the outer products of what a convolution's kernel sees, over the whole probe."""
        geometry = kernel_geometry(self.modules[layer])
        assert geometry is not None
        total: torch.Tensor | None = None

        def take(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            nonlocal total
            for images in torch.split(args[0].detach(), 8):
                patches = kernel_patches(images, geometry).flatten(1, 2).double()
                products = patches.transpose(1, 2) @ patches
                total = products if total is None else total + products

        self._look_at(layer, take)
        assert total is not None
        return total

    def gradient_terms(self, layer: str) -> torch.Tensor:
        """Return for each sample and channel the sum over positions of gradient times value of a layer's input."""
        assert self._loss is not None
        rows, held = [], []

        def take(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            leaf = args[0].detach().requires_grad_()
            held.append(leaf)
            return (leaf.clone(), *args[1:])

        for number in range(len(self._batches)):
            held.clear()
            with self._hooked({layer: take}, before=True), isolated(self.model, gradients=True):
                loss = self._loss(self._batches[number].show(self.model), number)
                (gradient,) = torch.autograd.grad(loss, held[0])
            terms = gradient * held[0].detach()
            rows.append(terms.flatten(2).sum(2) if terms.ndim > 2 else terms)
        return torch.cat(rows)

    def show(self, number: int, *, rows: slice | None = None) -> Any:
        """Return what the model makes of a batch, or of some of its samples."""
        inputs = self._batches[number] if rows is None else self._batches[number].rows(rows)
        with isolated(self.model):
            return inputs.show(self.model)

    def show_all(self) -> list[Any]:
        """Show the model the whole probe; return what it makes of each batch."""
        return [self.show(number) for number in range(len(self._batches))]

    def batch(self, number: int) -> ModelInputs:
        """Return a batch of the probe."""
        return self._batches[number]

    @property
    def example(self) -> ModelInputs:
        """The first two samples of the probe, or, of a model that takes batches of one size only, the first batch."""
        return self._batches[0].rows(self._few)

    @cached_property
    def takes_fewer(self) -> bool:
        """Whether the model can be shown some of a batch."""
        try:
            self.show(0, rows=slice(0, 2))
        except Exception:  # it raises what it likes
            return False
        return True

    @property
    def _few(self) -> slice:
        return slice(0, 2 if self.takes_fewer else None)

    @property
    def n_batches(self) -> int:
        """Number of batches of the probe."""
        return len(self._batches)

    def changed_outputs(
        self, number: int, *, weights: Mapping[str, torch.Tensor], inputs: Hooks, outputs: Hooks
    ) -> Any:
        """Return what the model would make of a batch with other weights, inputs and outputs of modules."""

        def on_input(change: Callable[..., Any]) -> Callable[..., Any]:
            return lambda _module, args: (change(args[0]), *args[1:])

        def on_output(change: Callable[..., Any]) -> Callable[..., Any]:
            return lambda _module, args, output: change(args[0], output)

        batch = self._batches[number]
        with (
            isolated(self.model),
            self._kept.instead(number, [*weights, *inputs, *outputs]),
            self._hooked({name: on_input(change) for name, change in inputs.items()}, before=True),
            self._hooked({name: on_output(change) for name, change in outputs.items()}),
        ):
            if not weights:
                return batch.show(self.model)
            return torch.func.functional_call(self.model, dict(weights), batch.args, dict(batch.kwargs))

    @contextmanager
    def _hooked(self, hooks: Hooks, *, before: bool = False) -> Iterator[None]:
        with ExitStack() as stack:
            for name, hook in hooks.items():
                stack.callback(hook_first(self.modules[name], hook, before=before))
            yield


def _shape_of(value: Any) -> tuple[int, ...]:
    return tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else ()


def _n_parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _as_rows(values: torch.Tensor) -> torch.Tensor:
    """Return channels as columns, and samples and positions as rows."""
    return values.detach().movedim(1, -1).reshape(-1, values.shape[1])
