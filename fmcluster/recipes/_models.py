"""Models: ResNets by name, with weights from torchvision, from a file, or none."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from http.client import HTTPException
from io import BytesIO
from pathlib import Path

import torch
from torch import nn
from torchvision import models

from ..capture import check_kinds, choose_weights, find_weights, read_checkpoint
from ..store import in_words, write_beside

_FAMILIES = ("resnet", "resnext", "wide_resnet")
_WRAPPERS = ("state_dict", "model")
_NAMED = 3


def load_resnet(model: str, *, weights: str, n_classes: int) -> nn.Module:
    """Build a torchvision ResNet that ends in a linear head of `n_classes` outputs.

    Parameters
    ----------
    model : str
        A torchvision ResNet, such as ``"resnet18"``, ``"resnext50_32x4d"`` or ``"wide_resnet50_2"``.
    weights : str
        ``"DEFAULT"``: torchvision's own, downloaded once, with a fresh head. ``"none"``: random. Anything
        else is the path of a state dict (of ``torch.save`` or safetensors), bare or in a checkpoint, as
        `fmcluster.capture.find_weights` finds it; its head is kept if it has `n_classes` outputs and left fresh
        otherwise.
    n_classes : int
        Outputs of the head.

    Returns
    -------
    nn.Module
        On the CPU, in training mode. Random values come from torch's global random state.

    Raises
    ------
    ValueError
        Unknown model, a file that is no state dict of that model, or one that holds several.
    FileNotFoundError
        `weights` is neither ``"DEFAULT"`` nor ``"none"`` nor a file.
    ConnectionError
        torchvision's weights could not be downloaded.
    OSError
        They could, but not kept.
    """
    known = [name for name in models.list_models(module=models) if name.startswith(_FAMILIES)]
    if model not in known:
        nearest = get_close_matches(model, known, n=3, cutoff=0.0)
        raise ValueError(f"unknown model {model!r}: expected a torchvision ResNet, such as {', '.join(nearest)}")
    if n_classes < 1:
        raise ValueError(f"n_classes is {n_classes}: a head needs at least 1 output")
    if weights.lower() == "default":
        return _replace_head(_download(model), n_classes=n_classes)
    network: nn.Module = models.get_model(model, weights=None, num_classes=n_classes)
    if weights.lower() != "none":
        given = _read_state_dict(weights, like=network.state_dict())
        _load_weights(network, given, source=f"{weights} for {model}")
    return network


def freeze_backbone(model: nn.Module) -> nn.Module:
    """Stop gradients everywhere but in the head ``fc``, in place.

    BatchNorm's running statistics are no parameters: in training mode they go on following the images, as in
    the tutorial, so the feature maps of a frozen backbone still drift a little.

    Parameters
    ----------
    model : nn.Module
        A network with a head named ``fc``.

    Returns
    -------
    nn.Module
        The same model.

    Raises
    ------
    ValueError
        The model has no child named ``fc``.
    """
    if not isinstance(getattr(model, "fc", None), nn.Module):
        raise ValueError(f"{type(model).__name__} has no head named fc: freeze_backbone expects a torchvision ResNet")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    return model


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's state dict, as `torch.save` does: the file is whole, or as it was.

    Raises
    ------
    OSError
        Where it cannot be written; torch itself would say so with its own error, that of its archive.
    """
    content = BytesIO()
    torch.save(model.state_dict(), content)
    with write_beside(path) as beside:
        beside.write_bytes(content.getbuffer())


def _download(model: str) -> nn.Module:
    try:
        network: nn.Module = models.get_model(model, weights="DEFAULT")
    # An unreachable host is an OSError; a refusal page served in the file's place, a RuntimeError (hash).
    except (OSError, HTTPException, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno and error.filename:  # of this machine's disk
            raise OSError(
                f"the DEFAULT weights of {model} cannot be kept in {torch.hub.get_dir()}: {in_words(error)}. Set "
                f"TORCH_HOME to a folder that can be written to, or use --weights none (random) or --weights PATH (a "
                f"state dict saved earlier)"
            ) from error
        raise ConnectionError(
            f"the DEFAULT weights of {model} could not be downloaded, no network or the host refused "
            f"({error}): use --weights none (random) or --weights PATH (a state dict saved earlier)"
        ) from error
    return network


def _replace_head(network: nn.Module, *, n_classes: int) -> nn.Module:
    head = network.fc
    assert isinstance(head, nn.Linear)
    network.fc = nn.Linear(head.in_features, n_classes)
    return network


def _read_state_dict(weights: str, *, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {weights!r}: expected DEFAULT, none, or the path of a state dict")
    try:
        content = read_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"{weights} {error}") from error
    if find_weights(content, like=like):
        try:
            return choose_weights(content, like=like)[0].weights
        except ValueError as error:
            raise ValueError(f"{weights} {error}") from None
    if isinstance(content, Mapping):
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        raise ValueError(
            f"{weights} holds a {type(content).__name__} that is no state dict (names to tensors): "
            "save one with torch.save(model.state_dict(), PATH)"
        )
    return {key.removeprefix("module."): value for key, value in content.items()}


def _load_weights(network: nn.Module, given: dict[str, torch.Tensor], *, source: str) -> None:
    expected: dict[str, torch.Tensor] = network.state_dict()
    # Files from before torch 0.4.1 have no such counters, and nothing here depends on them.
    counters = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")}
    given = counters | given
    if _has_other_head(given, expected):
        given = given | {key: expected[key] for key in ("fc.weight", "fc.bias")}
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    misshapen = [
        f"{key} received {tuple(given[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    problems = [
        f"{len(names)} {kind} ({_first(names)})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise ValueError(
            f"weights {source} do not fit, of {len(expected)} tensors: {', '.join(problems)}; "
            "name the model they were trained with"
        )
    try:
        check_kinds(given, like=expected)
    except ValueError as error:
        raise ValueError(f"{source} {error}") from None
    network.load_state_dict(given)


def _has_other_head(given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    weight, bias = given.get("fc.weight"), given.get("fc.bias")
    if weight is None or bias is None or weight.ndim != 2:
        return False
    n_outputs, n_features = weight.shape
    n_classes, n_expected = expected["fc.weight"].shape
    return n_features == n_expected and bias.shape == (n_outputs,) and n_outputs != n_classes


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
