"""Quality of clusters per snapshot, against scikit-learn called by hand and against plain loops."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.cluster import HDBSCAN, KMeans
from torch import nn
from torch.utils.data import TensorDataset

from fmcluster import Recorder, open_run
from fmcluster.analysis import Clusters, Scores, cluster, pca
from fmcluster.analysis.clustering._quality import Quality, quality

N_SNAPSHOTS, N_SAMPLES = 4, 40
SEPARATION = ["silhouette", "silhouette_null", "davies_bouldin", "calinski_harabasz"]
AGAINST_CLASSES = ["nmi", "ami", "purity", "knn_accuracy", "knn_chance"]


def scores_of(values: np.ndarray, *, names: np.ndarray | None = None, view: str = "sample") -> Scores:
    """Scores of shape (n_snapshots, n_rows, n_components), of the rows that are named."""
    count, size = values.shape[:2]
    names = np.arange(size) if names is None else names
    snapshot = np.repeat(np.arange(count), size)
    rows = pd.DataFrame(
        {"snapshot": snapshot, "epoch": snapshot // 2, "step": 7 * snapshot, view: np.tile(names, count)}
    )
    flat = values.reshape(count * size, -1).astype(np.float64)
    return Scores(
        rows=rows,
        layer="conv",
        view=view,
        fit="pooled",
        values=flat,
        singular_values=np.ones(flat.shape[1]),
        total_variance=1.0,
        n_features=flat.shape[1],
        method="gram",
    )


def clusters_of(scores: Scores, labels: object) -> Clusters:
    labels = np.asarray(labels, np.int64).ravel()
    return Clusters(rows=scores.rows, layer=scores.layer, view=scores.view, fit="pooled", labels=labels, method="Mine")


def same(one: Quality, other: Quality) -> None:
    pd.testing.assert_frame_equal(one.frame, other.frame, check_exact=True)


@pytest.fixture(scope="module")
def classes() -> pd.Series:
    """Of samples that are not numbered from 0; three classes, and some that are not known."""
    labels = np.arange(N_SAMPLES) % 3
    labels[::9] = -1
    return pd.Series(labels, index=pd.Index(5 * np.arange(N_SAMPLES) + 3, name="sample"), name="label")


@pytest.fixture(scope="module")
def scores(classes) -> Scores:
    """The classes come apart from snapshot to snapshot."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 6))
    apart = np.linspace(0, 4, N_SNAPSHOTS)[:, None, None]
    return scores_of(
        apart * centers[classes.to_numpy()] + rng.normal(size=(N_SNAPSHOTS, N_SAMPLES, 6)), names=classes.index
    )


def vote(values: np.ndarray, classes: np.ndarray, n_neighbors: int) -> float:
    """Share of rows whose class most of their neighbors have; of equally many, that of the nearest."""
    right = 0
    for own, row in enumerate(values):
        order = np.argsort(np.linalg.norm(values - row, axis=1), kind="stable")
        near = classes[order[order != own][:n_neighbors]].tolist()
        right += max(near, key=lambda name: (near.count(name), -near.index(name))) == classes[own]
    return right / len(values)


@pytest.mark.parametrize("clusterer", [KMeans(4, random_state=0), HDBSCAN(min_cluster_size=5, copy=True)], ids=str)
def test_each_snapshot_is_what_scikit_learn_says_of_it(clusterer, scores, classes):
    clusters = cluster(scores, clusterer)
    found = quality(clusters, scores, classes=classes, n_neighbors=5)
    frame = found.frame
    assert frame[["snapshot", "epoch", "step"]].to_numpy().tolist() == [[0, 0, 0], [1, 0, 7], [2, 1, 14], [3, 1, 21]]
    assert (found.layer, found.view, found.method, found.fit) == ("conv", "sample", type(clusterer).__name__, "pooled")
    known = classes.to_numpy() >= 0
    truth = classes.to_numpy()
    defined = 0
    for k, row in frame.iterrows():
        here = (scores.rows["snapshot"] == k).to_numpy()
        values, labels = scores.values[here], clusters.labels[here]
        of = labels >= 0
        assert row["n_rows"] == N_SAMPLES
        assert row["noise"] == pytest.approx((labels == -1).sum() / N_SAMPLES)
        assert row["n_clusters"] == len(set(labels[of]))
        assert row["knn_accuracy"] == pytest.approx(vote(values[known], truth[known], 5))
        # of a permuted class, five others are a sample: the chance of each share, with the error of 20 permutations
        assert row["knn_chance"] == pytest.approx(1 / 3, abs=0.12)
        if row["n_clusters"] < 2:
            assert row[SEPARATION].isna().all()
            assert row["note"].startswith(("only one cluster", "no row is in a cluster"))
            continue
        defined += 1
        assert row["note"] == ""
        assert row["silhouette_rows"] == of.sum()
        assert row["silhouette"] == pytest.approx(metrics.silhouette_samples(values[of], labels[of]).mean())
        # permuted labels: the mean over all permutations is below 0, as the own cluster is a row smaller
        permuted = np.random.default_rng(5)
        null = [metrics.silhouette_score(values[of], permuted.permutation(labels[of])) for _ in range(40)]
        assert row["silhouette_null"] == pytest.approx(np.mean(null), abs=5 * np.std(null) / 5**0.5)
        assert row["silhouette_null"] < row["silhouette"]
        assert row["davies_bouldin"] == pytest.approx(metrics.davies_bouldin_score(values[of], labels[of]))
        assert row["calinski_harabasz"] == pytest.approx(metrics.calinski_harabasz_score(values[of], labels[of]))
        both = of & known
        assert row["nmi"] == pytest.approx(metrics.normalized_mutual_info_score(truth[both], labels[both]))
        assert row["ami"] == pytest.approx(metrics.adjusted_mutual_info_score(truth[both], labels[both]))
        right = sum(np.unique(truth[both & (labels == c)], return_counts=True)[1].max() for c in set(labels[both]))
        assert row["purity"] == pytest.approx(right / both.sum())
    assert defined > 0
    assert found.values.shape == (N_SNAPSHOTS, 9)
    np.testing.assert_array_equal(found.values, frame[SEPARATION + AGAINST_CLASSES].to_numpy())


