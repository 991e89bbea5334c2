"""Simpler convolutions: those of a plan, with the weights that the interventions measured."""

from collections.abc import Callable

import torch
from torch import nn

from ...capture import kernel_geometry
from ...store import KernelGeometry
from .._action import Action
from .._least_squares import inner_weights, kernel_patches, solve
from .._network import Network
from ..interventions import grouped, refit_inner, separated
from ._modules import Channels, LowResolution

Aim = Callable[[], tuple[torch.Tensor, torch.Tensor]]
"""Returns the weight to come close to, and the second moments of what it is given."""


def build_convolution(action: Action, network: Network, *, so_far: Network) -> nn.Module:
    """Return what stands for a convolution; fitted to what it is given on the probe, but for the resolution.

    Parameters
    ----------
    action : Action
        Of the kinds ``kernel``, ``separable``, ``groups`` and ``resolution``.
    network : Network
        The network as it was, whose outputs are the aim.
    so_far : Network
        The network that is being built, whose layers are given other inputs.

    Raises
    ------
    ValueError
        For a convolution of which this cannot be built.
    """
    name = action.module
    module = network.modules[name]
    kernel = kernel_geometry(module)
    if kernel is None or not isinstance(module, nn.Conv2d) or type(module).forward is not nn.Conv2d.forward:
        raise ValueError(
            f"'{action}' cannot be built: {name} is a {type(module).__name__}; expected a plain Conv2d that is padded "
            f"with zeros. Was the plan made for another model, or applied before?"
        )
    if f"{name}.weight" not in network.tensors or not network.is_convolution(name):
        raise ValueError(
            f"'{action}' cannot be built: {name} is called several times, or its weight is computed from others"
        )
    if action.kind == "resolution" and _setting(action) > (shortest := min(network.facts[name].returned[1:])):
        raise ValueError(
            f"'{action}' cannot be built: {name} returns feature maps of {shortest} positions a side, fewer than the "
            f"{action.setting} that are averaged; was the plan made for another model, or for other images?"
        )
    made = _BUILDERS[action.kind](action, module, kernel, lambda: find_aim(name, network, so_far=so_far))
    for parameter in made.parameters():
        parameter.requires_grad_(module.weight.requires_grad)
    return made.to(module.weight.device).train(module.training)


