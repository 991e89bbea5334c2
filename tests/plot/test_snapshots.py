import pandas as pd
import pytest

from fmcluster.plot.drawing._snapshots import brief, find_snapshot, snapshot_table, snapshot_titles, span


def table(epochs, steps):
    return pd.DataFrame({"snapshot": range(len(epochs)), "epoch": epochs, "step": steps})


def test_steps_are_named_only_where_an_epoch_has_several():
    assert snapshot_titles(table([0, 1, 1], [0, 4, 8])) == ["epoch 0", "epoch 1, step 4", "epoch 1, step 8"]


@pytest.mark.parametrize("steps", [[None, None], [float("nan"), 3], [-1, -1]])
def test_without_steps_snapshots_are_numbered(steps):
    assert snapshot_titles(table([1, 1], steps)) == ["epoch 1, snapshot 0", "epoch 1, snapshot 1"]


def test_table_of_rows_is_in_order():
    rows = pd.DataFrame({"snapshot": [2, 0, 2, 0], "epoch": [5, 1, 5, 1], "step": [9, 1, 9, 1], "channel": range(4)})
    assert snapshot_table(rows).to_numpy().tolist() == [[0, 1, 1], [2, 5, 9]]


def test_epoch_is_its_last_snapshot():
    assert find_snapshot(table([0, 1, 1, 2], [0, 1, 2, 3]), epoch=1, snapshot=None) == 2
    assert find_snapshot(table([0, 1, 1, 2], [0, 1, 2, 3]), epoch=None, snapshot=None) == 3


def test_span():
    assert span(table([3], [7])) == "epoch 3"
    assert span(table([3, 3], [7, 8])) == "2 snapshots, epoch 3"
    assert span(table([0, 3], [0, 8])) == "2 snapshots, epoch 0 to 3"


@pytest.mark.parametrize("at_most", [2, 5, 16])
def test_brief_keeps_both_ends(at_most):
    for count in range(1, 60):
        chosen = brief(count, at_most=at_most)
        assert len(chosen) <= at_most
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        assert chosen == sorted(set(chosen))
        if count <= at_most:
            assert chosen == list(range(count))
