"""Ablation: a network is changed, shown the probe, and put back; what that costs, beside what it would save."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..analysis import Damage
from ..capture import ToInputs, isolated, plain_model, same_random_numbers
from ._compare_with_chance import compare_with_chance
from ._cross_fit import CrossFit
from ._network import Network
from ._outcomes import Loss, mean_and_error, sample_losses
from ._predict_damage import PredictedDamage
from ._probe_batches import Shown, probe_batches
from .interventions import Change, Depth, Groups, Intervention, KernelSize, Resolution, Separable, Skipped, Width

Progress = Callable[[str, int, int], None]
DEFAULT: tuple[Intervention, ...] = (Depth(), Width(), KernelSize(), Separable(), Groups(), Resolution())


def ablate(
    model: nn.Module,
    probe: Dataset[Any] | DataLoader[Any],
    *,
    loss: Loss | None = None,
    interventions: Sequence[Intervention] | None = None,
    layers: Sequence[str] | None = None,
    batch_size: int = 100,
    to_inputs: ToInputs | None = None,
    predicted: PredictedDamage | None = None,
    n_promising: int = 10,
    n_null: int = 2,
    random_state: int = 0,
    progress: Progress | None = None,
) -> Damage:
    """Measure how removing or simplifying parts of a network changes its outputs, and what that saves.

    The network is changed, shown the probe in evaluation mode, and left as it was, bit for bit: other weights are used
    for one call, and hooks are removed. Beside each change stands its null, a change of the same size at random.

    What is computed before a change is the same each time: up to 256 MiB of it are kept of the whole probe, and as much
    of each of two halves.

    Weights that are refitted (`KernelSize`, `Separable`, `Groups`, `Width` with its fold) are cross-fitted: fitted on a
    random half of the probe and measured on the other, and the other way round, so that each image's loss comes from
    weights that never saw it. ``frame["fitted_on"]`` says on how many images. What `Plan.apply` builds is fitted on all
    of them, and may do less damage to new images than is measured, the more so the fewer images there are.

    Parameters
    ----------
    model : Module
        The model, on its device.
    probe : Dataset or DataLoader
        What it is shown, with evaluation transforms; the same kinds as `Recorder` takes. All of it is held in memory.
    loss : callable, optional
        Called with the model's outputs and the labels of a batch (a module of torch with ``reduction="mean"``), or of
        one sample at a time (any other function); by default the cross-entropy of the scores.
    interventions : sequence of Intervention, optional
        What to ask; by default `Depth`, `Width`, `KernelSize`, `Separable`, `Groups` and `Resolution`. `Rewind` and
        `Direction` need to be told of what.
    layers : sequence of str, optional
        Names of modules; by default all.
    batch_size : int
        Of the forward passes, where `probe` is a data set.
    to_inputs : callable, optional
        Makes of a batch of the probe what the model is called with, ``(args, kwargs)``.
    predicted : PredictedDamage, optional
        What `predict_damage` found: of each intervention that it knows, layers are passed over that have none of its
        most promising changes.
    n_promising : int
        How many changes those are, of each intervention.
    n_null : int
        How many random changes of the same size each change is compared with; 0: none.
    random_state : int
        Seed of these, and of which images are in which half: as many of each class in both, where there are labels.
    progress : callable, optional
        Called before each change with what it is, how many modules have been gone through, those of each intervention
        anew, and how many there are to go through.

    Returns
    -------
    Damage
        ``.frame`` has a row per change; ``print(damage)`` shows those that do least.

    Raises
    ------
    KeyError
        For a layer that the model does not have.
    ValueError
        For an empty probe, fewer than two samples (four, where weights are fitted), or a model that is random in
        evaluation mode.
    TypeError
        For outputs that hold no scores, or a loss that is not callable.

    References
    ----------
    R. Meyes, M. Lu, C. Waubert de Puiseau, T. Meisen, Ablation studies in artificial neural networks, 2019,
    arXiv:1901.08644. V. Chernozhukov, D. Chetverikov, M. Demirer, E. Duflo, C. Hansen, W. Newey, J. Robins,
    Double/debiased machine learning for treatment and structural parameters, The Econometrics Journal 21, 2018
    (cross-fitting).
    """
    if loss is not None and not callable(loss):
        raise TypeError(f"loss is a {type(loss).__name__}; expected a function of outputs and labels")
    model = plain_model(model)
    _check_layers(model, layers)
    batches, targets = probe_batches(model, probe, batch_size=batch_size, to_inputs=to_inputs)

    def batch_loss(output: Any, number: int) -> torch.Tensor:
        return sample_losses(output, targets[number], loss=loss).sum()

    # a model that draws random numbers draws the same in each forward pass, whatever was drawn before
    with isolated(model, gradients=torch.is_grad_enabled(), reads=(loss,)), same_random_numbers(model):
        has_labels = all(each is not None for each in targets)
        network = Network(model, batches, loss=batch_loss if has_labels else None)
        asked = [name for name in network.facts if layers is None or name in layers]
        questions = DEFAULT if interventions is None else interventions
        tell = _announcer(progress, layers=asked, n_questions=len(questions))
        tell("the network as it is", 0, "")
        judge = _Judge(network, targets, loss=loss, n_null=n_null, random_state=random_state)
        rows: list[dict[str, Any]] = []
        skipped: list[Skipped] = []
        for number, intervention in enumerate(questions):
            tell(intervention.name, number, "")
            found: list[tuple[Change, float]] = []
            chosen = layers
            if predicted is not None:
                chosen, passed_over = _promising(
                    intervention,
                    network,
                    predicted=predicted,
                    count=n_promising,
                    layers=[*network.facts] if layers is None else layers,
                )
                skipped += passed_over
            for change in _all_changes(intervention, network, chosen, found):
                if isinstance(change, Skipped):
                    skipped.append(change)
                    continue
                tell(f"{change.intervention}: {change.layer}, {change.what}", number, change.layer)
                row = judge.judge(change)
                found.append((change, row["kl"]))
                rows.append(row)
        costs = asdict(network.costs)
        integers = dict.fromkeys(("epoch", "step", "setting", "fitted_on", "unknowns"), "Int64")
        frame = pd.DataFrame(rows, columns=Damage.COLUMNS).astype(integers)
        below = [row["by_sample"] for row in rows]
        damage = Damage(
            frame=frame,
            skipped=pd.DataFrame([asdict(each) for each in skipped], columns=["intervention", "layer", "reason"]),
            loss=judge.baseline("loss"),
            accuracy=judge.baseline("right"),
            n_samples=sum(map(len, batches)),
            costs=costs,
            majority=_majority(targets),
            shown=Shown(probe, batch_size, to_inputs),
            choices=compare_with_chance(frame, below),
        )
    return damage if predicted is None else replace(damage, agreement=predicted.agreement(damage))


def _announcer(progress: Progress | None, *, layers: list[str], n_questions: int) -> Callable[[str, int, str], None]:
    """Return what tells of a step: what it is, the number of its intervention, and its layer, or nothing at its start.

    Several layers together are changed when each has been by itself.
    """
    before = {layer: number for number, layer in enumerate(layers)}

    def tell(what: str, question: int, layer: str) -> None:
        if progress is not None:
            done = before.get(layer, len(layers) - 1) if layer else 0
            progress(what, question * len(layers) + done, n_questions * len(layers))

    return tell


def _majority(targets: Sequence[Any]) -> float:
    """Return the share of the samples that have the most frequent class; NaN where targets are not one class each."""
    if any(not isinstance(each, torch.Tensor) or each.ndim != 1 or each.is_floating_point() for each in targets):
        return float("nan")
    labels = torch.cat([each.cpu() for each in targets])
    _, counts = torch.unique(labels, return_counts=True)
    return float(counts.max()) / len(labels)


def _all_changes(
    intervention: Intervention, network: Network, layers: Sequence[str] | None, found: list[tuple[Change, float]]
) -> Iterator[Change | Skipped]:
    """Yield an intervention's changes, and those that follow from what they did."""
    yield from intervention.changes(network, layers)
    together: Callable[[Sequence[tuple[Change, float]]], Iterable[Change]] | None
    together = getattr(intervention, "together", None)
    if together is not None:
        yield from together(list(found))