def find_aim(name: str, network: Network, *, so_far: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what weight a convolution should have, and the second moments of what it is given, where others changed.

    With P and Q what its kernel sees in the network as it was, and as it is being built, W Q comes closest to the
    outputs that were, W0 P, for W = W0 (P Q^T) (Q Q^T)^+. Any other weight V is as much farther as V Q is from W Q, so
    that weights of a simpler kind are fitted to W on the moments Q Q^T.

    Parameters
    ----------
    name : str
        The convolution, the same in both.
    network, so_far : Network
        As it was, and as it is being built.

    Returns
    -------
    weight : Tensor
        Of the convolution's shape; its own where it is given what it was.
    moments : Tensor of shape (groups, k, k), float64
        As of `Network.patch_moments`.
    """
    weight, geometry = network.weight(name), kernel_geometry(network.modules[name])
    assert geometry is not None
    pairs = [(network.given(name, number), so_far.given(name, number)) for number in range(network.n_batches)]
    if all(torch.equal(was, now) for was, now in pairs):
        return weight, network.patch_moments(name)
    moments = so_far.patch_moments(name)
    cross = torch.zeros_like(moments)
    for was, now in pairs:
        for before, after in zip(torch.split(was, 8), torch.split(now, 8), strict=True):
            seen = [kernel_patches(each, geometry).flatten(1, 2).double() for each in (before, after)]
            cross += seen[0].transpose(1, 2) @ seen[1]
    flat = torch.unflatten(weight.double().flatten(1), 0, (len(moments), -1))
    aim = [solve(moments[group], (flat[group] @ cross[group]).T).T for group in range(len(moments))]
    return torch.cat(aim).reshape(weight.shape).to(weight.dtype), moments


def first_convolution(module: nn.Module) -> nn.Module:
    """Return what reads the channels of what was built."""
    return _inner(module)[0]


def last_convolution(module: nn.Module) -> nn.Module:
    """Return what makes the channels of what was built."""
    return _inner(module)[-1]


def _inner(module: nn.Module) -> list[nn.Module]:
    return [each for each in module.modules() if isinstance(each, nn.Conv2d | nn.Linear)] or [module]


def _kernel(action: Action, module: nn.Conv2d, kernel: KernelGeometry, aim: Aim) -> nn.Module:
    size = _setting(action)
    if size >= max(kernel.size):
        raise ValueError(
            f"'{action}' cannot be built: its kernel is {kernel.size[0]} x {kernel.size[1]}; was the plan made for "
            f"another model, or applied before?"
        )
    inner = inner_weights(kernel.size, size)
    weight, moments = aim()
    fitted = refit_inner(weight, moments, inner=inner.flatten().repeat(weight.shape[1]))
    rows, columns = inner.any(1).to(weight.device), inner.any(0).to(weight.device)
    start = [int(each.nonzero()[0]) for each in (rows, columns)]
    stop = [length - int(each.nonzero()[-1]) - 1 for length, each in zip(kernel.size, (rows, columns), strict=True)]
    (top, bottom), (left, right) = (
        (before - dilation * first, after - dilation * last)
        for (before, after), dilation, first, last in zip(kernel.padding, kernel.dilation, start, stop, strict=True)
    )
    cropped = fitted[:, :, rows][..., columns]
    if top == bottom >= 0 and left == right >= 0:
        return _like(module, cropped, padding=(top, left))
    return nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), _like(module, cropped, padding=(0, 0)))


def _separable(action: Action, module: nn.Conv2d, kernel: KernelGeometry, aim: Aim) -> nn.Module:
    _check_ungrouped(action, module)
    weight, moments = aim()
    kernels, points = separated(weight, moments, rank=_setting(action))
    depthwise = _like(module, kernels, groups=module.in_channels, with_bias=False)
    pointwise = nn.Conv2d(points.shape[1], points.shape[0], 1, bias=module.bias is not None, device="meta")
    return nn.Sequential(depthwise, _filled(pointwise, points, module.bias))


def _groups(action: Action, module: nn.Conv2d, kernel: KernelGeometry, aim: Aim) -> nn.Module:
    _check_ungrouped(action, module)
    count = _setting(action)
    if module.in_channels % count or module.out_channels % count:
        raise ValueError(
            f"'{action}' cannot be built: {action.module} makes {module.out_channels} channels of "
            f"{module.in_channels}, which are not all divisible into {count} groups; was the plan made for another "
            f"model?"
        )
    weight, moments = aim()
    found = grouped(weight, moments, count=count)
    inner = _like(module, found.weight, groups=count)
    if inner.bias is not None:
        inner.bias.data = inner.bias.data[found.outputs.to(inner.bias.device)]
    return nn.Sequential(Channels(found.inputs), inner, Channels(found.outputs.argsort()))


def _resolution(action: Action, module: nn.Conv2d, kernel: KernelGeometry, aim: Aim) -> nn.Module:
    factor = _setting(action)
    stride = (kernel.stride[0] * factor, kernel.stride[1] * factor)
    inner = _like(module, module.weight.detach().clone(), padding=(0, 0), stride=stride)
    return LowResolution(inner, kernel=kernel, factor=factor)


_Builder = Callable[[Action, nn.Conv2d, KernelGeometry, Aim], nn.Module]
_BUILDERS: dict[str, _Builder] = {
    "kernel": _kernel,
    "separable": _separable,
    "groups": _groups,
    "resolution": _resolution,
}


def _like(
    module: nn.Conv2d,
    weight: torch.Tensor,
    *,
    padding: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    groups: int | None = None,
    with_bias: bool = True,
) -> nn.Conv2d:
    """Return a convolution as another, of another weight."""
    groups = module.groups if groups is None else groups
    made = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=module.stride if stride is None else stride,  # type: ignore[arg-type]
        padding=module.padding if padding is None else padding,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=groups,
        bias=with_bias and module.bias is not None,
        device="meta",  # weights are filled in: to draw some would move the user's random state on
    )
    return _filled(made, weight, module.bias)


def _filled(module: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Conv2d:
    module.weight = nn.Parameter(weight.detach().clone())
    if module.bias is not None and bias is not None:
        module.bias = nn.Parameter(bias.detach().clone())
    return module


def _check_ungrouped(action: Action, module: nn.Conv2d) -> None:
    if module.groups != 1:
        raise ValueError(
            f"'{action}' cannot be built: {action.module} has {module.groups} groups; was the plan made for another "
            f"model, or applied before?"
        )


def _setting(action: Action) -> int:
    if action.setting is None or action.setting < 1:
        raise ValueError(f"'{action}' has the setting {action.setting}; expected an integer of at least 1")
    return action.setting
