"""Plan: what to do to a network, on what evidence, and at what price; and the networks that it makes."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..analysis import Summarized
from ..capture import ToInputs, plain_model
from ._action import Action, MeasuredDamage, contains
from ._choose import PARTS, Goal
from ._costs import Costs
from ._network import Network
from ._plan_file import (
    FORMAT,
    action_to_data,
    actions_from_data,
    costs_from_data,
    count_from_data,
    damage_from_data,
    number_from_data,
    read_yaml,
    words_from_data,
    write_yaml,
)
from ._plan_table import plan_table
from ._price import Seconds, measure_seconds
from ._probe_batches import Shown, probe_batches
from .building import build, check_modules, freeze

_MARK = "_fmcluster_plan"


@dataclass(frozen=True, repr=False)
class Plan(Summarized):
    """What to do to a network.

    Attributes
    ----------
    actions : tuple of Action
        Each with its evidence and what it saves alone.
    of : {"compute", "forward", "backward", "memory", "parameters"}
        What the budget is a share of.
    budget : float, optional
        Which share of it may be left.
    tolerance : float, optional
        How much damage all actions together may do, in nats.
    before, after : Costs
        Of one sample and one step: multiply-adds, parameters, bytes kept for the backward pass.
    built : bool
        Whether `after` was counted of the network as it was built; otherwise what single actions save was added up.
    together : MeasuredDamage, optional
        Of the network as it was built, on each half of the probe with weights fitted on the other half; None where it
        was not built, or is frozen only.
    n_samples : int
        Samples that the damage was measured on.
    seconds : (Seconds, Seconds), optional
        A step before and after, on the machine where the plan was made.
    batch : int
        Of how many samples this step was.
    caveat : str
        What has to be said of all its evidence, as where the network does not know its task; empty where nothing has.
    shown : Shown, optional
        The probe that the plan was made with, or the damage was measured on; it is no part of a file.
    """

    actions: tuple[Action, ...]
    of: str
    budget: float | None
    tolerance: float | None
    before: Costs
    after: Costs
    built: bool = False
    together: MeasuredDamage | None = None
    n_samples: int = 0
    seconds: tuple[Seconds, Seconds] | None = None
    batch: int = 0
    caveat: str = ""
    shown: Shown | None = field(default=None, repr=False, compare=False)

    @property
    def summed(self) -> float:
        """What the actions that change the network do one by one, added up, in nats."""
        return sum(action.damage.mean for action in self.actions if action.kind != "freeze")

    def apply(
        self,
        model: nn.Module,
        *,
        probe: Dataset[Any] | DataLoader[Any] | None = None,
        epoch: int = 0,
        batch_size: int = 100,
        to_inputs: ToInputs | None = None,
    ) -> nn.Module:
        """Return a changed copy of a model; its weights come from the old ones, refitted on all of the probe.

        Parameters
        ----------
        model : Module
            It is not changed.
        probe : Dataset or DataLoader, optional
            What new weights are fitted on; by default what the plan was made with, or its damage was measured on. A
            plan from a file needs it, but for freezing.
        epoch : int
            At which epoch of the fine-tuning this model is; `freeze` freezes what may be frozen later only.
        batch_size, to_inputs
            Of the probe, as in `ablate`.

        Returns
        -------
        Module
            On the same device. Frozen layers have no gradients, and their normalizations stay in evaluation mode.

        Raises
        ------
        KeyError
            For a module that the model does not have.
        ValueError, TypeError
            For what cannot be built, by name; for a model that this plan was applied to already, or that is wrapped.
        ImportError
            Where channels are removed, without torch-pruning (the extra ``plan``).
        """
        _check_model(model)
        if getattr(model, _MARK, None) == self._digest():
            raise ValueError("this plan was applied to the model already; apply it to the model that it was made for")
        check_modules(model, self.actions)  # also of what is frozen later only
        shown = self.shown if probe is None else Shown(probe, batch_size, to_inputs)
        actions = [each for each in self.actions if each.kind != "freeze" or (each.epoch or 0) <= epoch]
        changed = build(model, actions, network=None if shown is None else network_of(model, shown))
        setattr(changed, _MARK, self._digest())
        return changed

    def freeze(self, model: nn.Module, *, epoch: int) -> list[str]:
        """Freeze, in place, what may be frozen from an epoch of the fine-tuning on; return the names of the modules.

        Parameters
        ----------
        model : Module
            What `apply` returned, in training.
        epoch : int
            Which epoch begins; 0 is the first.

        Raises
        ------
        KeyError
            For a module that the model does not have, but for what the plan replaces by the identity.
        ValueError
            For a model that is compiled or wrapped.
        """
        _check_model(model)
        gone = [each.module for each in self.actions if each.kind == "shorten"]
        due = [
            replace(action, modules=(name,))
            for action in self.actions
            if action.kind == "freeze" and action.epoch == epoch
            for name in action.modules
            if not any(contains(each, name) for each in gone)
        ]
        check_modules(model, due)
        names = [action.module for action in due]
        freeze(model, names)
        return names

    def with_seconds(
        self, model: nn.Module, *, probe: Dataset[Any] | DataLoader[Any] | None = None, rounds: int = 7
    ) -> "Plan":
        """Return the same plan with the seconds of a step on this machine, before and after.

        Parameters
        ----------
        model : Module
            What the plan is for; it is not changed.
        probe : Dataset or DataLoader, optional
            Of which a batch is taken; by default what the plan was made with.
        rounds : int
            How often each network takes a step, in turn.

        Raises
        ------
        ValueError
            Without a probe, or of a batch that is too small for a normalization in training mode.
        """
        shown = self.shown if probe is None else Shown(probe)
        if shown is None:
            raise ValueError("the plan was read from a file: pass probe=, of which a batch is timed")
        inputs = network_of(model, shown).batch(0)
        latest = max((action.epoch or 0 for action in self.actions), default=0)
        changed = self.apply(model, probe=shown.probe, epoch=latest, to_inputs=shown.to_inputs)
        timed = measure_seconds([model, changed], inputs, rounds=rounds)
        if timed is None:
            raise ValueError(
                f"a step of a batch of {len(inputs)} cannot be timed: in training mode, a normalization is given one "
                f"number of each channel, of which there is no variance; pass a probe of larger batches"
            )
        return replace(self, seconds=(timed[0], timed[1]), batch=len(inputs))

    def to_yaml(self, path: str | Path) -> Path:
        """Write the plan as YAML.

        Raises
        ------
        ImportError
            Without PyYAML (the extra ``plan``).
        """
        content: dict[str, Any] = {"format": FORMAT, "of": self.of}
        content |= {name: value for name in ("budget", "tolerance") if (value := getattr(self, name)) is not None}
        content |= {"n_samples": self.n_samples, "built": self.built}
        content |= {"before": asdict(self.before), "after": asdict(self.after)}
        if self.together is not None:
            content["together"] = asdict(self.together)
        if self.seconds is not None:
            content |= {"batch": self.batch, "seconds": [asdict(each) for each in self.seconds]}
        if self.caveat:
            content["caveat"] = self.caveat
        return write_yaml(content | {"actions": [action_to_data(each) for each in self.actions]}, path)

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Plan":
        """Read a plan; a file runs no code, and every field of it is checked.

        Raises
        ------
        FileNotFoundError
            Where there is none.
        ValueError
            For a file that holds no plan, or a plan that makes no sense, with the field.
        ImportError
            Without PyYAML (the extra ``plan``).
        """
        content = read_yaml(path)
        known = {"format", "of", "budget", "tolerance", "n_samples", "built", "before", "after", "together"}
        if unknown := sorted(str(name) for name in set(content) - known - {"batch", "seconds", "caveat", "actions"}):
            raise ValueError(f"{path} has a field {unknown[0]!r:.80} that no plan has")
        of, built, seconds = content.get("of"), content.get("built", False), content.get("seconds")
        if not isinstance(of, str) or of not in PARTS:
            raise ValueError(f"{path}: of is {of!r:.80}; expected one of {', '.join(PARTS)}")
        if not isinstance(built, bool):
            raise ValueError(f"{path}: built is {built!r:.80}; expected true or false")
        budget, tolerance = (_optional(content, name, path) for name in ("budget", "tolerance"))
        try:
            Goal(of, budget, tolerance)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return cls(
            actions=actions_from_data(content.get("actions"), path),
            of=of,
            budget=budget,
            tolerance=tolerance,
            before=costs_from_data(content.get("before"), f"{path}: before"),
            after=costs_from_data(content.get("after"), f"{path}: after"),
            built=built,
            together=None if "together" not in content else damage_from_data(content["together"], f"{path}: together"),
            n_samples=count_from_data(content.get("n_samples", 0), f"{path}: n_samples"),
            seconds=None if seconds is None else _seconds(seconds, path),
            batch=count_from_data(content.get("batch", 0), f"{path}: batch"),
            caveat=words_from_data(content.get("caveat", ""), f"{path}: caveat"),
        )

    def to_schedule(self, path: str | Path, *, model: nn.Module) -> Path:
        """Write what is trained as a schedule of finetuning-scheduler, for Lightning.

        It has one phase: all parameters but those that are frozen from the start on. Such schedules thaw and never
        freeze, and know nothing of normalizations: use them on what `apply` returned.

        Parameters
        ----------
        path : str or Path
            The file, YAML.
        model : Module
            The LightningModule that is trained, which is what `apply` returned or holds it: names are those of its
            parameters.

        Raises
        ------
        ValueError
            Where a module that is to be frozen is not in the model, or nothing is left to train.
        """
        marked = (name for name, each in model.named_modules() if getattr(each, _MARK, None) == self._digest())
        built = next(marked, "")
        inside = f"{built}." if built else ""
        due = [each for each in self.actions if each.kind == "freeze" and not each.epoch]
        frozen = [f"{inside}{name}" for each in due for name in each.modules]
        known = [name for name, _ in model.named_modules()]
        if lacking := [name for name in frozen if name not in known]:
            raise ValueError(f"the model has no module {lacking[0]!r}; expected what apply returned")
        trained = [name for name, _ in model.named_parameters() if not any(contains(each, name) for each in frozen)]
        if not trained:
            raise ValueError("the plan freezes all of the model: there is nothing to train")
        return write_yaml({0: {"params": trained}}, path)

    def __str__(self) -> str:
        return plan_table(self)

    def _digest(self) -> str:
        return hashlib.sha256(repr(self.actions).encode()).hexdigest()


def network_of(model: nn.Module, shown: Shown) -> Network:
    """Return a model on a probe."""
    batches, _ = probe_batches(model, shown.probe, batch_size=shown.batch_size, to_inputs=shown.to_inputs)
    return Network(model, batches, loss=None)


def _check_model(model: nn.Module) -> None:
    if plain_model(model) is not model:
        wrapper = type(model).__name__
        kind = "compiled" if wrapper == "OptimizedModule" else f"wrapped in {wrapper}"
        raise ValueError(f"the model is {kind}; apply the plan to the module under it, and wrap what comes of it")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("the model is a TorchScript module, which cannot be rebuilt; pass what it was scripted from")


def _optional(content: Mapping[str, Any], name: str, path: str | Path) -> float | None:
    value = content.get(name)
    return None if value is None else number_from_data(value, f"{path}: {name}")


def _seconds(given: Any, path: str | Path) -> tuple[Seconds, Seconds]:
    names = ("median", "shortest", "longest")
    if (
        not isinstance(given, list)
        or len(given) != 2
        or not all(isinstance(each, Mapping) and set(each) == set(names) for each in given)
    ):
        raise ValueError(f"{path}: seconds is {given!r:.80}; expected two of {', '.join(names)}")
    first, second = (Seconds(*(number_from_data(each[name], f"{path}: {name}") for name in names)) for each in given)
    return first, second
