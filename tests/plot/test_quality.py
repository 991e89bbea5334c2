import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from fmcluster.analysis._results import Clusters, Scores
from fmcluster.analysis.clustering._quality import quality as measure
from fmcluster.plot._quality import quality


@pytest.fixture(scope="module")
def found(drifting):
    """Return the quality of clusters of 40 samples, a quarter of them noise in the last snapshot."""
    return measured(drifting, classes=True)


def measured(drifting, *, classes=False, labels=None, count=9):
    embedding, clusters, _ = drifting(40, n_clusters=3, count=count)
    rows = clusters.rows.rename(columns={"channel": "sample"})
    about = {"rows": rows, "layer": "layer4", "view": "sample", "fit": "pooled"}
    if labels is None:
        labels = clusters.labels.copy()
        labels[-10:] = -1
    scores = Scores(
        **about,
        values=embedding.values,
        singular_values=np.ones(2),
        total_variance=2.0,
        n_features=2,
        method="gram",
    )
    named = {sample: sample % 3 for sample in range(40)} if classes else None
    return measure(Clusters(**about, labels=labels, method="HDBSCAN"), scores, classes=named)


def curve(ax, gid):
    (one,) = [line for line in ax.lines if line.get_gid() == gid]
    return one


def test_the_silhouette_of_each_snapshot_is_drawn(found):
    ax = quality(found)
    line = curve(ax, "silhouette")
    assert line.get_xdata().tolist() == list(range(9))
    np.testing.assert_array_equal(line.get_ydata(), found.frame["silhouette"])
    assert ax.get_title(loc="left") == "layer4: sample view, silhouette of the clusters of HDBSCAN"
    assert ax.get_ylabel() == "silhouette (from -1 to 1, high is good)"
    assert [tick.get_text() for tick in ax.get_xticklabels()][:2] == ["epoch 0", "epoch 1\nstep 2"]
    null = curve(ax, "silhouette_null")
    np.testing.assert_array_equal(null.get_ydata(), found.frame["silhouette_null"])
    assert (line.get_linestyle(), null.get_linestyle()) == ("-", "--")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["silhouette", "null: labels permuted"]


def test_the_chance_of_the_neighbors_is_dashed_beside_their_accuracy(found):
    ax = quality(found, measures=["knn_accuracy"])
    accuracy, chance = curve(ax, "knn_accuracy"), curve(ax, "knn_chance")
    np.testing.assert_array_equal(accuracy.get_ydata(), found.frame["knn_accuracy"])
    np.testing.assert_array_equal(chance.get_ydata(), found.frame["knn_chance"])
    assert (accuracy.get_linestyle(), chance.get_linestyle()) == ("-", "--")
    assert ax.get_title(loc="left") == "layer4: sample view, neighbors' accuracy"
    assert to_hex(accuracy.get_color()) == to_hex(chance.get_color())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["neighbors' accuracy", "their chance"]


def test_measures_that_go_together_differ_in_color_and_marker(found):
    names = ["silhouette", "nmi", "ami", "purity", "knn_accuracy", "noise"]
    ax = quality(found, measures=names)
    curves = [curve(ax, name) for name in names]
    for name, line in zip(names, curves, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), found.frame[name])
    assert len({to_hex(line.get_color()) for line in curves}) == 6
    assert len({line.get_marker() for line in curves}) == 6
    assert len(ax.get_legend().get_texts()) == 8


def test_a_measure_asked_for_twice_is_drawn_once(found):
    assert len(quality(found, measures=["ami", "ami"]).lines) == len(quality(found, measures=["ami"]).lines)


@pytest.mark.parametrize("name", ["davies_bouldin", "calinski_harabasz"])
def test_a_measure_with_its_own_scale_is_drawn_alone(name, found):
    ax = quality(found, measures=[name])
    np.testing.assert_array_equal(curve(ax, name).get_ydata(), found.frame[name])
    assert ax.get_ylim()[1] >= found.frame[name].max()
    with pytest.raises(ValueError, match=rf"expected '{name}', which has a scale of its own, alone: draw it on other"):
        quality(found, measures=["silhouette", name])


def test_noise_is_told_where_it_is_left_out(found, drifting):
    assert "0% to 25% of the rows are noise" in quality(found).get_xlabel()
    assert quality(found, measures=["knn_accuracy"]).get_xlabel() == "snapshot"
    whole = measured(drifting, labels=drifting(40, n_clusters=3)[1].labels)
    assert quality(whole).get_xlabel() == "snapshot"


def test_below_zero_is_in_sight_with_a_line_at_zero(drifting):
    wrong = np.tile(np.arange(40) % 3, 9)
    found = measured(drifting, labels=wrong)
    assert found.frame["silhouette"].min() < 0
    ax = quality(found)
    assert ax.get_ylim()[0] < found.frame["silhouette"].min()
    assert [line.get_ydata()[0] for line in ax.lines if line.get_gid() is None] == [0]


def test_a_curve_is_broken_where_the_measure_is_not_defined(drifting):
    labels = drifting(40, n_clusters=3)[1].labels.copy()
    labels[80:120] = 0
    line = curve(quality(measured(drifting, labels=labels)), "silhouette")
    assert np.flatnonzero(np.isnan(line.get_ydata())).tolist() == [2]


def test_one_snapshot_is_a_point(drifting):
    found = measured(drifting, count=1)
    np.testing.assert_array_equal(curve(quality(found), "silhouette").get_ydata(), found.frame["silhouette"])


def test_measures_that_are_not_there_are_refused(found, drifting):
    with pytest.raises(ValueError, match=r"received the measure 'dunn'; expected one of 'silhouette', .*: choose one"):
        quality(found, measures=["dunn"])
    with pytest.raises(ValueError, match="received no measures; expected one or more"):
        quality(found, measures=[])
    with pytest.raises(TypeError, match=r"received measures='ami'; expected a sequence of names: measures=\['ami'\]"):
        quality(found, measures="ami")
    with pytest.raises(ValueError, match=r"'ami', which has no value at any snapshot; .*pass classes to quality\(\)"):
        quality(measured(drifting), measures=["ami"])
    one = measured(drifting, labels=np.zeros(360, dtype=np.int64))
    with pytest.raises(ValueError, match=r"no value at any snapshot \(only one cluster\)"):
        quality(one)


def test_quality_on_given_axes(found):
    _, ax = plt.subplots()
    assert quality(found, ax=ax) is ax
