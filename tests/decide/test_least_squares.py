"""Least squares, against NumPy's."""

import numpy as np
import pytest
import torch
from torch import nn

from fmcluster.capture import kernel_geometry
from fmcluster.decide._least_squares import kernel_patches, order_by_redundancy, predict_from_others, solve


def rows(n_channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(400, n_channels)) @ rng.normal(size=(n_channels, n_channels)) + rng.normal(size=n_channels)


def test_solve_is_the_least_norm_solution_of_a_singular_system() -> None:
    rng = np.random.default_rng(1)
    design = np.column_stack([first := rng.normal(size=(50, 3)), first[:, 0]])  # the last column is the first again
    target = rng.normal(size=(50, 2))
    found = solve(torch.from_numpy(design.T @ design), torch.from_numpy(design.T @ target))
    np.testing.assert_allclose(found, np.linalg.lstsq(design, target, rcond=None)[0], atol=1e-8)


def test_channels_are_predicted_as_least_squares_with_a_constant_would() -> None:
    values, removed = rows(6), [1, 4]
    kept, weights, constant = predict_from_others(
        torch.from_numpy(values.mean(0)), torch.from_numpy(np.cov(values.T, bias=True)), removed=torch.tensor(removed)
    )
    assert kept.tolist() == [0, 2, 3, 5]
    design = np.column_stack([values[:, kept], np.ones(len(values))])
    expected = design @ np.linalg.lstsq(design, values[:, removed], rcond=None)[0]
    np.testing.assert_allclose(values[:, kept] @ weights.T.numpy() + constant.numpy(), expected, atol=1e-3)


def test_the_order_is_that_of_a_greedy_search_by_regression() -> None:
    values = rows(7)
    importance = np.linspace(1, 2, 7)
    left, order = list(range(7)), []
    while len(left) > 1:
        costs = []
        for channel in left:
            others = np.column_stack([values[:, [c for c in left if c != channel]], np.ones(len(values))])
            fit = others @ np.linalg.lstsq(others, values[:, channel], rcond=None)[0]
            costs.append(importance[channel] * np.mean((fit - values[:, channel]) ** 2))
        order.append(left.pop(int(np.argmin(costs))))
    found = order_by_redundancy(torch.from_numpy(np.cov(values.T, bias=True)), torch.from_numpy(importance))
    assert found.tolist() == [*order, *left]


def test_patches_times_weights_are_what_a_grouped_convolution_returns() -> None:
    module = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, bias=False)
    images = torch.randn(3, 4, 7, 6, generator=torch.Generator().manual_seed(0))
    expected = module(images).detach()
    patches = kernel_patches(images, kernel_geometry(module))
    weights = module.weight.detach().flatten(1).unflatten(0, (2, 3))
    found = torch.einsum("gnpk,gok->ngop", patches, weights).flatten(1, 2).reshape(expected.shape)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_rows", [20, 100, 400])
def test_solve_is_the_least_norm_solution_of_any_rank(n_rows: int) -> None:
    rng = np.random.default_rng(2)
    design, target = rng.normal(size=(n_rows, 120)), rng.normal(size=(n_rows, 3))
    design[:, [5, 60]] = 0  # channels that are dead
    found = solve(torch.from_numpy(design.T @ design), torch.from_numpy(design.T @ target))
    np.testing.assert_allclose(found, np.linalg.lstsq(design, target, rcond=None)[0], atol=1e-8)


def test_solve_takes_what_is_small_beyond_all_else_for_zero() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1e-12, 4.0], dtype=torch.float64))
    assert solve(matrix, torch.ones(3, 1, dtype=torch.float64)).flatten().tolist() == [1.0, 0.0, 0.25]
    assert solve(matrix * 0, torch.ones(3, 1, dtype=torch.float64)).flatten().tolist() == [0.0, 0.0, 0.0]
