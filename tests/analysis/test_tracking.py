"""Who stays and who moves, by hand and by permutation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmcluster.analysis import Clusters, track


def clusters_of(labels: list[list[int]] | np.ndarray, *, fit: str = "pooled") -> Clusters:
    labels = np.asarray(labels)
    count, per = labels.shape
    snapshot = np.repeat(np.arange(count), per)
    rows = pd.DataFrame(
        {"snapshot": snapshot, "epoch": snapshot, "step": 10 * snapshot, "channel": np.tile(np.arange(per), count)}
    )
    return Clusters(rows, "conv", "channel", fit, labels.ravel(), "ByHand")


def test_by_hand():
    history = track(clusters_of([[0, 0, 1, 1, 2], [0, 1, 1, 1, 2], [3, 1, 1, 1, 3]]))
    assert history.steps["stayed"].tolist() == [4, 3]
    assert history.steps["n_rows"].tolist() == [5, 5]
    assert history.steps["churn"].tolist() == pytest.approx([1 / 5, 2 / 5])
    first = history.flow[history.flow["from_snapshot"] == 0]
    flows = {(row.from_cluster, row.to_cluster): row.count for row in first.itertuples(index=False)}
    assert {
        key: int(first[(first["from_cluster"] == key[0]) & (first["to_cluster"] == key[1])]["count"].iloc[0])
        for key in flows
    } == {(0, 0): 1, (0, 1): 1, (1, 1): 2, (2, 2): 1}
    moved = history.frame[history.frame["moved"]]
    assert moved[["from_snapshot", "channel", "from_cluster", "to_cluster"]].to_numpy().tolist() == [
        [0, 1, 0, 1],
        [1, 0, 0, 3],
        [1, 4, 2, 3],
    ]
    assert history.sizes.to_numpy().tolist() == [[2, 2, 1, 0], [1, 3, 1, 0], [0, 3, 0, 2]]
    lives = history.lives.set_index("cluster")
    assert lives["born"].to_dict() == {0: 0, 1: 0, 2: 0, 3: 2}
    assert lives["died"].isna().to_dict() == {0: False, 1: True, 2: False, 3: True}
    assert lives.loc[[0, 2], "died"].tolist() == [1, 1]


def test_noise_neither_stays_nor_moves():
    history = track(clusters_of([[0, -1, -1, 0], [-1, 0, -1, 0]]))
    assert not history.frame["moved"].any()
    assert history.steps[["n_rows", "stayed"]].to_numpy().tolist() == [[1, 1]]
    assert history.steps["churn"].tolist() == [0]
    assert list(history.sizes.columns) == [-1, 0]
    assert history.lives["cluster"].tolist() == [0]


def test_all_noise_has_no_churn():
    history = track(clusters_of([[-1, -1], [-1, -1]]))
    assert history.steps["churn"].isna().all()
    assert history.lives.empty


def test_one_snapshot_has_no_steps():
    history = track(clusters_of([[0, 1, 1]]))
    assert len(history.frame) == len(history.flow) == len(history.steps) == 0
    assert history.sizes.to_numpy().tolist() == [[1, 2]]


def test_labels_that_mean_something_else_in_each_snapshot_are_refused():
    with pytest.raises(ValueError, match="fitted on 'each'"):
        track(clusters_of([[0, 1], [1, 0]], fit="each"))


@given(
    labels=st.tuples(st.integers(1, 5), st.integers(1, 8)).flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.integers(-1, 3))
    ),
    names=st.permutations([0, 1, 2, 3]),
)
def test_renaming_clusters_changes_names_only(labels, names):
    renamed = np.where(labels < 0, -1, np.array(names)[labels])
    one, other = track(clusters_of(labels)), track(clusters_of(renamed))
    pd.testing.assert_frame_equal(one.steps, other.steps)
    pd.testing.assert_series_equal(one.frame["moved"], other.frame["moved"])
    assert sorted(one.flow["count"]) == sorted(other.flow["count"])


@given(
    labels=st.tuples(st.integers(2, 5), st.integers(1, 8)).flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.integers(-1, 3))
    )
)
def test_flow_adds_up_to_the_sizes(labels):
    history = track(clusters_of(labels))
    for snapshot in range(len(labels) - 1):
        step = history.flow[history.flow["from_snapshot"] == snapshot]
        leaving = step.groupby("from_cluster")["count"].sum()
        arriving = step.groupby("to_cluster")["count"].sum()
        for cluster, size in history.sizes.loc[snapshot].items():
            assert leaving.get(cluster, 0) == size
        for cluster, size in history.sizes.loc[snapshot + 1].items():
            assert arriving.get(cluster, 0) == size
