"""Norms of weights that come in parts and in any order."""

import numpy as np
import pytest

from fmcluster.capture.writing import WeightNorms
from fmcluster.capture.writing import _weight_norms as weight_norms
from fmcluster.store import WeightSpec


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64", "complex64"])
def test_squares_are_summed_in_float64(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_norms, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    values, before = (rng.integers(0, 200, (5, 8)).astype(dtype) for _ in range(2))
    wide, then = (each.astype(complex if dtype == "complex64" else float) for each in (values, before))
    assert weight_norms.sum_of_squares(values) == pytest.approx((abs(wide) ** 2).sum(), rel=1e-14)
    assert weight_norms.sum_of_squares(values, before) == pytest.approx((abs(wide - then) ** 2).sum(), rel=1e-14)


def test_parts_may_come_in_any_order() -> None:
    specs = [
        WeightSpec("a", (4,), "float32", "parameter", ("channel",)),
        WeightSpec("b", (0,), "float32", "buffer", ("channel",)),
    ]
    values = np.array([3, 4, 5, 6], np.float32)
    for order in ((0, 1), (1, 0)):
        norms = WeightNorms(specs)
        for part in order:
            box = slice(2 * part, 2 * part + 2)
            norms.add("a", part=(part,), values=values[box], before=None if part else values[box] - 1)
        norms.add_gradient("a", 7.0)
        found = norms.arrays(is_first=False)
        np.testing.assert_allclose(found["weight_norms/norm"], [np.linalg.norm(values), 0])
        np.testing.assert_array_equal(found["weight_norms/gradient_norm"], [7, np.nan])
        np.testing.assert_array_equal(found["weight_norms/update_norm"], [np.nan, 0])  # a part before was not there
        assert np.isnan(norms.arrays(is_first=True)["weight_norms/update_norm"]).all()
