"""Measures of a layer: the noise floor of two halves of its channels, against every half summed by itself."""

import numpy as np
import pytest

from fmcluster.analysis._cka import flatten_kernel
from fmcluster.analysis.diagnosis._measures import _noise_floor
from fmcluster.analysis.diagnosis._separation import halves


def grams_of(n_samples, n_groups):
    rng = np.random.default_rng(n_samples)
    shared = rng.standard_normal((n_samples, 20))
    found = []
    for _ in range(n_groups):
        values = 0.3 * shared @ rng.standard_normal((20, 30)) + rng.standard_normal((n_samples, 30))
        values -= values.mean(axis=0)
        found.append(values @ values.T)
    return np.array(found)


@pytest.mark.parametrize("n_samples", [4, 40, 200])
@pytest.mark.parametrize("n_groups", [2, 8])
def test_the_noise_floor_is_the_mean_debiased_cka_of_all_halves(n_samples, n_groups):
    grams = grams_of(n_samples, n_groups)
    pairs = [
        [flatten_kernel(grams[half].sum(axis=0), debiased=True) for half in halves_of] for halves_of in halves(n_groups)
    ]
    expected = np.mean([one @ other for one, other in pairs])
    assert _noise_floor(grams) == pytest.approx(expected, abs=1e-12)


def test_halves_that_tell_images_alike_agree_in_nothing_and_without_groups_there_is_no_noise_floor():
    assert _noise_floor(np.ones((4, 10, 10))) == 0
    assert np.isnan(_noise_floor(np.zeros((0, 10, 10))))
