"""Narrowing: channels really removed, with all that depends on them, and folded into the layer that reads them."""

import warnings

import torch
from torch import nn

from .._action import Action
from .._network import Network
from .._outcomes import scores_of
from ..interventions import Replaced
from ._convolutions import first_convolution, last_convolution


def check_narrow(action: Action, network: Network) -> None:
    """Raise where the network, as it was, has no such channels, or others read them.

    Raises
    ------
    ValueError
        With what is there instead.
    """
    module = network.modules[action.module]
    width = getattr(module, "out_channels", getattr(module, "out_features", None))
    if width != action.width or not 0 < len(action.keep) < (action.width or 0):
        raise ValueError(
            f"'{action}' cannot be built: {action.module} is a {type(module).__name__} of {width} channels, and the "
            f"plan keeps {len(action.keep)} of {action.width}; was it made for another model, or applied before?"
        )
    consumer = network.consumer(action.module)
    if consumer is None or consumer.module != action.consumer:
        raise ValueError(
            f"'{action}' cannot be built: the channels of {action.module} are read by "
            f"{'several layers, or tied to others' if consumer is None else consumer.module}, not by "
            f"{action.consumer} alone"
        )


def narrow(model: nn.Module, action: Action, *, so_far: Network) -> None:
    """Remove channels, in place, through the dependency graph of torch-pruning.

    Parameters
    ----------
    model : Module
        The network that is being built.
    action : Action
        Of the kind ``narrow``.
    so_far : Network
        The same on the probe; what is folded is fitted to it.

    Raises
    ------
    ImportError
        Without torch-pruning.
    ValueError
        Where other layers would have to be changed, too.

    References
    ----------
    G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang, DepGraph: towards any structural pruning, CVPR 2023.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm in a notebook: no bar is shown
            import torch_pruning
    except ImportError as error:
        raise ImportError(
            f"to remove channels, torch-pruning is needed ({error}): pip install 'fmcluster[plan]'"
        ) from error
    maker = last_convolution(model.get_submodule(action.module))
    reader = first_convolution(model.get_submodule(action.consumer))
    removed = list(action.removed)
    _fold(reader, action, so_far)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(
            model,
            example_inputs=so_far.example,
            forward_fn=lambda called, inputs: inputs.show(called),
            output_transform=scores_of,
            verbose=False,
        )
    of = "linear" if isinstance(maker, nn.Linear) else "conv"
    group = graph.get_pruning_group(maker, getattr(torch_pruning, f"prune_{of}_out_channels"), idxs=removed)
    changed = [item.dep.target.module for item in group]
    others = [each for each in changed if isinstance(each, nn.Conv2d | nn.Linear) and each not in (maker, reader)]
    if others or reader not in changed or not graph.check_pruning_group(group):
        raise ValueError(
            f"'{action}' cannot be built: torch-pruning finds that its channels are tied to those of other layers"
        )
    group.prune()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
        parameter.grad = None
    for name, module in model.named_modules():
        module.training = modes[name]


def _fold(reader: nn.Module, action: Action, so_far: Network) -> None:
    """Give the reader the weights that make up for what is removed, and the constants."""
    assert isinstance(reader, nn.Conv2d | nn.Linear)
    mean, covariance = so_far.moments(action.consumer)
    removed = torch.tensor(action.removed, device=mean.device)
    replaced = Replaced(mean, covariance, removed=removed, fold=action.how.endswith("folded"))
    weight, added = replaced.folded(reader.weight.detach())
    reader.weight.data = weight
    if reader.bias is None:
        reader.bias = nn.Parameter(added, requires_grad=reader.weight.requires_grad)
    else:
        reader.bias.data = reader.bias.data + added