def test_classes_that_come_apart_are_seen_to(scores, classes):
    own = [KMeans(4, random_state=0, n_init=5).fit_predict(values) for values in scores.by_snapshot(scores.values)]
    frame = quality(clusters_of(scores, own), scores, classes=classes).frame
    for name in ("knn_accuracy", "silhouette", "ami"):
        assert frame[name].iloc[-1] > frame[name].iloc[0] + 0.3, name
    assert frame["knn_accuracy"].iloc[-1] == 1
    assert frame["ami"].iloc[0] < 0.2


def test_a_case_by_hand():
    """On a line: two clusters of two rows, one row of noise; the middle row's class is not known."""
    scores = scores_of(np.array([[[0.0], [2.0], [10.0], [12.0], [6.0]]]))
    clusters = clusters_of(scores, [4, 4, 9, 9, -1])
    row = quality(clusters, scores, classes={0: "cat", 1: "dog", 2: "dog", 3: "dog", 4: ""}, n_neighbors=1).frame.loc[0]
    assert row["noise"] == 0.2
    assert row["n_clusters"] == 2
    assert row["silhouette_rows"] == 4
    assert row["silhouette"] == pytest.approx((9 / 11 + 7 / 9) / 2)
    assert row["davies_bouldin"] == pytest.approx((1 + 1) / 10)
    assert row["calinski_harabasz"] == pytest.approx((4 * 5**2 / 1) / (4 * 1 / 2))
    assert row["purity"] == 3 / 4
    assert row["knn_accuracy"] == 2 / 4  # each takes its partner's class: cat and dog exchange theirs
    # "cat" has one of four places: its own neighbor is a dog, and a dog's is one in a third of the permutations
    assert row["knn_chance"] in [k / 80 for k in range(81)]
    assert 0.3 < row["knn_chance"] < 0.7


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ([0] * 6, "only one cluster"),
        ([3, -1, -1, 3, 3, -1], "only one cluster"),
        ([-1] * 6, "no row is in a cluster"),
        (range(6), "each row is a cluster of its own"),
        ([0, -1, 1, 2, -1, -1], "each row is a cluster of its own"),
    ],
)
def test_where_nothing_is_to_be_separated_the_reason_is_told(labels, note):
    """The snapshot beside it is measured all the same."""
    scores = scores_of(np.random.default_rng(0).normal(size=(2, 6, 2)))
    frame = quality(clusters_of(scores, [*labels, 0, 0, 0, 1, 1, 1]), scores).frame
    assert frame.loc[0, SEPARATION].isna().all()
    assert frame["note"].tolist() == [note, ""]
    assert frame.loc[1, SEPARATION].notna().all()
    assert frame[AGAINST_CLASSES].isna().all(axis=None)


