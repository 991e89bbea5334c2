"""Forward arguments: what a model's ``forward`` takes, by position and by name."""

from dataclasses import dataclass, field
from inspect import Parameter, signature
from itertools import takewhile
from typing import Any, get_args, get_origin

import torch
from torch import nn

from ..forward import plain_model


@dataclass(frozen=True)
class ForwardArguments:
    """What a model's ``forward`` takes.

    Attributes
    ----------
    names : tuple of str
        All of them.
    n_needed : int
        How many are needed by position.
    by_name : tuple of str
        Where none is taken by position: those that are needed by name.
    takes_list : bool
        Whether the first is a list with an image of each sample, as detectors take it.
    n_taken : int
        How many may be given by position: those that are needed, and those after them that are None by default, which
        a switch is not.
    """

    names: tuple[str, ...] = ()
    n_needed: int = 1
    by_name: tuple[str, ...] = ()
    takes_list: bool = False
    n_taken: int = field(default=1, compare=False)


def forward_arguments(model: nn.Module) -> ForwardArguments:
    """Read what a model takes from its ``forward``, under its wrappers."""
    plain = plain_model(model)
    parameters = signature(plain.forward).parameters
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
    placed = [each for each in parameters.values() if each.kind in kinds]
    needed = [each for each in placed if each.default is Parameter.empty and each.kind != Parameter.VAR_POSITIONAL]
    others = [each for each in placed if each.default is not Parameter.empty]
    taken = len(needed) + len([*takewhile(lambda each: each.default is None, others)])
    named = [each for each in parameters.values() if each.kind == Parameter.KEYWORD_ONLY]
    by_name = [each.name for each in named if each.default is Parameter.empty]
    return ForwardArguments(
        names=tuple(parameters),
        n_needed=len(needed),
        n_taken=taken,
        by_name=() if placed else tuple(by_name),
        takes_list=bool(placed) and (_is_list_of_tensors(placed[0].annotation) or _pads_images(plain)),
    )


def _is_list_of_tensors(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.replace("torch.", "").lower() in ("list[tensor]", "typing.list[tensor]")
    return get_origin(annotation) is list and get_args(annotation) == (torch.Tensor,)


def _pads_images(model: nn.Module) -> bool:
    """Whether a model begins as torchvision's detectors do, of which some have no annotations."""
    return any(type(child).__name__ == "GeneralizedRCNNTransform" for child in model.children())
