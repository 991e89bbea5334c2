"""Names of clusters that were found apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmcluster.analysis.clustering._matching import name_by_members, name_in_turn, shared_members


def test_members_in_common_by_hand():
    names, others, table = shared_members(np.array([7, 7, -1, 3, 3, 3]), np.array([0, 2, 2, 2, 2, -1]))
    assert names.tolist() == [7, 3]
    assert others.tolist() == [0, 2]
    assert table.tolist() == [[1, 1], [0, 2]]


def test_the_most_rows_keep_their_name():
    """Cluster 5 shares most with 0, but all in all more rows keep their name if it is called 1."""
    before = np.array([0] * 5 + [1] * 4 + [0] * 4)
    after = np.array([5] * 9 + [6] * 4)
    assert name_by_members(before, after, unused=2).tolist() == [1] * 9 + [0] * 4


def test_what_shares_no_member_shares_no_name():
    """A cluster that comes out of noise is no successor of one that went into it."""
    labels = np.array([[0, 0, 1, 1, -1, -1], [0, 0, -1, -1, 1, 1]])
    assert name_in_turn(labels).tolist() == [[0, 0, 1, 1, -1, -1], [0, 0, -1, -1, 2, 2]]


@pytest.mark.parametrize("halves", [[0, 0, 1, 1], [1, 1, 0, 0], [9, 9, 4, 4]])
def test_a_tie_does_not_depend_on_the_names(halves):
    assert name_in_turn(np.array([[0, 0, 0, 0], halves])).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]


def test_noise_only():
    assert name_in_turn(np.array([[-1, -1], [-1, -1], [3, -1]])).tolist() == [[-1, -1], [-1, -1], [0, -1]]


@settings(deadline=None)
@given(labels=arrays(np.int64, (3, 10), elements=st.integers(-1, 4)))
def test_naming_changes_names_only_and_changes_nothing_twice(labels):
    named = name_in_turn(labels)
    assert (named[0] == labels[0]).all()
    assert ((named == -1) == (labels == -1)).all()
    for row, before in zip(named, labels, strict=True):
        assert (
            len(set(zip(row.tolist(), before.tolist(), strict=True))) == len(np.unique(before)) == len(np.unique(row))
        )
    assert (name_in_turn(named) == named).all()
