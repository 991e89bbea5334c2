"""Roots of which one thing is another: a run that says what is there, or one error in words."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmcluster import StoreError
from fmcluster.store import open_run

from ..store.sealing import seal
from .conftest import Tally, rounds
from .small_runs import parts_of

Where = list[tuple[Any, Any]]
Mutation = Callable[[Where, random.Random, Any], None]
WORDS = [None, 7, -1, 2**64, "", "../x", "\x1b[31m", "\udce9", [], {}, [[]], 1e300, float("nan"), True]


def places(root: Any) -> Where:
    """Return all that a root holds, as pairs of what holds it and its key or number."""
    found: Where = [(root, key) for key in root]
    for holder, key in found:
        inner = holder[key]
        if isinstance(inner, dict):
            found += [(inner, each) for each in inner]
        elif isinstance(inner, list):
            found += [(inner, each) for each in range(len(inner))]
    return found


def other_value(where: Where, draw: random.Random, foreign: Any) -> None:
    holder, key = draw.choice(where)
    holder[key] = draw.choice([*WORDS, copy.deepcopy(draw.choice(where)[0])])


def lacking(where: Where, draw: random.Random, foreign: Any) -> None:
    holder, key = draw.choice(where)
    del holder[key]


def other_name(where: Where, draw: random.Random, foreign: Any) -> None:
    holder, key = draw.choice([(holder, key) for holder, key in where if isinstance(holder, dict)])
    name = draw.choice(["", "../x", key.upper(), f"{key}x", key[:-1], draw.choice(sorted(holder))])
    holder[name] = holder.pop(key)


def more(where: Where, draw: random.Random, foreign: Any) -> None:
    holder, _ = draw.choice(where)
    value = copy.deepcopy(draw.choice(where)[0])
    if isinstance(holder, list):
        holder.insert(draw.randrange(len(holder) + 1), value)
    else:
        holder[draw.choice(["x", "", "a/b", "c.0", "zarr.json"])] = value


def exchanged(where: Where, draw: random.Random, foreign: Any) -> None:
    (one, key), (other, name) = draw.choice(where), draw.choice(where)
    first, second = copy.deepcopy(one[key]), copy.deepcopy(other[name])
    one[key], other[name] = second, first


def of_another_run(where: Where, draw: random.Random, foreign: Any) -> None:
    """The same of a run of the same shapes: a commit, a session, a digest, or all that is said."""
    pairs = [(own, other) for own, other in zip(where, foreign, strict=True) if own[0][own[1]] != other[0][other[1]]]
    (holder, key), (other, name) = draw.choice(pairs)
    assert name == key
    holder[key] = copy.deepcopy(other[name])


def another_number(where: Where, draw: random.Random, foreign: Any) -> None:
    holder, key = draw.choice([(holder, key) for holder, key in where if type(holder[key]) is int])
    holder[key] = draw.choice([0, -1, holder[key] + 1, holder[key] - 1, 2 * holder[key], 10**9, 10**15, 2**63])


MUTATIONS: dict[str, Mutation] = {
    "another value": other_value,
    "nothing": lacking,
    "another name": other_name,
    "one thing more": more,
    "two that are exchanged": exchanged,
    "that of another run": of_another_run,
    "another number": another_number,
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_root_with_one_thing_changed_is_the_run_or_an_error_in_words(
    what: str, originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path], tally: Tally
) -> None:
    """Every other one is sealed by one who knows how, and is then what the run says."""
    original, foreign = originals("probe", 0), originals("probe", 1)
    text, truth, run = (original / "zarr.json").read_bytes(), dict(parts_of(original)), copy_of(original)
    for seed in range(rounds(10, among=len(MUTATIONS))):
        for part in ("zarr.json", "checksums"):  # which sealing writes anew
            where = run / part
            for file in where.glob("c.*") if where.is_dir() else [where]:
                file.write_bytes((original / file.relative_to(run)).read_bytes())
        draw, root = random.Random(f"{what} {seed}"), json.loads(text)
        MUTATIONS[what](places(root), draw, places(json.loads((foreign / "zarr.json").read_bytes())))
        (run / "zarr.json").write_text(json.dumps(root))
        sealed = seed % 2 == 0
        if sealed:
            try:
                seal(run)
            except Exception:  # of what cannot even be walked through
                sealed = False
        came = "harmless"
        try:
            opened, found = open_run(run), dict(parts_of(run))
            assert opened.provenance is not None
            assert len(opened.metrics) == len(opened)
            if not (sealed or found == truth):
                came = "wrong"
        except (StoreError, FileNotFoundError) as error:
            came = "found" if "\n" not in str(error) else "wrong"
        except Exception as error:
            tally["a root is changed", what, "wrong"] += 1
            raise AssertionError(f"{what}, seed {seed}: {type(error).__name__}: {error}") from error
        tally["a root is changed", what, came] += 1
        assert came != "wrong", f"{what}, seed {seed}"