def test_rows_that_are_all_the_same():
    values = np.repeat(np.array([[[0.0, 1], [5, 5]]]), 3, axis=1)
    scores = scores_of(values)
    row = quality(clusters_of(scores, [0, 0, 0, 1, 1, 1]), scores, classes=dict.fromkeys(range(6), 1)).frame.loc[0]
    assert row["silhouette"] == 1
    assert row["davies_bouldin"] == 0
    assert np.isnan(row["calinski_harabasz"])
    assert row[["nmi", "ami"]].isna().all()
    assert row[["purity", "knn_accuracy", "knn_chance"]].tolist() == [1, 1, 1]
    assert row["note"] == "the rows of each cluster are all the same; the rows in clusters are of one class"
    constant = scores_of(np.zeros((1, 6, 2)))
    row = quality(clusters_of(constant, [0, 0, 0, 1, 1, 1]), constant).frame.loc[0]
    assert row["silhouette"] == 0
    assert np.isnan(row["calinski_harabasz"])


def test_what_cannot_be_compared_with_classes_says_so():
    scores = scores_of(np.random.default_rng(0).normal(size=(1, 4, 2)))
    clusters = clusters_of(scores, [0, 0, -1, 1])
    row = quality(clusters, scores, classes=pd.Series([-1, -1, 2, -1])).frame.loc[0]
    assert row[AGAINST_CLASSES].isna().all()
    assert row["note"] == "no row in a cluster is of known class; fewer than two rows are of known class"
    assert row[SEPARATION].notna().all()
    few = quality(clusters, scores, classes=pd.Series([0, 1, np.nan, -1]), n_neighbors=50).frame.loc[0]
    assert few["knn_accuracy"] == 0  # each is asked of the other alone
    assert few["purity"] == 0.5


def test_silhouettes_of_many_rows_are_of_rows_drawn_once():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, 300, 3)) + 4 * (np.arange(300) % 3 == 0)[:, None]
    scores = scores_of(np.concatenate([values, values[:, ::-1], values]))
    labels = np.where(np.arange(300) % 10 == 0, -1, np.arange(300) % 3)
    clusters = clusters_of(scores, [labels, labels[::-1], labels])
    whole = quality(clusters, scores, max_rows=300).frame
    drawn = quality(clusters, scores, max_rows=100, random_state=3)
    assert (whole["silhouette_rows"] == 270).all()
    assert drawn.frame["silhouette_rows"].between(80, 99).all()
    assert drawn.frame["silhouette"].iloc[0] != whole["silhouette"].iloc[0]
    assert drawn.frame["silhouette"].iloc[0] == pytest.approx(whole["silhouette"].iloc[0], abs=0.1)
    assert drawn.frame["silhouette"].iloc[0] == drawn.frame["silhouette"].iloc[2], "the same rows in every snapshot"
    assert drawn.frame["silhouette"].iloc[0] != drawn.frame["silhouette"].iloc[1], "places of rows, not what is there"
    same(drawn, quality(clusters, scores, max_rows=100, random_state=3))
    assert quality(clusters, scores, max_rows=100).frame["silhouette"].iloc[0] != drawn.frame["silhouette"].iloc[0]
    others = [name for name in whole if not name.startswith("silhouette")]
    pd.testing.assert_frame_equal(drawn.frame[others], whole[others])


