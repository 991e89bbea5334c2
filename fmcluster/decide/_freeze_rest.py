"""Freezing what an advice to tune leaves out: all but the head, or all behind where inputs shifted."""

import copy

from torch import nn

from ..analysis.diagnosis import Advice
from ..capture import plain_model
from .building import freeze_own


def freeze_rest(model: nn.Module, advice: Advice) -> nn.Module:
    """Return a copy of a network of which only what an advice to tune names is trained.

    Its head is the last module with parameters of its own, in the order in which the network names its modules; what
    lies behind a normalization is what comes later in that order.

    Parameters
    ----------
    model : Module
        The network before fine-tuning; it is not changed.
    advice : Advice
        One of `diagnose`, with the action ``"tune"``. Where it names a normalization, the weights behind it are frozen,
        but for the head, and the statistics of all normalizations follow the images. Where it is for the head alone,
        all else is frozen, statistics too; where it is for all of the network, nothing.

    Returns
    -------
    Module
        In training mode where `model` was.

    Raises
    ------
    TypeError
        For what is no advice.
    ValueError
        For an advice to do something else, a model without the normalization it names, one that is compiled or wrapped,
        and where a parameter would be frozen in one of the layers that share it.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    >>> tuned = freeze_rest(model, Advice("3", "tune", "", None, until="1"))
    >>> [name for name, value in tuned.named_parameters() if not value.requires_grad]
    ['2.weight', '2.bias']
    """
    if not isinstance(advice, Advice):
        raise TypeError(f"expected an Advice of diagnose(run), got a {type(advice).__name__}")
    if advice.action != "tune":
        raise ValueError(f"expected an advice to tune, got one of the action {advice.action!r}: {advice}")
    tuned = copy.deepcopy(plain_model(model))
    if advice.until is None:
        return tuned
    trained = [name for name, each in tuned.named_modules() if any(True for _ in each.parameters(recurse=False))]
    names = [name for name, each in tuned.named_modules() if name in trained or hasattr(each, "running_mean")]
    if advice.until and advice.until not in names:
        raise ValueError(
            f"the model has no normalization {advice.until!r}, up to which the advice is to tune; expected the network "
            f"that was recorded"
        )
    behind = names[names.index(advice.until) + 1 :] if advice.until else names
    freeze_own(tuned, [name for name in behind if name != trained[-1]], follow=bool(advice.until))
    return tuned
