"""Plans as files: YAML that holds data alone, checked field by field before any of it is used."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from math import isfinite
from pathlib import Path
from typing import Any

from ..store import write_beside
from ._action import KINDS, Action, MeasuredDamage, check_together
from ._costs import Costs

FORMAT = "fmcluster plan, version 1"
LARGEST = 16 << 20  # bytes
MOST = 1 << 53  # of a whole number
MOST_PARTS = 1_000_000
DEEPEST = 100
_WORDS = ("what", "how", "consumer")
_WITH_SETTING = ("kernel", "separable", "groups", "resolution")


def write_yaml(content: Mapping[Any, Any], path: str | Path) -> Path:
    """Write mappings, lists, words and numbers.

    Raises
    ------
    ImportError
        Without PyYAML.
    OSError
        Where it cannot be written; a file that was there is then as it was.
    """
    text = _yaml().safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120)
    with write_beside(path) as beside:
        beside.write_text(text, "utf-8")
    return Path(path)


def read_yaml(path: str | Path) -> Mapping[str, Any]:
    """Read the mapping that a file holds.

    Raises
    ------
    ValueError
        For what is no YAML of plain data, or no plan.
    """
    yaml = _yaml()
    try:
        with Path(path).open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
        _check_events(yaml.parse(text, yaml.SafeLoader))
        content = yaml.safe_load(text)
        _check_extent(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also of dates that there are not
        raise ValueError(f"{path} cannot be read as YAML of plain data ({_first_line(error)})") from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is no plan: expected a file that begins with 'format: {FORMAT}'")
    return content


def _check_events(events: Iterable[Any]) -> None:
    """Raise `ValueError` where mappings are merged, or nested far deeper than a plan's are."""
    depth = 0
    for each in events:
        if getattr(each, "value", "") == "<<":
            raise ValueError("it merges mappings by <<, which no plan does")
        kind = type(each).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")


def _check_extent(content: Any) -> None:
    """Raise `ValueError` where a small file stands for a huge one, by aliases of aliases."""
    waiting, count = [content], 0
    while waiting:
        each = waiting.pop()
        waiting += each.values() if isinstance(each, Mapping) else each if isinstance(each, list) else ()
        count += 1
        if count + len(waiting) > MOST_PARTS:
            raise ValueError(f"it stands for more than {MOST_PARTS:,} values, by aliases of aliases")


def action_to_data(action: Action) -> dict[str, Any]:
    """Return an action as plain data, without what it does not have."""
    out: dict[str, Any] = {}
    for name, value in asdict(action).items():
        if value not in (None, (), ""):
            out[name] = list(value) if isinstance(value, tuple) else value
    return out


def actions_from_data(given: Any, source: str | Path) -> tuple[Action, ...]:
    """Return the actions that plain data stand for.

    Raises
    ------
    ValueError
        With the number of the action and what is wrong with it.
    """
    if not isinstance(given, list):
        raise ValueError(f"{source}: actions is a {type(given).__name__}; expected a list")
    actions = tuple(_action(each, f"{source}, action {number}") for number, each in enumerate(given, start=1))
    try:
        check_together(actions)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return actions


def costs_from_data(given: Any, source: str | Path, *, saved: bool = False) -> Costs:
    """Return the costs that plain data stand for; what is `saved` is negative where an action adds to a cost.

    Raises
    ------
    ValueError
        For anything but numbers by the names of `Costs`, and for negative ones that are not `saved`.
    """
    names = [each.name for each in fields(Costs)]
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise ValueError(f"{source}: expected a mapping of {', '.join(names)} to numbers, got {given!r:.80}")
    values = [number_from_data(given[name], f"{source}: {name}") for name in names]
    negative = [name for name, value in zip(names, values, strict=True) if value < 0]
    if negative and not saved:
        raise ValueError(f"{source}: {negative[0]} is {given[negative[0]]!r:.80}; expected a number of at least 0")
    return Costs(*values)


