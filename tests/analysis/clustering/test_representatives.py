"""The member nearest to the mean of its cluster, against a plain loop in float64."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fmcluster.analysis._results import Clusters, Scores
from fmcluster.analysis.clustering._representatives import representatives


def results(values, labels, *, per, names=("channel",)):
    """Return scores and clusters of the rows given, snapshot after snapshot."""
    values, labels = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    snapshot = np.repeat(np.arange(len(labels) // per), per)
    rows = pd.DataFrame({"snapshot": snapshot, "epoch": snapshot, "step": 5 * snapshot})
    for name in names:
        rows[name] = 100 + np.arange(len(labels)) % per
    about = {"rows": rows, "layer": "conv1", "view": "channel", "fit": "pooled"}
    ones = np.ones(values.shape[1])
    scores = Scores(**about, values=values, singular_values=ones, total_variance=9.0, n_features=9, method="gram")
    return scores, Clusters(**about, labels=labels, method="KMeans")


def test_representatives_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(3 * 40, 7)), rng.integers(-1, 6, 3 * 40)
    labels[40:80][labels[40:80] == 2] = 3
    scores, clusters = results(values, labels, per=40)
    found = representatives(clusters, scores).set_index(["snapshot", "cluster"])
    expected = 0
    for snapshot in range(3):
        here, names = values[40 * snapshot :][:40], labels[40 * snapshot :][:40]
        for name in set(names.tolist()) - {-1}:
            members = [place for place in range(40) if names[place] == name]
            mean = sum(here[place] for place in members) / len(members)
            away = {place: float(np.sqrt(((here[place] - mean) ** 2).sum())) for place in members}
            nearest = min(away, key=away.get)
            row = found.loc[(snapshot, name)]
            assert (row["row"], row["channel"], row["members"]) == (nearest, 100 + nearest, len(members))
            assert row["distance"] == pytest.approx(away[nearest])
            expected += 1
    assert len(found) == expected == 17
    assert (1, 2) not in found.index


def test_columns_are_tidy_and_ties_go_to_the_first():
    scores, clusters = results([[0.0], [2.0], [5.0], [1.0]], [0, 0, -1, 4], per=4, names=("sample", "channel"))
    found = representatives(clusters, scores)
    assert found.columns.tolist() == [
        *("snapshot", "epoch", "step", "cluster", "members", "sample", "channel", "row", "distance"),
    ]
    assert found[["cluster", "members", "channel", "distance"]].to_numpy().tolist() == [[0, 2, 100, 1], [4, 1, 103, 0]]


def test_nothing_but_noise_has_no_representative():
    found = representatives(*reversed(results([[0.0], [1.0]], [-1, -1], per=2)))
    assert found.empty
    assert "channel" in found.columns


def test_what_does_not_fit_together_is_refused():
    scores, clusters = results([[0.0], [1.0]], [0, 0], per=2)
    with pytest.raises(TypeError, match="representatives received a str; expected Scores, made by pca"):
        representatives(clusters, "scores")
    with pytest.raises(TypeError, match="representatives received a Scores; expected Clusters"):
        representatives(scores, clusters)
    with pytest.raises(ValueError, match="received clusters of 2 rows of 'layer1', channel view; expected the 2 rows"):
        representatives(replace(clusters, layer="layer1"), scores)
