"""Actions: what they say of themselves, and which exclude one another."""

import itertools

import pytest

from fmcluster.decide import Action, MeasuredDamage
from fmcluster.decide._action import check_together, exclude, overlap

UNKNOWN = MeasuredDamage(0.0, 0.0, 0.0)


def action(kind: str, module: str, consumer: str = "") -> Action:
    return Action(kind, (module,), "what", UNKNOWN, consumer=consumer)


def test_what_stays_and_what_goes() -> None:
    narrow = Action("narrow", ("conv",), "3 of 5 channels removed", UNKNOWN, keep=(1, 4), width=5)
    assert narrow.removed == (0, 2, 3)
    assert str(narrow) == "narrow conv: 3 of 5 channels removed"
    assert str(Action("freeze", ("a", "b"), "from the start on", UNKNOWN)) == "freeze 2 modules: from the start on"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (action("kernel", "a"), action("separable", "a"), True),
        (action("kernel", "a"), action("kernel", "ab"), False),
        (action("narrow", "a", "b"), action("kernel", "a"), False),
        (action("narrow", "a", "b"), action("separable", "a"), False),
        (action("narrow", "a", "b"), action("groups", "a"), True),
        (action("narrow", "a", "b"), action("narrow", "a", "b"), True),
        (action("narrow", "a", "b"), action("narrow", "b", "c"), False),
        (action("narrow", "a", "b"), action("kernel", "b"), False),
        (action("narrow", "a", "b"), action("separable", "b"), True),
        (action("shorten", "block"), action("kernel", "block.conv"), True),
        (action("shorten", "block"), action("kernel", "block2"), False),
        (action("shorten", "b"), action("narrow", "a", "b"), True),
        (action("freeze", "a"), action("kernel", "a"), False),
        (action("freeze", "a"), action("shorten", "a"), False),
        (action("freeze", "a"), action("freeze", "a"), True),
    ],
)
def test_what_excludes_what(one: Action, other: Action, expected: bool) -> None:
    assert exclude(one, other) == exclude(other, one) == expected
    if expected:
        assert overlap(one, other)
        with pytest.raises(ValueError, match="cannot be built together"):
            check_together((one, action("kernel", "elsewhere"), other))
    else:
        check_together((one, other))


def test_savings_add_up_only_of_what_does_not_overlap() -> None:
    chain = [action("narrow", "a", "b"), action("narrow", "b", "c"), action("kernel", "c"), action("kernel", "d")]
    touching = {pair for pair in itertools.combinations(range(4), 2) if overlap(chain[pair[0]], chain[pair[1]])}
    assert touching == {(0, 1), (1, 2)}