def test_rows_drawn_of_one_cluster_have_no_silhouette():
    scores = scores_of(np.random.default_rng(0).normal(size=(1, 50, 2)))
    row = quality(clusters_of(scores, [1] + [0] * 49), scores, max_rows=5).frame.loc[0]
    assert np.isnan(row["silhouette"])
    assert row["note"] == "of the rows drawn for silhouettes: only one cluster"
    assert row[["davies_bouldin", "calinski_harabasz"]].notna().all()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_names_of_clusters_and_classes_mean_nothing(data):
    """Noise and the unknown aside. Neighbors are asked one at a time: which of two equal classes wins is by name."""
    count, size = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    scores = scores_of(rng.normal(size=(count, size, 3)))
    labels, classes = rng.integers(-1, 4, count * size), rng.integers(-1, 3, size)
    names = np.append(data.draw(st.permutations([0, 1, 2, 30])), -1)
    words = [*data.draw(st.permutations(["ant", "bee", "cat"])), ""]
    one = quality(clusters_of(scores, labels), scores, classes=pd.Series(classes), n_neighbors=1)
    told = {n: words[c] for n, c in enumerate(classes)}
    other = quality(clusters_of(scores, names[labels]), scores, classes=told, n_neighbors=1)
    pd.testing.assert_frame_equal(one.frame, other.frame, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_executors_change_nothing(kind, scores, classes):
    clusters = cluster(scores, KMeans(4, random_state=0))
    here = quality(clusters, scores, classes=classes, max_rows=30)
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(2) if kind == "threads" else ProcessPoolExecutor(1, mp_context=spawn) as executor:
        there = quality(clusters, scores, classes=classes, max_rows=30, executor=executor)
    pd.testing.assert_frame_equal(there.frame, here.frame, rtol=1e-6)


def test_any_view_has_separation_and_only_samples_have_classes(vectors_of):
    maps = np.random.default_rng(0).normal(size=(2, 5, 6, 3, 3))
    for view in ("channel", "feature_map", "sample", "position"):
        scores = pca(vectors_of(maps, view), n_components=3)
        clusters = clusters_of(scores, np.arange(len(scores.rows)) % 2)
        assert quality(clusters, scores).frame["silhouette"].between(-1, 1).all()
        if view == "sample":
            assert quality(clusters, scores, classes=pd.Series(range(5))).frame["purity"].notna().all()
            continue
        with pytest.raises(ValueError, match=f"classes are of samples, but rows of the {view} view are named by"):
            quality(clusters, scores, classes=pd.Series(range(5)))


def test_what_does_not_belong_together_is_refused(scores, classes):
    clusters = clusters_of(scores, np.arange(len(scores.rows)) % 3)
    with pytest.raises(TypeError, match="quality received a Scores; expected Clusters, made by cluster"):
        quality(scores, clusters)
    with pytest.raises(TypeError, match="quality received a ndarray; expected Scores, made by pca"):
        quality(clusters, scores.values)
    with pytest.raises(ValueError, match="rows of 'conv', sample view; expected the 160 rows of 'fc', sample view"):
        quality(clusters, replace(scores, layer="fc"))
    with pytest.raises(ValueError, match="expected the 160 rows of 'conv', channel view, in the same order"):
        quality(clusters, replace(scores, view="channel"))
    with pytest.raises(ValueError, match="in the same order: make both from the same scores"):
        quality(clusters, replace(scores, rows=scores.rows.iloc[::-1]))
    broken = scores.values.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="the scores hold NaN or infinite values"):
        quality(clusters, replace(scores, values=broken))
    with pytest.raises(ValueError, match="n_neighbors is 0; expected at least 1"):
        quality(clusters, scores, n_neighbors=0)
    with pytest.raises(ValueError, match="max_rows is 1; expected at least 2"):
        quality(clusters, scores, max_rows=1)
    with pytest.raises(TypeError, match="classes is a ndarray; expected a Series by sample"):
        quality(clusters, scores, classes=classes.to_numpy())
    with pytest.raises(ValueError, match="no class of 2 of the 40 samples, the first of them 8; give those"):
        quality(clusters, scores, classes=classes.drop([8, 18]))
    with pytest.raises(ValueError, match="classes names sample 3 more than once"):
        quality(clusters, scores, classes=pd.concat([classes, classes.iloc[:1]]))


@pytest.mark.slow
def test_classes_are_taken_by_sample_and_not_by_place(scores, classes):
    clusters = cluster(scores, KMeans(4, random_state=0))
    shuffled = classes.sample(frac=1, random_state=0)
    beyond = pd.concat([shuffled, pd.Series([7, 8], index=[1000, 1001])])
    whole = quality(clusters, scores, classes=classes)
    for given_as in (shuffled, beyond, dict(beyond), shuffled.astype("category"), shuffled.astype(float)):
        same(quality(clusters, scores, classes=given_as), whole)


@pytest.mark.slow
def test_a_recorded_run_is_measured_by_its_own_labels(tmp_path):
    """Bright and dark images: apart once the layer passes on what it sees."""
    torch.manual_seed(0)
    labels = torch.arange(20) % 2
    images = 0.2 * torch.rand(20, 1, 4, 4) + labels.reshape(-1, 1, 1, 1)
    noise = torch.rand(20, 1, 4, 4)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    probe = TensorDataset(torch.cat([images, noise], dim=1), labels)
    with Recorder(model, tmp_path / "run.zarr", layers=["0"], probe=probe) as recorder:
        recorder.snapshot(epoch=0)
        with torch.no_grad():
            model[0].weight[:] = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
        recorder.snapshot(epoch=1)
    run = open_run(tmp_path / "run.zarr")
    scores = pca(run["0"].vectors("sample"), n_components=5)
    by_epoch = np.concatenate([np.arange(20) % 3, labels.numpy()])
    frame = quality(clusters_of(scores, by_epoch), scores, classes=run.samples["label"]).frame
    assert frame["epoch"].tolist() == [0, 1]
    # of two equal classes less than a half: leaving the image itself out leaves fewer of its own class
    assert frame["knn_chance"].between(0.2, 0.5).all()
    assert frame["nmi"].iloc[0] < 0.1
    assert frame["knn_accuracy"].iloc[0] < 0.8
    assert frame.loc[1, ["nmi", "ami", "purity", "knn_accuracy"]].tolist() == [1, 1, 1, 1]
    assert frame["silhouette"].iloc[1] > 0.8
