"""Views: which axes are rows, which are features."""

import numpy as np

from fmcluster.vectors._vectors import make_vectors
from tests.vectors.test_vectors import Maps


def test_the_named_views_are_what_the_design_says() -> None:
    maps = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    source = Maps(maps[None])
    shapes = {"channel": (3, 40), "feature_map": (6, 20), "sample": (2, 60), "position": (40, 3)}
    for view, shape in shapes.items():
        vectors = make_vectors(
            source, view, snapshots=[0], samples=np.arange(2), n_rows=None, scaling="none", random_state=0
        )
        assert vectors.to_numpy().shape == shape
    by_hand = {
        "channel": [maps[:, c].ravel() for c in range(3)],
        "feature_map": [maps[n, c].ravel() for n in range(2) for c in range(3)],
        "sample": [maps[n].ravel() for n in range(2)],
        "position": [maps[n, :, y, x] for n in range(2) for y in range(4) for x in range(5)],
    }
    for view, rows in by_hand.items():
        vectors = make_vectors(
            source, view, snapshots=[0], samples=np.arange(2), n_rows=None, scaling="none", random_state=0
        )
        np.testing.assert_array_equal(vectors.to_numpy(), rows)
        ids = {
            "channel": ["channel"],
            "feature_map": ["sample", "channel"],
            "sample": ["sample"],
            "position": ["sample", "y", "x"],
        }
        assert vectors.rows.columns.tolist() == ["snapshot", "epoch", "step", *ids[view]]
