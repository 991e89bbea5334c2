"""Names of weights under wrappers: the prefixes before them, and what wrapped parts put inside."""

from collections.abc import Iterable

_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # of a part that is wrapped


def prefixes_before(names: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return what the shortest of the wanted names is behind, such as ``model.`` in a module of Lightning.

    Parameters
    ----------
    names : iterable of str
        Names of weights, as some wrapper writes them.
    wanted : iterable of str
        A model's own names.

    Returns
    -------
    list of str
        Candidates, in the order of names; "" where the name is there as it is.

    Examples
    --------
    >>> prefixes_before(["epoch", "model.fc.bias", "ema.fc.bias"], ["fc.bias", "fc.weight"])
    ['model.', 'ema.']
    """
    one = min(wanted, key=len, default="")
    return [name.removesuffix(one) for name in names if name == one or name.endswith(f".{one}")]


def without_wrapped_parts(name: str) -> str:
    """Return a name without what `torch.compile`, FSDP and checkpointing put into it.

    Examples
    --------
    >>> without_wrapped_parts("layer1._orig_mod.0.weight")
    'layer1.0.weight'
    """
    for part in _INSIDE:
        name = name.replace(part, "")
    return name