def _promising(
    intervention: Intervention, network: Network, *, predicted: PredictedDamage, count: int, layers: Sequence[str]
) -> tuple[list[str], list[Skipped]]:
    """Return the layers of an intervention's most promising changes, and of which nothing is predicted; and others.

    Layers that the intervention cannot change (their width is tied to others') do not count.
    """
    of = predicted.frame[(predicted.frame["intervention"] == intervention.name) & predicted.frame["layer"].isin(layers)]
    possible: dict[str, bool] = {}
    found = 0
    for name in of.sort_values("predicted", kind="stable")["layer"]:
        if found == count:
            break
        if name not in possible:
            possible[name] = _can_change(intervention, network, name)
        found += possible[name]
    out = set(of["layer"]) - set(possible)
    reason = f"none of its changes is among the {count} that are predicted to do least, of those that can be made"
    skipped = [Skipped(intervention.name, name, reason) for name in layers if name in out]
    return [name for name in layers if name not in out], skipped


def _can_change(intervention: Intervention, network: Network, layer: str) -> bool:
    return any(isinstance(each, Change) for each in intervention.changes(network, [layer]))


class _Judge:
    """Measures changes against the network as it is."""

    def __init__(
        self, network: Network, targets: list[Any], *, loss: Loss | None, n_null: int, random_state: int
    ) -> None:
        self._network = network
        self._targets = targets
        self._loss = loss
        self._n_null = n_null
        self._random_state = random_state
        self._generator = torch.Generator().manual_seed(random_state)
        self._whole = CrossFit.whole(network, targets, loss=loss)
        self._before = self._whole.before
        lost = self._before.log_p.isnan().flatten(1).any(1).nonzero().flatten().tolist()
        if lost:
            raise ValueError(
                f"the model gives NaN for {len(lost)} of {len(self._before.log_p)} images (the first is sample "
                f"{lost[0]}): what a change of it does cannot be measured. Where it diverged, take weights from "
                f"before; else leave these images out of the probe"
            )
        if not torch.equal(self._whole.outcomes([Change("", "", 0.0, "")], _answers).log_p, self._before.log_p):
            raise ValueError(
                "the model gives other outputs when it is shown the same again, in evaluation mode: no change of it "
                "can be distinguished from chance. Does it drop, mask or draw at random without asking self.training?"
            )

    def baseline(self, what: str) -> float:
        """Return the mean loss or accuracy of the network as it is; NaN without labels."""
        values = getattr(self._before, what)
        return float("nan") if values is None else float(values.mean())

    @cached_property
    def _halves(self) -> CrossFit:
        if not self._network.takes_fewer:
            raise ValueError(
                f"the model takes batches of {len(self._network.batch(0))} samples alone, and what is refitted is "
                f"measured on halves of the probe: pass a model that takes batches of any size, or `interventions` "
                f"that refit nothing"
            )
        return CrossFit.halves(self._network, self._targets, loss=self._loss, random_state=self._random_state)

    def judge(self, change: Change) -> dict[str, Any]:
        """Return a row of `Damage.frame`."""
        on = self._whole if change.fit is None else self._halves
        changes = on.fit(change.fit or (lambda _: change))
        before, after = on.before, on.outcomes(changes, _answers)
        divergence = before.divergence(after)
        whole = self._network.costs
        row: dict[str, Any] = {
            "intervention": change.intervention,
            "layer": change.layer,
            "what": change.what,
            "how": change.how,
            "epoch": change.epoch,
            "step": change.step,
            "amount": change.amount,
            "channels": change.channels,
            "setting": change.setting,
            "consumer": change.consumer,
            "fitted_on": None if change.fit is None else on.n_fitted,
            "unknowns": None if change.fit is None else change.unknowns,
            **_mean_of("loss", _difference(after.loss, before.loss)),
            **_mean_of("accuracy", _difference(after.right, before.right)),
            **_mean_of("kl", divergence),
            "by_sample": None,
            "forward_share": _share(change.saves.forward, whole.forward),
            "backward_share": _share(change.saves.backward, whole.backward),
            "parameters_share": _share(change.saves.parameters, whole.parameters),
            "kept_share": _share(change.saves.kept, whole.kept),
        }
        nulls = [on.outcomes(self._nulls(changes), _answers) for _ in range(self._n_null)]
        if nulls:
            of_null = torch.stack([before.divergence(each) for each in nulls]).mean(0)
            row |= _mean_of("null_kl", of_null) | _mean_of("below_null", of_null - divergence)
            row["by_sample"] = (of_null - divergence).cpu().numpy()
            if before.loss is not None:
                losses = torch.stack([each.loss for each in nulls if each.loss is not None]).mean(0)
                row |= _mean_of("null_loss", losses - before.loss)
        return row

    def _nulls(self, changes: Sequence[Change]) -> list[Change]:
        """Draw one change at random, and give it the size of each of several."""
        start = self._generator.get_state()
        drawn = []
        for change in changes:
            self._generator.set_state(start)
            drawn.append(self._null(change))
        return drawn

    def _null(self, change: Change) -> Change:
        """Draw a change of the same size."""
        if change.null is not None:
            return change.null(self._generator)
        now = self._network.tensors
        return replace(
            change,
            weights={name: self._noisy(now[name].detach(), other) for name, other in change.weights.items()},
            inputs={name: self._noisy_input(hook) for name, hook in change.inputs.items()},
            outputs={name: self._noisy_output(hook) for name, hook in change.outputs.items()},
        )

    def _noisy_input(self, hook: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda given: self._noisy(given, hook(given), by_sample=True)

    def _noisy_output(self, hook: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda given, output: self._noisy(output, hook(given, output), by_sample=True)

    def _noisy(self, values: torch.Tensor, other: torch.Tensor, *, by_sample: bool = False) -> torch.Tensor:
        """Return values with noise of the norm of a change, of all together or of each sample."""
        change = (other - values).flatten(1) if by_sample else (other - values).reshape(1, -1)
        noise = torch.randn(change.shape, generator=self._generator).to(change.device, change.dtype)
        noise *= change.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True).clamp_min(1e-30)
        return values + noise.reshape(values.shape)


def _answers(network: Network, change: Change) -> list[Any]:
    """Return what the network would make of each batch."""
    weights, inputs, outputs = change.weights, change.inputs, change.outputs
    return [
        network.changed_outputs(number, weights=weights, inputs=inputs, outputs=outputs)
        for number in range(network.n_batches)
    ]


def _check_layers(model: nn.Module, layers: Sequence[str] | None) -> None:
    if isinstance(layers, str):
        raise TypeError(f"layers is the string {layers!r}; expected a sequence of names: [{layers!r}]")
    known = {name for name, _ in model.named_modules()}
    if unknown := [name for name in layers or () if name not in known]:
        raise KeyError(f"the model has no module {unknown[0]!r}; it has {', '.join(sorted(known - {''})[:20])}")


def _difference(after: torch.Tensor | None, before: torch.Tensor | None) -> torch.Tensor | None:
    return None if after is None or before is None else after - before


def _mean_of(name: str, values: torch.Tensor | None) -> dict[str, float]:
    """Return a mean over the samples and its standard error."""
    if values is None:
        return {name: np.nan, f"{name}_se": np.nan}
    return dict(zip((name, f"{name}_se"), mean_and_error(values), strict=True))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
