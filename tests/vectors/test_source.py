"""Source of vectors: any object with its members will do, whether or not it says what is decoded at once."""

import numpy as np

from fmcluster.vectors import RowPart, Source, make_vectors
from tests.analysis.array_source import ArraySource


def test_rows_are_read_from_what_says_no_more_than_it_has_to() -> None:
    maps = np.arange(2 * 3 * 4 * 2 * 2, dtype=np.float32).reshape(2, 3, 4, 2, 2)
    source: Source = ArraySource(maps)
    options = {"n_rows": None, "scaling": "none", "random_state": 0}
    vectors = make_vectors(source, "channel", snapshots=[0, 1], samples=np.arange(3), **options)
    parts = vectors.row_parts(max_bytes=100)
    assert all(isinstance(part, RowPart) for part in parts)
    found = np.concatenate([vectors.read_rows(part) for part in parts])
    np.testing.assert_array_equal(found, maps.transpose(0, 2, 1, 3, 4).reshape(8, -1))
    assert vectors.whole_feature_bytes == (0, 0)
