"""Weights in checkpoints: where the tensors of a model lie among the keys, and behind the prefixes, of wrappers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...store import prefixes_before, without_wrapped_parts

_USUAL = ("state_dict", "model_state_dict", "model")
_DEEPEST = 3


@dataclass(frozen=True, eq=False)
class FoundWeights:
    """Weights of a model, found in a checkpoint.

    Attributes
    ----------
    weights : dict of str to Any
        Under the model's own names.
    where : str
        Keys and prefix that they were under, such as ``'state_dict', names that begin with 'model.'``.
    is_usual : bool
        Whether they lie where everybody puts them: at the top, or under ``state_dict``, ``model_state_dict`` or
        ``model``, with no other model's beside them.
    """

    weights: dict[str, Any]
    where: str
    is_usual: bool


def find_weights(content: object, *, like: Mapping[str, torch.Tensor]) -> list[FoundWeights]:
    """Find all in a checkpoint that are a model's weights.

    Searched are the checkpoint and its mappings, down to three keys deep; in each, prefixes beneath which all of the
    model's names are (``module.``, ``_orig_mod.``, ``model.``, ``encoder_q.`` ...). Only what makes names match is
    taken off. Counters of batches, which files from before torch 0.4.1 lack, may be missing, and so may all but one of
    the names of a tensor that the model holds under several, as in files of safetensors.

    Parameters
    ----------
    content : Any
        What was loaded.
    like : mapping of str to Tensor
        The model's own state dict. Where there are weights of the same shapes, those of other shapes are no match.

    Returns
    -------
    list of FoundWeights
        First those that lie where everybody puts them.

    Examples
    --------
    >>> own = torch.nn.Linear(2, 1).state_dict()
    >>> saved = {"epoch": 3, "ema": {f"module.{name}": value for name, value in own.items()}}
    >>> [each.where for each in find_weights(saved, like=own)]
    ["'ema', names that begin with 'module.'"]
    """
    found = [each for path, names in _mappings(content, ()) for each in _in_mapping(names, path, like)]
    fitting = [each for each in found if _has_shapes(each.weights, like)]
    return sorted(fitting or found, key=lambda each: not each.is_usual)


def choose_weights(content: object, *, like: Mapping[str, torch.Tensor]) -> tuple[FoundWeights, list[str]]:
    """Choose a model's weights in a checkpoint.

    Those that lie where everybody puts them are taken; of others, the only ones, or several that are the same.

    Returns
    -------
    tuple of (FoundWeights, list of str)
        The weights, and where there are others that differ.

    Raises
    ------
    ValueError
        Where there are none, or several and no telling which are meant.
    """
    found = find_weights(content, like=like)
    if not found:
        raise ValueError(f"does not hold this model's weights: {_what_there_is(content, like)}")
    first = found[0]
    different = [each for each in found[1:] if not _are_same(each.weights, first.weights)]
    if any(each.is_usual == first.is_usual for each in different):
        raise ValueError(
            f"holds several that fit this model: {'; '.join(each.where for each in (first, *different))}. Load it, and "
            f"pass the state dict that is meant, or the part of it whose names begin so"
        )
    check_kinds(first.weights, like=like)
    return first, [each.where for each in different]


def check_kinds(weights: Mapping[str, Any], *, like: Mapping[str, torch.Tensor]) -> None:
    """Compare what kind of tensors weights are with those of the model, which would take some for others.

    Raises
    ------
    ValueError
        For the first that is sparse, quantized, complex, of integers, or without values, where the model's own is not.
        The message begins with "holds".
    """
    for name, own in like.items():
        given = weights.get(name)
        if isinstance(own, torch.Tensor) and isinstance(given, torch.Tensor) and _kind(given, own) != _kind(own, own):
            raise ValueError(
                f"holds {name!r} as {_kind(given, own)}, where the model has {_kind(own, own)}; save the state dict of "
                f"a model of the same kind"
            )


def _kind(tensor: torch.Tensor, own: torch.Tensor) -> str:
    """Say of what kind a tensor is, as far as that matters to the model's own."""
    if tensor.is_meta:
        return "a tensor without values"
    if tensor.layout != torch.strided:
        return "a sparse tensor"
    if tensor.is_quantized:
        return "quantized numbers"
    if tensor.is_complex():
        return "complex numbers"
    return "integers" if own.is_floating_point() and not tensor.is_floating_point() else "numbers"


