"""Runs on one probe set: what is the same is found to be the same, and what is permuted is matched."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from fmcluster.analysis import Comparison, cluster, embed, track
from fmcluster.analysis._compare import compare
from tests.analysis.planted_runs import N_CHANNELS, N_SAMPLES, N_SNAPSHOTS, head, moving, write_run

DIGESTS = np.random.default_rng(7).integers(0, 255, (N_SAMPLES, 32), dtype=np.uint8)
ORDER = np.random.default_rng(1).permutation(N_CHANNELS)


def layers_of(maps):
    return {"conv1": ("Conv2d", maps), "fc": ("Linear", head(maps))}


@pytest.fixture
def written(tmp_path):
    """A function that writes a run of one layer and a head."""

    def write(name, maps, **options):
        return write_run(tmp_path / name, layers_of(maps), **({"digests": DIGESTS} | options))

    return write


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs of two seeds."""
    folder = tmp_path_factory.mktemp("pair")
    options = {"digests": DIGESTS}
    return (
        write_run(folder / "a.zarr", layers_of(moving(0)), **options),
        write_run(folder / "b.zarr", layers_of(moving(1)[1:]), **options),
    )


def diagonal(comparison, layer="conv1"):
    frame = comparison.frame[comparison.frame["layer"] == layer]
    return frame[frame["snapshot"] == frame["other_snapshot"]]["cka"].to_numpy()


@pytest.mark.slow
def test_two_runs_of_one_seed_are_the_same_to_the_channel(written):
    found = compare(written("a.zarr", moving()), written("b.zarr", moving()))
    np.testing.assert_allclose(diagonal(found), 1, atol=1e-6)
    np.testing.assert_allclose(diagonal(found, "fc"), 1, atol=1e-6)
    assert (found.matches["channel"] == found.matches["other_channel"]).all()
    np.testing.assert_allclose(found.matches["correlation"], 1, atol=1e-6)
    by_run = found.scores["conv1"].values.reshape(2, N_SNAPSHOTS * N_CHANNELS, -1)
    np.testing.assert_allclose(by_run[0], by_run[1], atol=1e-4)
    assert found.runs["snapshots"].tolist() == [N_SNAPSHOTS] * 2
    assert found.runs["path"].str.endswith(("a.zarr", "b.zarr")).all()


@pytest.mark.slow
def test_permuted_channels_are_matched_and_change_no_cka(written):
    found = compare(written("a.zarr", moving()), written("b.zarr", moving()[:, :, ORDER]), layers=["conv1"])
    np.testing.assert_allclose(diagonal(found), 1, atol=1e-6)
    matched = found.matches
    assert matched["layer"].unique().tolist() == ["conv1"]
    assert ORDER[matched["other_channel"].to_numpy(int)].tolist() == matched["channel"].tolist()
    np.testing.assert_allclose(matched["correlation"], 1, atol=1e-6)


@pytest.mark.slow
def test_runs_of_two_seeds_are_compared_at_all_pairs_of_snapshots(pair):
    found = compare(*pair)
    time = ["snapshot", "epoch", "step"]
    columns = ["layer", "run", *time, "other_run", *(f"other_{name}" for name in time), "cka"]
    assert list(found.frame) == columns
    assert len(found.frame) == 2 * N_SNAPSHOTS * (N_SNAPSHOTS - 1)
    conv1 = found.frame[found.frame["layer"] == "conv1"]
    assert conv1[["snapshot", "other_snapshot"]].drop_duplicates().shape[0] == N_SNAPSHOTS * (N_SNAPSHOTS - 1)
    assert (conv1["other_step"] == 10 * conv1["other_snapshot"]).all()
    assert conv1["cka"].abs().max() < 0.3  # nothing in common
    assert found.matches["correlation"].between(-1, 0.7).all()


@pytest.mark.slow
def test_the_shared_basis_is_that_of_all_rows_of_all_runs(pair):
    found = compare(*pair, n_components=5)
    stacked = np.concatenate([moving(0), moving(1)[1:]]).transpose(0, 2, 1, 3, 4)
    expected = PCA(5, svd_solver="full").fit_transform(stacked.reshape(-1, stacked[0, 0].size))
    scores = found.scores["conv1"]
    np.testing.assert_allclose(np.abs(scores.values), np.abs(expected), rtol=1e-3, atol=1e-3)
    rows = scores.rows.groupby("run", sort=False)["snapshot"].agg(["min", "max", "size"])
    assert rows.index.tolist() == [0, 1]
    assert rows["min"].tolist() == [0, 6]
    assert rows["max"].tolist() == [5, 10]
    assert scores.rows["epoch"].iloc[[0, -1]].tolist() == [0, 4]
    assert set(found.scores) == {"conv1", "fc"}