def number_from_data(given: Any, source: str, *, finite: bool = True) -> float:
    """Return a number, which has to be finite unless `finite` is False.

    Raises
    ------
    ValueError
        For anything else.
    """
    number = given if isinstance(given, float) else None
    if isinstance(given, int) and not isinstance(given, bool) and abs(given) <= MOST:
        number = float(given)
    if number is None or (finite and not isfinite(number)):
        raise ValueError(f"{source} is {given!r:.80}; expected a {'finite ' if finite else ''}number")
    return number


def count_from_data(given: Any, source: str) -> int:
    """Return an integer of at least 0.

    Raises
    ------
    ValueError
        For anything else.
    """
    if not _is_count(given):
        raise ValueError(f"{source} is {given!r:.80}; expected an integer of at least 0")
    return int(given)


def words_from_data(given: Any, source: str) -> str:
    """Return words.

    Raises
    ------
    ValueError
        For anything else.
    """
    if not isinstance(given, str):
        raise ValueError(f"{source} is {given!r:.80}; expected words")
    return given


def damage_from_data(given: Any, source: str) -> MeasuredDamage:
    """Return the damage that plain data stand for.

    Raises
    ------
    ValueError
        For anything but numbers by the names of `MeasuredDamage`.
    """
    names = [each.name for each in fields(MeasuredDamage)]
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise ValueError(f"{source}: damage is {given!r:.80}; expected {', '.join(names)}")
    numbers = (number_from_data(given[name], f"{source}: damage {name}", finite=False) for name in names)
    return MeasuredDamage(*numbers)


def _action(given: Any, source: str) -> Action:
    known = [each.name for each in fields(Action)]
    if not isinstance(given, Mapping):
        raise ValueError(f"{source} is a {type(given).__name__}; expected a mapping")
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"{source} has {unknown[0]!r:.80}; expected any of {', '.join(known)}")
    if given.get("kind") not in KINDS:
        raise ValueError(f"{source}: kind is {given.get('kind')!r:.80}; expected one of {', '.join(KINDS)}")
    modules = given.get("modules")
    if not isinstance(modules, list) or not modules or not all(isinstance(each, str) and each for each in modules):
        raise ValueError(f"{source}: modules is {modules!r:.80}; expected a list of names")
    if given["kind"] != "freeze" and len(modules) > 1:
        raise ValueError(f"{source}: {given['kind']} has {len(modules)} modules; expected one")
    keep = given.get("keep", [])
    if not isinstance(keep, list) or not all(_is_count(each) for each in keep) or sorted(set(keep)) != keep:
        raise ValueError(f"{source}: keep is {keep!r:.80}; expected channels in ascending order")
    counts = {name: given.get(name) for name in ("setting", "width", "epoch")}
    if bad := [name for name, value in counts.items() if value is not None and not _is_count(value)]:
        raise ValueError(f"{source}: {bad[0]} is {counts[bad[0]]!r:.80}; expected an integer of at least 0")
    if given["kind"] == "narrow" and not (keep and counts["width"] and keep[-1] < counts["width"]):
        raise ValueError(f"{source}: expected the channels to keep, all below its width {counts['width']}")
    if given["kind"] == "narrow" and not given.get("consumer"):
        raise ValueError(f"{source}: consumer is missing; expected the module that reads the channels")
    if given["kind"] in _WITH_SETTING and not counts["setting"]:
        raise ValueError(f"{source}: setting is {counts['setting']!r}; expected an integer of at least 1")
    ranked = given.get("by_prediction")
    words = {name: words_from_data(given.get(name, ""), f"{source}: {name}") for name in _WORDS}
    return Action(
        kind=given["kind"],
        modules=tuple(modules),
        damage=damage_from_data(given.get("damage"), source),
        saves=costs_from_data(given.get("saves"), f"{source}: saves", saved=True),
        keep=tuple(keep),
        what=words["what"],
        how=words["how"],
        consumer=words["consumer"],
        setting=counts["setting"],
        width=counts["width"],
        epoch=counts["epoch"],
        by_prediction=None if ranked is None else number_from_data(ranked, f"{source}: by_prediction"),
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ImportError(f"PyYAML cannot be imported ({error}): pip install 'fmcluster[plan]'") from error
    return yaml