def _mappings(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield all mappings that hold tensors, with the keys that lead to them."""
    if not isinstance(value, Mapping):
        return
    names = {key: _as_tensor(each) for key, each in value.items() if isinstance(key, str)}
    if any(isinstance(each, torch.Tensor) for each in names.values()):
        yield path, names
    if len(path) < _DEEPEST:
        for key, each in names.items():
            yield from _mappings(each, (*path, key))


def _as_tensor(value: Any) -> Any:
    """Return an array of numbers as a tensor, such as safetensors' other loaders and JAX make; all else as it is."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.array(value))  # a copy: it may be read-only, or in another order of bytes
    return value


def _in_mapping(
    names: Mapping[str, Any], path: tuple[str, ...], like: Mapping[str, torch.Tensor]
) -> list[FoundWeights]:
    tied = _tied(like)
    if not (prefixes := _prefixes(names, tied)):
        plain = {without_wrapped_parts(name): value for name, value in names.items()}
        names, prefixes = plain, _prefixes(plain, tied)
    keys = ", ".join(map(repr, path))
    found = []
    for prefix in prefixes:
        begin = f"names that begin with {prefix!r}" if prefix else ""
        is_usual = len(prefixes) == 1 and all(key in _USUAL for key in path)
        whole = {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}
        weights = {name: whole[name] for name in whole if name in like} if prefix else whole
        for several in tied:  # of which some files hold one
            weights |= dict.fromkeys(several, next(whole[name] for name in several if name in whole)) | weights
        found.append(FoundWeights(weights, ", ".join(filter(None, (keys, begin))) or "the names at its top", is_usual))
    return found


def _prefixes(names: Mapping[str, Any], tied: list[list[str]]) -> list[str]:
    """Return beneath what all of the wanted names are; nothing alone, where they are there as they are."""
    shortest = min(tied, default=[], key=lambda several: min(map(len, several)))
    starts = dict.fromkeys(start for name in shortest for start in prefixes_before(names, [name]))
    fitting = [start for start in starts if all(any(start + name in names for name in several) for several in tied)]
    return [""] if "" in fitting else fitting


def _tied(like: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Group a model's names by the tensors that they share; counters of batches may be missing.

    What is no tensor, as quantized modules keep, is left out.
    """
    groups: dict[Any, list[str]] = {}
    names = [name for name, own in like.items() if isinstance(own, torch.Tensor)]
    for name in [name for name in names if not name.endswith("num_batches_tracked")] or names:
        tensor = like[name]
        has_memory = tensor.layout == torch.strided and tensor.numel() and tensor.device.type != "meta"
        key = (tensor.data_ptr(), tensor.shape, tensor.stride()) if has_memory else name
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _has_shapes(weights: Mapping[str, Any], like: Mapping[str, torch.Tensor]) -> bool:
    shapes = {name: getattr(value, "shape", None) for name, value in like.items()}
    return all(getattr(weights[name], "shape", None) == shape for name, shape in shapes.items() if name in weights)


def _are_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items() if isinstance(value, torch.Tensor)
    )


def _what_there_is(content: object, like: Mapping[str, torch.Tensor]) -> str:
    """Say what a checkpoint holds, and how many of a model's names are among them."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}; expected a state dict, or mappings with one"
    if not content:
        return "it is empty"
    keys = [str(key) for key in content]
    said = f"its {len(keys)} keys are {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"
    best: tuple[int, str, list[str]] = (0, "", list(like))
    for path, names in _mappings(content, ()):
        plain = {without_wrapped_parts(name) for name in names}
        for prefix in {name[: -len(own)] for own in like for name in plain if name == own or name.endswith(f".{own}")}:
            missing = [name for name in like if prefix + name not in plain]
            there = ", ".join(map(repr, path)) or "there"
            best = max(best, (len(like) - len(missing), f"{there}{f' behind {prefix!r}' if prefix else ''}", missing))
    n_there, where, missing = best
    if not n_there:
        return f"{said}; none of the model's {len(like)} names ({', '.join(list(like)[:3])} ...) is among them"
    lacks = f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
    return f"{said}; of the model's {len(like)} names {n_there} are {where}, and it lacks {lacks}"
