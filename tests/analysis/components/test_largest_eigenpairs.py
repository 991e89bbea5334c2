"""Largest eigenpairs against the full decomposition, also where Lanczos' method misses copies or does not end."""

import numpy as np
import pytest

from fmcluster.analysis.components import _largest_eigenpairs
from fmcluster.analysis.components._largest_eigenpairs import largest_eigenpairs

SIDE, COUNT = 400, 20


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    monkeypatch.setattr(_largest_eigenpairs, "_LARGE", 100)


def with_spectrum(values: np.ndarray) -> np.ndarray:
    turned = np.linalg.qr(np.random.default_rng(1).standard_normal((SIDE, SIDE)))[0]
    matrix = (turned * values) @ turned.T
    return (matrix + matrix.T) / 2


def rows(rank: int, *, dead: slice = slice(0), copies: int = 0) -> np.ndarray:
    values = np.random.default_rng(2).standard_normal((SIDE, rank))
    values[dead] = 0
    values[SIDE - copies :] = values[:copies]
    return values @ values.T


falling = 1.0 / (1 + np.arange(SIDE))
MATRICES = {
    "falling slowly": with_spectrum(falling),
    "falling fast": with_spectrum(np.exp(-np.arange(SIDE) / 2)),
    "noise": rows(5000),
    "one value thirty times": with_spectrum(np.where(np.arange(SIDE) < 30, 5.0, 1.0)),
    "two values, twelve times each": with_spectrum(np.repeat([3.0, 1.0, 0.0], [12, 12, SIDE - 24])),
    "all equal": np.eye(SIDE),
    "nothing": np.zeros((SIDE, SIDE)),
    "of rank three": rows(3),
    "of rank thirty": rows(30),
    "with dead rows": rows(900, dead=slice(100, 200)),
    "with rows twice": rows(900, copies=90),
    "very large": 1e60 * rows(900),
    "very small": 1e-60 * rows(900),
}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_they_are_those_of_the_full_decomposition(matrix):
    expected = np.linalg.eigvalsh(matrix)[::-1][:COUNT]
    values, vectors = largest_eigenpairs(matrix.copy(), COUNT)
    size = np.abs(expected).max() or 1.0
    np.testing.assert_allclose(values / size, expected / size, atol=1e-10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(COUNT), atol=1e-10)
    np.testing.assert_allclose((matrix @ vectors - vectors * values) / size, 0, atol=1e-10)


def test_a_large_matrix_is_not_decomposed_where_few_are_wanted(monkeypatch):
    monkeypatch.setattr(_largest_eigenpairs, "eigh", None)
    largest_eigenpairs(MATRICES["falling slowly"].copy(), COUNT)
    with pytest.raises(TypeError):
        largest_eigenpairs(MATRICES["falling slowly"].copy(), SIDE // 10)


def test_the_same_twice():
    first, second = (largest_eigenpairs(MATRICES["of rank thirty"].copy(), COUNT) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_lanczos_misses_is_found(monkeypatch):
    """Its answer is not taken where a copy of a larger eigenvalue is missing."""
    matrix = MATRICES["falling slowly"]
    values, vectors = np.linalg.eigh(matrix)
    some = np.r_[0:5, 6 : COUNT + 1]  # not the sixth

    def misses(times, side, count, *, tolerance=0):
        if count == 1:
            return whole(times, side, count, tolerance=tolerance)
        return values[::-1][some] / np.diagonal(matrix).max(), vectors[:, ::-1][:, some]

    whole = _largest_eigenpairs._lanczos
    monkeypatch.setattr(_largest_eigenpairs, "_lanczos", misses)
    np.testing.assert_allclose(largest_eigenpairs(matrix.copy(), COUNT)[0], falling[:COUNT], atol=1e-10)