def test_another_view_has_other_rows(pair):
    scores = compare(*pair, layers=["conv1"], view="sample").scores["conv1"]
    assert scores.view == "sample"
    assert len(scores.rows) == (2 * N_SNAPSHOTS - 1) * N_SAMPLES


def test_what_is_made_of_shared_scores_can_be_taken_apart(pair):
    scores = compare(*pair, layers=["conv1"]).scores["conv1"]
    alone = scores.of_run(1)
    mine = (scores.rows["run"] == 1).to_numpy()
    np.testing.assert_array_equal(alone.values, scores.values[mine])
    assert alone.rows["snapshot"].unique().tolist() == [*range(5)]
    assert alone.identity == scores.identity == ["channel"]
    np.testing.assert_allclose(alone.explained_variance, scores.explained_variance)
    clusters = cluster(scores, KMeans(3, random_state=0))
    with pytest.raises(ValueError, match=r"the clusters are of runs \[0, 1\], .*track\(clusters.of_run\(0\)\)"):
        track(clusters)
    history = track(clusters.of_run(1))
    assert history.steps["from_snapshot"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(history.clusters.labels, clusters.labels[mine])
    assert len(embed(scores, PCA(2)).of_run(0).values) == (~mine).sum()
    with pytest.raises(ValueError, match=r"run is 2; expected one of \[0, 1\]"):
        scores.of_run(2)
    with pytest.raises(ValueError, match="this is the result of one run"):
        alone.of_run(0)


@pytest.mark.slow
def test_several_runs_are_each_compared_with_the_first(written):
    runs = [written(f"{k}.zarr", moving(k)) for k in (0, 1)]
    permuted = written("2.zarr", moving()[:, :, ORDER])
    found = compare(runs[0], [runs[1], permuted], layers=["conv1"])
    assert found.frame["other_run"].unique().tolist() == [1, 2]
    assert (found.frame["run"] == 0).all()
    by_run = found.matches.groupby("other_run")["correlation"].min()
    assert by_run[2] == pytest.approx(1, abs=1e-6)
    assert by_run[1] < 0.5
    assert found.scores["conv1"].rows["run"].unique().tolist() == [0, 1, 2]


@pytest.mark.slow
def test_samples_are_aligned_by_their_index_whatever_their_slots(written):
    back = np.arange(N_SAMPLES)[::-1]
    found = compare(
        written("a.zarr", moving()),
        written("b.zarr", moving()[:, back], index=back, digests=DIGESTS[back]),
    )
    np.testing.assert_allclose(diagonal(found), 1, atol=1e-6)
    np.testing.assert_allclose(found.matches["correlation"], 1, atol=1e-6)


@pytest.mark.slow
def test_only_samples_that_all_runs_hold_are_compared(written):
    part = np.arange(4, 16)
    found = compare(
        written("a.zarr", moving()),
        written("b.zarr", moving()[:, part], index=part, digests=DIGESTS[part]),
    )
    assert found.samples.tolist() == part.tolist()
    np.testing.assert_allclose(diagonal(found), 1, atol=1e-6)


@pytest.mark.slow
def test_another_image_under_the_same_index_is_an_error_that_names_it(written):
    changed = DIGESTS.copy()
    changed[[5, 9], 0] += 1
    first, second = written("a.zarr", moving()), written("b.zarr", moving(), digests=changed)
    with pytest.raises(ValueError, match=r"sample 5 is one image in .*a\.zarr and another in .*b\.zarr .* 1 more"):
        compare(first, second)


@pytest.mark.slow
def test_without_digests_on_one_side_the_index_is_believed(written):
    found = compare(written("a.zarr", moving()), written("b.zarr", moving(), digests=None))
    np.testing.assert_allclose(diagonal(found), 1, atol=1e-6)


@pytest.mark.slow
def test_layers_of_other_shapes_have_cka_and_no_shared_basis(written):
    wider = np.concatenate([moving(), moving()], axis=2)
    found = compare(written("a.zarr", moving()), written("b.zarr", wider), layers=["conv1"])
    np.testing.assert_allclose(diagonal(found), 1, atol=1e-5)  # twice the same channels: the same to CKA
    assert found.scores == {}
    assert found.matches.empty
    assert found.matches["other_channel"].dtype == "Int64"


@pytest.mark.slow
def test_layers_that_one_run_lacks_are_left_out_unless_they_were_asked_for(written, tmp_path):
    first = written("a.zarr", moving())
    second = write_run(tmp_path / "b.zarr", {"conv1": ("Conv2d", moving()), "conv2": ("Conv2d", moving(1))})
    assert compare(first, second).frame["layer"].unique().tolist() == ["conv1"]
    with pytest.raises(KeyError, match="no layer 'fc'"):
        compare(first, second, layers=["fc"])
    third = write_run(tmp_path / "c.zarr", {"other": ("Conv2d", moving())})
    with pytest.raises(ValueError, match="no layer in common: conv1, fc; other"):
        compare(first, third)


@pytest.mark.slow
def test_dead_channels_are_matched_with_none(written):
    maps, others = moving(), moving()
    maps[:, :, [3, 5]] = 0
    others[:, :, 3] = 1
    found = compare(written("a.zarr", maps), written("b.zarr", others), layers=["conv1"]).matches
    assert found["other_channel"].isna().to_numpy().nonzero()[0].tolist() == [3, 5]
    alive = found.drop(index=[3, 5])
    assert (alive["channel"] == alive["other_channel"]).all()
    assert found["correlation"].isna().equals(found["other_channel"].isna())


def test_metrics_stand_side_by_side(pair):
    found = compare(*pair, layers=["fc"]).metrics
    assert list(found) == ["run", "snapshot", "epoch", "step", "accuracy"]
    assert found["run"].tolist() == [0] * 6 + [1] * 5
    assert found["accuracy"].tolist() == pytest.approx([k / 10 for k in (*range(6), *range(5))])


@pytest.mark.slow
def test_an_executor_gives_the_same_numbers(pair):
    with ThreadPoolExecutor(2) as executor:
        found = compare(*pair, executor=executor)
    expected = compare(*pair)
    pd.testing.assert_frame_equal(found.frame, expected.frame, rtol=1e-6)
    pd.testing.assert_frame_equal(found.matches, expected.matches, rtol=1e-6)
    np.testing.assert_allclose(found.scores["conv1"].values, expected.scores["conv1"].values, rtol=1e-6, atol=1e-9)


def test_what_cannot_be_compared_is_refused(pair, written):
    run, _ = pair
    with pytest.raises(TypeError, match="received a str; expected Run"):
        compare("a.zarr", run)
    with pytest.raises(TypeError, match=r"others is 'b.zarr'; expected a Run, or a sequence"):
        compare(run, "b.zarr")
    with pytest.raises(TypeError, match=r"others is \[\]; expected a Run, or a sequence"):
        compare(run, [])
    with pytest.raises(TypeError, match="received a int; expected Run"):
        compare(run, [run, 3])
    part = np.arange(100, 120)
    other = written("far.zarr", moving()[:, :20], index=part, digests=DIGESTS[:20])
    with pytest.raises(ValueError, match="0 samples in common; at least 4"):
        compare(run, other)


def test_by_epoch_takes_the_last_snapshots_of_the_epochs_that_both_have():
    pairs = pd.DataFrame(
        [
            ("fc", a, a // 2, b, b // 2 + 1, 1 - a / 10 - b / 100)
            for a in range(4)  # epochs 0, 0, 1, 1
            for b in range(4)  # epochs 1, 1, 2, 2
        ],
        columns=["layer", "snapshot", "epoch", "other_snapshot", "other_epoch", "cka"],
    ).assign(run=0, other_run=1)
    nothing = pd.DataFrame()
    found = Comparison(pd.DataFrame({"run": [0, 1]}), np.arange(4), {}, pairs, nothing, nothing)
    table = found.by_epoch(1)
    assert table.index.tolist() == ["fc"]
    assert table.columns.tolist() == [1]
    assert table.at["fc", 1] == pytest.approx(1 - 3 / 10 - 1 / 100)
    with pytest.raises(ValueError, match="received the run 2; expected one of 1"):
        found.by_epoch(2)
    apart = Comparison(pd.DataFrame({"run": [0, 1]}), np.arange(4), {}, pairs.assign(other_epoch=7), nothing, nothing)
    with pytest.raises(ValueError, match=r"no epoch in common \(epochs 0, 1; epochs 7\)"):
        apart.by_epoch(1)
