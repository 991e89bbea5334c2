"""Drawn positions: which they are, what is read of them, and how far what they say may be off."""

import numpy as np
import pytest

from fmcluster.vectors import DrawnPositions, Vectors, draw_positions
from tests.analysis.array_source import ArraySource

MAPS = np.random.default_rng(0).normal(size=(3, 5, 4, 6, 7)).astype(np.float32)


def test_they_are_others_for_each_image_and_the_same_for_every_channel_and_snapshot():
    drawn = DrawnPositions(ArraySource(MAPS), 9, 1)
    at = [drawn.of_sample(sample) for sample in range(5)]
    assert all(len(set(each.tolist())) == 9 and (np.diff(each) > 0).all() and each.max() < 42 for each in at)
    assert len({tuple(each) for each in at}) == 5
    for snapshot in range(3):
        found = drawn.read_feature_maps(
            snapshot=snapshot, samples=np.array([3, 0]), channels=slice(1, 4), rows=slice(None)
        )
        expected = [MAPS[snapshot, sample, 1:4].reshape(3, -1)[:, at[sample]] for sample in (3, 0)]
        np.testing.assert_array_equal(found, np.stack(expected)[:, :, None])
    other = DrawnPositions(ArraySource(MAPS), 9, 2)
    assert any((other.of_sample(sample) != at[sample]).any() for sample in range(5))


def test_vectors_of_them_are_the_features_that_were_drawn_whatever_the_blocks():
    source = DrawnPositions(ArraySource(MAPS), 9, 0)
    vectors = Vectors(source, "channel", (0, 2), np.arange(5))
    assert vectors.shape == (8, 45)
    whole = MAPS[[0, 2]].transpose(0, 2, 1, 3, 4).reshape(8, 5, 42)
    expected = np.concatenate([whole[:, sample, source.of_sample(sample)] for sample in range(5)], axis=1)
    np.testing.assert_array_equal(vectors.to_numpy(), expected)
    for max_bytes in (1, 300, 1 << 20):
        found = np.concatenate(list(vectors.feature_blocks(max_bytes=max_bytes)), axis=1)
        np.testing.assert_array_equal(found, expected)


def test_where_there_are_no_more_all_are_taken_and_of_other_views_none_are_drawn():
    source = ArraySource(MAPS)
    assert draw_positions(source, "channel", n_positions=42, random_state=0) is source
    assert draw_positions(source, "sample", n_positions=None, random_state=0) is source
    for view in ("sample", "position", "feature_map"):
        with pytest.raises(ValueError, match=f"view is '{view}'; positions are drawn of the channel view"):
            draw_positions(source, view, n_positions=4, random_state=0)
    with pytest.raises(ValueError, match="n_positions is 0; expected at least 1"):
        draw_positions(source, "channel", n_positions=0, random_state=0)


def test_correlations_are_off_by_the_standard_error_that_is_stated():
    """The error over many draws is ``(1 - r**2) / sqrt(N)``, less what drawing without putting back saves."""
    rng = np.random.default_rng(1)
    first, own = rng.normal(size=(2, 20, 1, 30, 30))
    for share in (0.0, 0.6, 0.95):
        maps = np.concatenate([first, share * first + np.sqrt(1 - share**2) * own], axis=1)[None].astype(np.float32)
        true = np.corrcoef(maps[0].transpose(1, 0, 2, 3).reshape(2, -1))[0, 1]
        found = []
        for seed in range(60):
            rows = Vectors(DrawnPositions(ArraySource(maps), 40, seed), "channel", (0,), np.arange(20)).to_numpy()
            found.append(np.corrcoef(rows)[0, 1])
        stated = (1 - true**2) / np.sqrt(20 * 40)
        assert abs(np.mean(found) - true) < stated
        assert 0.7 * stated < np.std(found) < 1.25 * stated
