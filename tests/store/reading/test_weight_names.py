"""Names of weights as wrappers write them, and as the model itself does."""

import pytest

from fmcluster.store.reading._weight_names import prefixes_before, without_wrapped_parts


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.weight", "b"], [""]),
        (["module.a.weight", "module.b"], ["module."]),
        (["student.b", "teacher.b", "sub"], ["student.", "teacher."]),
        (["a.weight"], []),
    ],
)
def test_prefixes_are_those_before_the_shortest_name(names, expected):
    assert prefixes_before(names, ["a.weight", "b"]) == expected


def test_parts_that_are_wrapped_keep_their_names():
    wrapped = "_fsdp_wrapped_module.a._orig_mod._checkpoint_wrapped_module.weight"
    assert without_wrapped_parts(wrapped) == "a.weight"
    assert without_wrapped_parts("a.weight") == "a.weight"
