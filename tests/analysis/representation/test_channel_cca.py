"""Channels over places that are averaged to the smaller size, where `test_similarity` does not come."""

import numpy as np
import pytest

from fmcluster.analysis.metrics import pwcca
from fmcluster.analysis.representation._channel_cca import compare_positions


def maps(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, *shape)).astype(np.float32)


@pytest.mark.parametrize("metric", ["svcca", "pwcca"])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 77.7, -1e-3])
def test_averages_of_a_constant_over_unlike_many_places_are_constant(metric, value, vectors_of) -> None:
    """Of 8 places in a row, the three averages are over 3, 4 and 3: their rounding is no variance."""
    constant = vectors_of(np.full((1, 30, 2, 8, 8), value, np.float32), "sample")
    other = vectors_of(maps(0, 30, 3, 3, 3), "sample")
    found = compare_positions((constant, other), metric=metric, n_directions=None, max_bytes=1 << 20)
    assert np.isnan(found).all()


def test_a_constant_channel_beside_others_is_no_direction(vectors_of) -> None:
    first, second = maps(1, 40, 3, 8, 8), maps(2, 40, 4, 3, 3)
    second[:, :, 0] += first[:, :, 0, :3, :3]
    beside = first.copy()
    beside[:, :, 2] = 0.1
    options = {"metric": "pwcca", "n_directions": None, "max_bytes": 1 << 20}
    found = compare_positions((vectors_of(beside, "sample"), vectors_of(second, "sample")), **options)
    without = compare_positions((vectors_of(beside[:, :, :2], "sample"), vectors_of(second, "sample")), **options)
    np.testing.assert_allclose(found, without, rtol=1e-9)


def test_each_axis_is_averaged_to_its_own_smaller_size(vectors_of) -> None:
    """6 x 2 and 3 x 4 places: 3 x 2 are compared."""
    first, second = maps(3, 20, 3, 6, 2), maps(4, 20, 2, 3, 4)
    second[0, :, 0] += first[0, :, 1, ::2].repeat(2, axis=2)
    found = compare_positions(
        (vectors_of(first, "sample"), vectors_of(second, "sample")),
        metric="pwcca",
        n_directions=None,
        max_bytes=1 << 20,
    )
    a = first[0].reshape(20, 3, 3, 2, 2).mean(axis=3)
    b = second[0].reshape(20, 2, 3, 2, 2).mean(axis=4)
    a, b = (each.transpose(0, 2, 3, 1).reshape(-1, each.shape[1]) for each in (a, b))
    assert found == pytest.approx((pwcca(a, b), pwcca(b, a)), abs=1e-6)
