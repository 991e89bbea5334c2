"""Compiled functions: they give what they give in Python."""

import numpy as np

from fmcluster.vectors import compiled


def add_squares(values):
    total = 0.0
    for value in values:
        total += value * value
    return total


def test_a_compiled_loop_is_the_loop():
    values = np.arange(10.0)
    assert compiled()(add_squares)(values) == add_squares(values) == 285


def test_what_cannot_be_kept_on_a_disk_is_compiled_all_the_same():
    made: dict[str, object] = {}
    exec("def twice(value):\n    return 2 * value", made)  # of no file
    assert compiled()(made["twice"])(21) == 42
