"""The exact gradient of t-SNE's loss, against openTSNE's tree at no tolerance and the loss by the book."""

import numpy as np
import pytest
from openTSNE.tsne import kl_divergence_bh
from scipy import sparse
from scipy.spatial.distance import pdist, squareform

from fmcluster.analysis.embedding._exact_gradient import attract, exact_gradient


def task(n_rows):
    rng = np.random.default_rng(n_rows)
    shares = rng.random((n_rows, n_rows)) * (rng.random((n_rows, n_rows)) < 0.5)
    np.fill_diagonal(shares, 0)
    shares += shares.T
    return 3 * rng.standard_normal((n_rows, 2)), sparse.csr_matrix(shares / shares.sum())


def divergence(positions, affinities):
    similar = 1 / (1 + squareform(pdist(positions, "sqeuclidean")))
    np.fill_diagonal(similar, 0)
    shares = affinities.toarray()
    known = shares > 0
    return float((shares[known] * np.log(shares[known] / (similar / similar.sum())[known])).sum())


@pytest.mark.parametrize("n_rows", [3, 20, 90])
def test_it_is_that_of_the_loss_by_the_book_and_of_opentsne(n_rows):
    positions, affinities = task(n_rows)
    value, gradient = exact_gradient(positions, affinities, error=True)
    assert value == pytest.approx(divergence(positions, affinities))
    of_tree, slope = kl_divergence_bh(positions, affinities, 1, {"theta": 0.0}, should_eval_error=True)
    assert value == pytest.approx(of_tree)
    np.testing.assert_allclose(gradient, 4 * slope, rtol=1e-5, atol=1e-8)  # repulsion is in float32
    step = np.zeros_like(positions)
    step[1, 0] = 1e-6
    change = divergence(positions + step, affinities) - divergence(positions - step, affinities)
    assert gradient[1, 0] == pytest.approx(change / 2e-6, rel=1e-4, abs=1e-8)
    assert exact_gradient(positions, affinities, error=False)[0] == 0


def test_rows_at_one_position_do_not_move_one_another():
    _, affinities = task(5)
    _, gradient = exact_gradient(np.ones((5, 2)), affinities, error=False)
    np.testing.assert_array_equal(gradient, 0)


def test_what_attracts_alone_is_the_gradient_of_how_far_linked_rows_are():
    """Attraction is the slope of the sum of ``p log(1 + d**2)`` over all pairs."""
    positions, affinities = task(30)
    pulls = affinities.toarray() / (1 + squareform(pdist(positions, "sqeuclidean")))
    expected = 4 * (pulls.sum(axis=1)[:, None] * positions - pulls @ positions)
    np.testing.assert_allclose(attract(positions, affinities), expected, rtol=1e-10, atol=1e-14)
