"""Who stays and who moves, by hand and by permutation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from fmcluster.analysis import Clusters, track
from fmcluster.analysis.clustering._matching import name_in_turn

quickly = settings(deadline=None, max_examples=25)


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
    assert lives["began"].to_dict() == {0: "first", 1: "first", 2: "first", 3: "appear"}
    assert lives.loc[[0, 2], "ended"].tolist() == ["vanish", "vanish"]
    assert lives.loc[[1, 3], "ended"].isna().all()
    rows = history.rows.set_index("channel")
    assert rows["first_cluster"].tolist() == [0, 0, 1, 1, 2]
    assert rows["last_cluster"].tolist() == [3, 1, 1, 1, 3]
    assert rows["n_clusters"].tolist() == [2, 2, 1, 1, 2]
    assert rows["n_moves"].tolist() == [1, 1, 0, 0, 1]
    assert rows["converged"].tolist() == [2, 1, 0, 0, 2]


def test_noise_neither_stays_nor_moves():
    history = track(clusters_of([[0, -1, -1, 0], [-1, 0, -1, 0]]))
    assert not history.frame["moved"].any()
    assert history.steps[["n_rows", "stayed"]].to_numpy().tolist() == [[1, 1]]
    assert history.steps["churn"].tolist() == [0]
    assert list(history.sizes.columns) == [-1, 0]
    assert history.lives["cluster"].tolist() == [0]
    assert history.rows["n_noise"].tolist() == [1, 1, 2, 0]
    assert history.rows["n_clusters"].tolist() == [1, 1, 0, 1]
    assert history.rows["converged"].isna().tolist() == [True, False, True, False]
    assert not history.transitions[["from_cluster", "to_cluster"]].isin([-1]).any(axis=None)


def test_all_noise_has_no_churn():
    history = track(clusters_of([[-1, -1], [-1, -1]]))
    assert history.steps[["churn", "ari", "ami", "churn_null", "ari_null_limit"]].isna().all(axis=None)
    assert history.lives.empty
    assert history.transitions.empty
    assert history.rows["n_clusters"].tolist() == [0, 0]


def test_one_snapshot_has_no_steps():
    history = track(clusters_of([[0, 1, 1]]))
    assert len(history.frame) == len(history.flow) == len(history.steps) == 0
    assert history.sizes.to_numpy().tolist() == [[1, 2]]
    assert len(history.transitions) == 0
    assert history.lives["began"].tolist() == ["first", "first"]
    assert history.lives["died"].isna().all()
    assert history.rows["converged"].tolist() == [0, 0, 0]


@pytest.mark.slow
@quickly
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


@pytest.mark.slow
@quickly
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


def transitions_of(labels, **options) -> list[tuple]:
    """What `track` says of clusters of each snapshot, as (step, from, to, what, overlap)."""
    frame = track(clusters_of(labels, fit="each"), **options).transitions
    columns = ["from_snapshot", "from_cluster", "to_cluster", "transition", "overlap"]
    return [tuple(None if pd.isna(cell) else cell for cell in row) for row in frame[columns].to_numpy().tolist()]


def test_a_cluster_survives_with_half_of_its_members():
    # 3 of the 6 of cluster 0 stay together, the others go into three different places
    before, after = [0] * 6 + [1, 2, 3] * 2, [0] * 3 + [1, 2, 3] * 3
    assert transitions_of([before, after])[0] == (0, 0, 0, "survive", 0.5)


def test_a_cluster_splits():
    assert transitions_of([[0] * 8, [0] * 3 + [1] * 3 + [2] * 2]) == [
        (0, 0, 0, "split", 3 / 8),
        (0, 0, 1, "split", 3 / 8),
        (0, 0, 2, "split", 2 / 8),
    ]


def test_parts_under_the_threshold_are_no_part_of_a_split():
    # 3/8 and 3/8 are parts, 1/8 and 1/8 are not: they appear
    assert transitions_of([[0] * 8, [0] * 3 + [1] * 3 + [2, 3]]) == [
        (0, 0, 0, "split", 3 / 8),
        (0, 0, 1, "split", 3 / 8),
        (0, None, 2, "appear", None),
        (0, None, 3, "appear", None),
    ]


def test_two_halves_are_a_split():
    assert transitions_of([[0] * 4, [0, 0, 1, 1]]) == [(0, 0, 0, "split", 0.5), (0, 0, 1, "split", 0.5)]


def test_clusters_merge():
    assert transitions_of([[0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 2]]) == [
        (0, 0, 0, "merge", 1.0),
        (0, 1, 0, "merge", 1.0),
        (0, 2, 2, "survive", 1.0),
    ]


def test_a_cluster_appears():
    """Out of noise, or out of a part of another that is too small to be one."""
    assert transitions_of([[0, 0, -1, -1], [0, 0, 1, 1]]) == [(0, 0, 0, "survive", 1.0), (0, None, 1, "appear", None)]
    assert transitions_of([[0] * 5, [0] * 4 + [1]]) == [(0, 0, 0, "survive", 0.8), (0, None, 1, "appear", None)]


def test_a_cluster_vanishes():
    """Into noise, or scattered so that too few stay together."""
    assert transitions_of([[0, 0, 1, 1], [0, 0, -1, -1]]) == [(0, 0, 0, "survive", 1.0), (0, 1, None, "vanish", 0.0)]
    scattered = transitions_of([[0] * 5 + [1, 2, 3, 4, 5] * 4, [1, 2, 3, 4, 5] * 5])
    assert scattered[0] == (0, 0, None, "vanish", 1 / 5)
    assert [what for *_, what, _ in scattered[1:]] == ["survive"] * 5


def test_parts_that_are_less_than_the_overlap_together_are_no_split():
    labels = [[0] * 20 + [1, 2] * 8, [1] * 6 + [2] * 6 + [-1] * 8 + [1, 2] * 8]
    assert transitions_of(labels)[:2] == [(0, 0, 1, "split", 0.3), (0, 0, 2, "split", 0.3)]
    assert transitions_of(labels, overlap=0.7)[0] == (0, 0, None, "vanish", 0.3)
    assert transitions_of(labels, split=0.4)[0] == (0, 0, None, "vanish", 0.3)


def test_a_larger_overlap_is_asked_for():
    labels = [[0] * 5 + [1], [0] * 3 + [-1, -1, 1]]
    assert transitions_of(labels)[0] == (0, 0, 0, "survive", 0.6)
    assert transitions_of(labels, overlap=0.6)[0] == (0, 0, 0, "survive", 0.6)
    assert transitions_of(labels, overlap=0.61)[0] == (0, 0, None, "vanish", 0.6)


def test_noise_never_transitions():
    """Not where all of it becomes a cluster, nor where a whole cluster becomes noise."""
    for labels in ([[-1] * 4, [0] * 4], [[0] * 4, [-1] * 4], [[-1] * 4, [-1] * 4], [[-1, -1, 0, 0], [0, 0, -1, -1]]):
        found = transitions_of(labels)
        assert all(what in ("appear", "vanish") for *_, what, _ in found)
        assert -1 not in {name for _, here, there, *_ in found for name in (here, there)}
    assert transitions_of([[-1] * 4, [-1] * 4]) == []


def test_labels_that_mean_the_same_survive_by_their_name():
    history = track(clusters_of([[0, 0, 1, 1], [0, 1, 0, 0], [2, 2, 0, -1]]))
    columns = ["from_snapshot", "to_snapshot", "from_cluster", "to_cluster", "transition", "overlap"]
    assert list(history.transitions.columns) == columns
    found = history.transitions.astype(object).where(history.transitions.notna(), None)
    assert found.to_numpy().tolist() == [
        [0, 1, 0, 0, "survive", 0.5],
        [0, 1, 1, 1, "survive", 0.0],
        [1, 2, 0, 0, "survive", 1 / 3],
        [1, 2, 1, None, "vanish", 0.0],
        [1, 2, None, 2, "appear", None],
    ]


def test_clusters_of_one_epoch_are_followed_by_label():
    assert track(clusters_of([[0, 0, 1], [1, 1, 0]], fit="epoch")).transitions["overlap"].tolist() == [0, 0]


def test_lives_of_clusters_end_where_they_split_and_merge():
    labels = [
        [0] * 6 + [1] * 2 + [2] * 2 + [-1] * 2,
        [0] * 3 + [3] * 3 + [1] * 4 + [-1] * 2,
        [0] * 3 + [3] * 3 + [1] * 4 + [4] * 2,
        [0] * 3 + [3] * 3 + [-1] * 4 + [4] * 2,
    ]
    lives = track(clusters_of(labels, fit="each")).lives
    assert lives.astype(object).where(lives.notna(), None).to_numpy().tolist() == [
        [0, 0, 0, "first", "split"],
        [1, 0, 0, "first", "merge"],
        [2, 0, 0, "first", "merge"],
        [0, 1, None, "split", None],
        [1, 1, 2, "merge", "vanish"],
        [3, 1, None, "split", None],
        [4, 2, None, "appear", None],
    ]


def members_of(labels: np.ndarray, **options) -> set[tuple]:
    """The transitions, with each cluster as the rows that are in it."""

    def rows(snapshot: int, name) -> frozenset[int] | None:
        return None if pd.isna(name) else frozenset(np.flatnonzero(labels[snapshot] == name).tolist())

    frame = track(clusters_of(labels, fit="each"), n_permutations=0, **options).transitions
    return {
        (
            row.from_snapshot,
            rows(row.from_snapshot, row.from_cluster),
            rows(row.to_snapshot, row.to_cluster),
            row.transition,
            None if pd.isna(row.overlap) else row.overlap,
        )
        for row in frame.itertuples(index=False)
    }


some_labels = st.tuples(st.integers(2, 4), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(-1, 3))
)


@pytest.mark.slow
@settings(quickly, max_examples=8)
@given(labels=some_labels, names=st.lists(st.permutations([0, 1, 2, 3]), min_size=4, max_size=4))
def test_labels_permuted_at_random_in_each_snapshot_give_the_same_transitions(labels, names):
    renamed = np.stack([np.where(row < 0, -1, np.array(name)[row]) for row, name in zip(labels, names, strict=False)])
    assert members_of(labels) == members_of(renamed)
    one, other = (track(clusters_of(name_in_turn(each), fit="each"), n_permutations=10) for each in (labels, renamed))
    pd.testing.assert_frame_equal(one.steps, other.steps)
    assert members_of(name_in_turn(labels)) == members_of(labels)


@pytest.mark.slow
@quickly
@given(labels=some_labels)
def test_every_cluster_has_its_transitions(labels):
    history = track(clusters_of(labels, fit="each"), n_permutations=0)
    frame = history.transitions
    for snapshot in range(len(labels) - 1):
        step = frame[frame["from_snapshot"] == snapshot]
        here, there = (set(np.unique(labels[at]).tolist()) - {-1} for at in (snapshot, snapshot + 1))
        assert set(step["from_cluster"].dropna()) == here
        assert set(step["to_cluster"].dropna()) <= there
        kinds = step.dropna(subset="from_cluster").groupby("from_cluster")["transition"].unique()
        assert all(len(kind) == 1 for kind in kinds)
        alone = set(step.loc[step["transition"] == "survive", "to_cluster"])
        absorbing = step.loc[step["transition"] == "merge", "to_cluster"].value_counts()
        assert (absorbing >= 2).all()
        assert not alone & set(absorbing.index)
    alive = [len(set(np.unique(row).tolist()) - {-1}) for row in labels]
    lives = history.lives
    until = lives["died"].fillna(len(labels) - 1)
    assert [int(((lives["born"] <= at) & (until >= at)).sum()) for at in range(len(labels))] == alive


@pytest.mark.slow
@quickly
@given(labels=arrays(np.int64, (2, 30), elements=st.integers(0, 4)))
def test_agreement_is_that_of_scikit_learn(labels):
    steps = track(clusters_of(labels), n_permutations=0).steps
    assert steps["ari"][0] == pytest.approx(adjusted_rand_score(*labels), abs=1e-12)
    assert steps["ami"][0] == pytest.approx(adjusted_mutual_info_score(*labels), abs=1e-9)
    assert steps["churn"][0] == pytest.approx((labels[0] != labels[1]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["pooled", "each"])
def test_the_null_is_that_of_labels_permuted_at_random(fit):
    rng = np.random.default_rng(0)
    labels = rng.choice(4, (2, 300), p=[0.4, 0.3, 0.2, 0.1])
    steps = track(clusters_of(labels, fit=fit), n_permutations=400).steps.iloc[0]
    drawn = [track(clusters_of([labels[0], rng.permutation(labels[1])], fit=fit), n_permutations=0) for _ in range(40)]
    for name in ("ari", "ami"):
        assert steps[f"{name}_null"] == pytest.approx(0, abs=0.003)
        assert 0 < steps[f"{name}_null_limit"] < 0.05
    if fit == "pooled":
        shares = [(labels == name).mean(axis=1).prod() for name in range(4)]
        assert steps["churn_null"] == pytest.approx(1 - sum(shares), abs=0.005)
        assert np.mean([one.steps["churn"][0] for one in drawn]) == pytest.approx(steps["churn_null"], abs=0.02)
    else:  # names are matched by chance, too
        named = [name_in_turn(one.clusters.by_snapshot(one.clusters.labels)) for one in drawn]
        assert np.mean([(pair[0] != pair[1]).mean() for pair in named]) == pytest.approx(steps["churn_null"], abs=0.02)
    assert steps["churn_null_limit"] < steps["churn_null"]


def test_without_a_floor_it_is_not_available():
    history = track(clusters_of([[0, 1, 1], [0, 0, 1]]), n_permutations=0)
    assert history.noise_floor is None
    assert history.steps[[f"{name}_noise_floor" for name in ("churn", "ari", "ami")]].isna().all(axis=None)
    assert history.steps[[f"{name}_null" for name in ("churn", "ari", "ami")]].isna().all(axis=None)


def test_thresholds_out_of_range_are_refused():
    clusters = clusters_of([[0, 1], [1, 0]], fit="each")
    for options in ({"overlap": 0.4}, {"overlap": 1.1}, {"split": 0.0}, {"split": 0.6}):
        with pytest.raises(ValueError, match=r"expected 0.5 <= overlap <= 1 and 0 < split <= overlap"):
            track(clusters, **options)
    with pytest.raises(ValueError, match="n_permutations is -1"):
        track(clusters, n_permutations=-1)
    with pytest.raises(TypeError, match="received a str; expected NoiseFloor"):
        track(clusters, noise_floor="halves")
    with pytest.raises(TypeError, match="track received a list; expected Clusters"):
        track([0, 1])
