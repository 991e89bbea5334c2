"""Results: rows snapshot by snapshot, and what has to be of the same rows."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pytest

from fmcluster.analysis import NOISE, Clusters
from fmcluster.analysis._results import snapshot_of_epoch


def clusters_of(labels: list[list[int]], *, layer: str = "conv1") -> Clusters:
    count, size = np.shape(labels)
    rows = pd.DataFrame(
        {
            "snapshot": np.repeat(np.arange(count), size),
            "epoch": np.repeat(np.arange(count) // 2, size),
            "step": np.repeat(np.arange(count), size),
            "channel": np.tile(np.arange(size), count),
        }
    )
    return Clusters(rows=rows, layer=layer, view="channel", fit="pooled", labels=np.ravel(labels), method="By hand")


def test_values_go_by_snapshot():
    clusters = clusters_of([[0, 1, 1], [2, 0, NOISE]])
    assert clusters.n_snapshots == 2
    assert clusters.identity == ["channel"]
    assert clusters.by_snapshot(clusters.labels).tolist() == [[0, 1, 1], [2, 0, NOISE]]
    assert clusters.names == [0, 1, 2]
    assert clusters.frame["cluster"].tolist() == [0, 1, 1, 2, 0, NOISE]


def test_a_result_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        clusters_of([[0, 1]]).layer = "conv2"


def test_only_results_of_the_same_rows_in_the_same_order_go_together():
    clusters = clusters_of([[0, 1, 1], [2, 0, 1]])
    clusters.check_same_rows(clusters_of([[5, 5, 5], [5, 5, 5]]))
    for other in (
        clusters_of([[0, 1, 1]]),
        clusters_of([[0, 1, 1], [2, 0, 1]], layer="fc"),
        replace(clusters, rows=clusters.rows.iloc[::-1]),
        replace(clusters, view="sample"),
    ):
        with pytest.raises(ValueError, match="in the same order: make both from the same scores"):
            clusters.check_same_rows(other)


def test_an_epoch_means_its_last_snapshot():
    rows = clusters_of([[0, 0], [0, 0], [0, 0], [0, 0]]).rows
    assert [snapshot_of_epoch(rows, epoch) for epoch in (0, 1)] == [1, 3]
    with pytest.raises(ValueError, match="fit_epoch is 7; expected one of the epochs 0, 1"):
        snapshot_of_epoch(rows, 7)
