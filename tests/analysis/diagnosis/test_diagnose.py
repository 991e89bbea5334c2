"""Faults planted in small runs are found, with their numbers; a run without any yields no advice."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from fmcluster import Recorder, open_run
from fmcluster.analysis.diagnosis._diagnose import diagnose
from fmcluster.analysis.diagnosis._findings import Thresholds
from fmcluster.analysis.diagnosis._measures import examine_layer
from tests.analysis.planted_runs import N_CHANNELS, N_SAMPLES, N_SNAPSHOTS, head, moving, write_run

MEASURES = [
    *(
        "dead",
        "revived",
        "duplicates",
        "effective_rank",
        "energy_width",
        "drift",
        "drift_step",
        "converged_channels",
        "permuted",
    ),
    *("noise", "cka_to_last", "cka_to_next", "change_to_end", "knn_accuracy"),
]
SETTLES = (0, 0.6, 1.1, 1.12, 1.11, 1.1)  # at snapshot 2


def actions(findings):
    return [(each.layer, each.action) for each in findings.advice]


def only_text(findings, action):
    (found,) = [each.text for each in findings.advice if each.action == action]
    return found


def values(findings, measure, layer="conv1"):
    return findings.rows(measure, layer=layer)["value"].to_numpy()


def flagged(findings, column, *, snapshot, layer="conv1"):
    frame = findings.channels
    return frame[(frame["layer"] == layer) & (frame["snapshot"] == snapshot) & frame[column]]["channel"].tolist()


@pytest.fixture
def planted(tmp_path):
    """A function that writes a run of one planted layer, between or before ones without fault, and diagnoses it."""

    def make(maps, *, thresholds=None, module="Conv2d", **options):
        other = moving(1, side=maps.shape[-1])
        run = write_run(
            tmp_path / "run.zarr",
            {"conv1": (module, maps), "layer1": ("Sequential", other), "fc": ("Linear", head(other))},
            **options,
        )
        return diagnose(run, thresholds=thresholds)

    return make


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """Two layers that move to the end, and a head."""
    first, second = moving(0), moving(1)
    path = tmp_path_factory.mktemp("control") / "run.zarr"
    layers = {
        "conv1": ("Conv2d", first),
        "relu": ("ReLU", first.clip(0)),
        "layer1": ("Sequential", second),
        "fc": ("Linear", head(second)),
    }
    return write_run(path, layers, labels=np.arange(N_SAMPLES) % 3)


def test_a_control_run_yields_no_advice_and_says_so(control):
    findings = diagnose(control)
    assert findings.advice == ()
    assert str(findings) == "There is nothing to say of single layers: no measure passes its threshold."


def test_there_is_a_row_for_every_layer_snapshot_and_measure_with_its_threshold(control):
    frame = diagnose(control).frame
    columns = ["layer", "snapshot", "epoch", "step", "measure", "value", "threshold", "noise_floor", "null", "evidence"]
    assert list(frame) == columns
    expected = [(layer, k, name) for layer in control.layers for k in range(N_SNAPSHOTS) for name in MEASURES]
    assert list(frame[["layer", "snapshot", "measure"]].itertuples(index=False, name=None)) == expected
    assert (frame["step"] == 10 * frame["snapshot"]).all()
    assert frame["threshold"].notna().equals(~frame["measure"].isin(["effective_rank", "cka_to_next"]))
    assert frame["evidence"].map(type).eq(str).all()


def test_there_is_a_row_for_every_layer_snapshot_and_channel(control):
    channels = diagnose(control).channels
    assert len(channels) == N_SNAPSHOTS * (3 * N_CHANNELS + 3)
    assert not channels[["dead", "noise"]].any().any()
    assert channels["duplicate_group"].isna().all()
    assert channels["permuted_from"].isna().all()
    first = channels["snapshot"] == 0
    assert (channels.loc[first, "drift"] == 0).all()
    assert channels["drift_step"].isna().equals(first)
    assert not channels[channels["layer"] == "conv1"]["converged"].any()


@pytest.mark.slow
def test_dead_and_revived_channels_are_found_and_named(planted):
    maps = moving()
    maps[:, :, 3] = 0
    maps[:, :, 5] = -2.5
    maps[3:, :, 8] = 1
    maps[:2, :, 11] = 0
    findings = planted(maps)
    assert flagged(findings, "dead", snapshot=0) == [3, 5, 11]
    assert flagged(findings, "dead", snapshot=5) == [3, 5, 8]
    assert values(findings, "dead").tolist() == [3, 3, 2, 3, 3, 3]
    assert values(findings, "revived").tolist() == [0, 0, 1, 0, 0, 0]
    assert findings.rows("revived", layer="conv1")["evidence"].tolist()[2] == "channel 11"
    by_layer = findings.rows("revived", layer=SimpleNamespace(name="conv1"))
    assert by_layer.equals(findings.rows("revived", layer="conv1"))
    assert only_text(findings, "dead") == (
        "conv1: 3 of 16 channels are dead (constant over the probe) at epoch 5: channels 3, 5, 8"
    )
    assert actions(findings) == [("conv1", "dead")]


@pytest.mark.slow
def test_dead_channels_are_reported_once_of_the_layer_that_they_come_from(tmp_path):
    maps = moving()
    maps[:, :, 3] = -1
    after = maps.clip(0)
    after[:, :, 7] = 0  # as a ReLU does that never fires
    layers = {"conv1": ("Conv2d", maps), "relu": ("ReLU", after), "pool": ("MaxPool2d", after[..., :4, :4])}
    findings = diagnose(write_run(tmp_path / "run.zarr", layers))
    dead = [each.text for each in findings.advice if each.action == "dead"]
    assert dead == [
        "conv1: 1 of 16 channels is dead (constant over the probe) from the first snapshot on: channel 3",
        "relu: 1 of 16 channels is dead (constant over the probe) from the first snapshot on: channel 7",
    ]
    assert values(findings, "dead", "pool").tolist() == [2] * N_SNAPSHOTS  # the measures say it of every layer


class Stream(nn.Module):
    """Two residual blocks; what a channel is after each is said by its shift."""

    def __init__(self, *, first: Sequence[float], second: Sequence[float]) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.after_a, self.after_b = nn.ReLU(), nn.ReLU()
        self.a.bias.data, self.b.bias.data = torch.tensor(first), torch.tensor(second)

    def forward(self, x):
        x = self.stem(x)
        x = self.after_a(self.a(x) + x)
        return self.after_b(self.b(x) + x).mean((2, 3))


@pytest.mark.slow
def test_a_channel_that_is_constant_after_one_block_is_not_dead_where_the_stream_goes_on(tmp_path):
    torch.manual_seed(0)
    model = Stream(first=[-1e3, -1e3, 5, 5], second=[5, -1e3, 5, 5]).eval()
    with Recorder(
        model, tmp_path / "run.zarr", layers=["after_a", "after_b"], probe=list(torch.randn(8, 3, 6, 6))
    ) as r:
        r.snapshot(epoch=0)
    findings = diagnose(open_run(tmp_path / "run.zarr"))
    assert [(each.layer, each.action) for each in findings.advice] == [("after_a", "dead"), ("after_a", "dead_here")]
    assert [each.text for each in findings.advice] == [
        "after_a: 1 of 4 channels is dead (constant over the probe in all of its residual stream that was recorded) "
        "from the first snapshot on: channel 1",
        "after_a: 1 of 4 channels is constant over the probe here, but alive in the residual stream (at after_b) from "
        "the first snapshot on: channel 0",
    ]


def test_duplicates_are_grouped_and_named(planted):
    maps = moving()
    maps[:, :, 4] = 2 * maps[:, :, 0] + 1
    maps[:, :, 7] = 0.5 * maps[:, :, 0]
    maps[:, :, 9] = maps[:, :, 2] + 0.05 * maps[:, :, 9]
    maps[:, :, 10] = -maps[:, :, 1]  # opposite, not a duplicate
    findings = planted(maps)
    last = findings.channels[(findings.channels["layer"] == "conv1") & (findings.channels["snapshot"] == 5)]
    groups = last.dropna(subset="duplicate_group").groupby("duplicate_group")["channel"].apply(list)
    assert groups.to_dict() == {0: [0, 4, 7], 2: [2, 9]}
    assert findings.rows("duplicates", layer="conv1")["evidence"].tolist() == ["0 = 4 = 7; 2 = 9"] * N_SNAPSHOTS
    rows = maps[-1].transpose(1, 0, 2, 3).reshape(N_CHANNELS, -1)
    spectrum = np.linalg.eigvalsh(np.cov(rows)).clip(0)
    share = spectrum / spectrum.sum()
    rank = np.exp(-(share * np.log(share.clip(1e-300))).sum())
    assert values(findings, "effective_rank")[-1] == pytest.approx(rank, rel=1e-5)
    assert only_text(findings, "duplicate") == (
        "conv1: 3 of 16 channels are at the last snapshot nearly the same as another (correlation 0.999 or more, 95 % "
        "interval from 0.999, on these 24 images; threshold 0.95): 0 = 4 = 7; 2 = 9"
    )
    assert actions(findings) == [("conv1", "duplicate")]
    evidence = findings.advice[0].evidence
    assert set(evidence["measure"]) == {"duplicates"}
    assert set(evidence["layer"]) == {"conv1"}


def test_a_single_duplicate_is_said_of_the_layer_that_it_comes_from_alone(tmp_path):
    maps = moving(n_channels=40)
    maps[:, :, 9] = maps[:, :, 2]
    layers = {"conv1": ("Conv2d", maps), "relu": ("ReLU", maps.clip(0))}
    findings = diagnose(write_run(tmp_path / "run.zarr", layers))
    assert values(findings, "duplicates").tolist() == [1] * N_SNAPSHOTS
    assert actions(findings) == [("conv1", "duplicate")]
    assert only_text(findings, "duplicate").startswith(
        "conv1: 1 of 40 channels is at the last snapshot nearly the same as another"
    )


@pytest.mark.slow
def test_feature_maps_alone_lead_to_no_advice_on_freezing_narrowing_or_shortening(tmp_path):
    """Layers that hardly move, are of low rank, and rotations of one another are found in untrained networks, too."""
    still = moving(angles=np.linspace(0, 0.1, N_SNAPSHOTS), n_channels=2)
    mixing = np.random.default_rng(5).normal(size=(30, 2))
    maps = np.einsum("ck,tnkhw->tnchw", mixing, still)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(30, 30)))[0]
    layers = {
        "layer1": ("Sequential", maps),
        "layer2": ("Sequential", np.einsum("dc,tnchw->tndhw", rotation, maps)),
        "fc": ("Linear", head(maps)),
    }
    findings = diagnose(write_run(tmp_path / "run.zarr", layers), thresholds=Thresholds(duplicate=1.0))
    assert findings.layers["converged"].notna().all()
    assert values(findings, "effective_rank", "layer1")[-1] < 2.1
    assert values(findings, "cka_to_next", "layer1")[-1] > 0.99
    assert findings.advice == ()


@pytest.mark.slow
def test_a_frozen_layer_did_not_change(planted):
    findings = planted(moving(angles=np.zeros(N_SNAPSHOTS)))
    assert str(findings) == (
        "conv1 did not change (largest drift of a channel 0.0000, over 6 snapshots; threshold 0.0010): frozen, "
        "learning rate 0, or hardly trained so far"
    )
    assert values(findings, "drift").tolist() == [0] * N_SNAPSHOTS
    assert set(findings.rows("cka_to_last", layer="conv1")["evidence"]) == {"did not change"}


def test_when_a_layer_converged_is_measured_and_is_no_advice(planted):
    findings = planted(moving(angles=SETTLES))
    row = findings.layers.set_index("layer").loc["conv1"]
    assert (row["converged"], row["converged_epoch"]) == (2, 2)
    cka = values(findings, "cka_to_last")
    assert cka[1] < row["level"] <= cka[2:].min()
    words = findings.rows("cka_to_last", layer="conv1")["evidence"].tolist()
    assert words == ["converges at epoch 2"] * 2 + ["converged at epoch 2"] * 4
    assert findings.advice == ()
    only_last = findings.rows("cka_to_last", layer="layer1")
    assert findings.layers.set_index("layer")["converged"].isna()["layer1"]
    assert set(only_last["evidence"]) == {"not converged: only the last snapshot itself reaches the threshold"}


@pytest.mark.slow
def test_an_epoch_with_several_snapshots_is_named_with_its_step(planted):
    findings = planted(moving(angles=SETTLES), epochs=[0, 1, 1, 1, 2, 3])
    assert findings.rows("cka_to_last", layer="conv1")["evidence"].iloc[0] == "converges at epoch 1 (step 20)"


@pytest.mark.slow
def test_the_floor_raises_the_level_at_which_a_layer_has_converged(planted):
    rng = np.random.default_rng(3)
    patterns = np.einsum("ck,tnkhw->tnchw", rng.normal(size=(64, 3)), moving(angles=SETTLES, n_channels=3))
    findings = planted(patterns, thresholds=Thresholds(cka=0.05))
    cka = values(findings, "cka_to_last")
    row = findings.layers.set_index("layer").loc["conv1"]
    assert row["noise_floor"] > 0.9  # any half of 64 mixtures of 3 patterns shows nearly the same
    assert row["level"] == row["noise_floor"]
    assert 0.05 < cka[1] < row["noise_floor"] < cka[2:].min()
    assert row["converged"] == 2
    assert (findings.rows("cka_to_last", layer="conv1")["noise_floor"] == row["noise_floor"]).all()


@pytest.mark.slow
def test_a_permuted_layer_is_told_from_one_that_changed(planted):
    maps = moving(angles=np.linspace(0, 0.1, N_SNAPSHOTS))
    to = np.roll(np.arange(N_CHANNELS), 5)
    maps[3:] = maps[3:][:, :, to]
    findings = planted(maps)
    assert values(findings, "permuted").tolist()[1:] == [0, 0, 16, 0, 0]
    at_three = findings.channels[(findings.channels["layer"] == "conv1") & (findings.channels["snapshot"] == 3)]
    assert at_three["permuted_from"].tolist() == to.tolist()
    assert values(findings, "drift_step")[3] > 1
    assert values(findings, "cka_to_last").min() > 0.98
    assert actions(findings) == [("conv1", "permuted")]
    text = only_text(findings, "permuted")
    assert "16 of 16 channels are in another's position since epoch 3" in text
    assert "CKA to the last snapshot 1.00 before and 1.00 after" in text


@pytest.mark.slow
def test_noise_channels_are_found_and_no_others(planted):
    maps = moving(angles=np.linspace(0, 1.2, N_SNAPSHOTS))
    maps[:, :, [2, 13]] = np.random.default_rng(8).normal(size=maps[:, :, [2, 13]].shape)
    findings = planted(maps)
    assert flagged(findings, "noise", snapshot=0) == [2, 13]
    text = only_text(findings, "noise")
    assert text.startswith("conv1: 2 of 16 channels are noise, unrelated to themselves from each snapshot to the next")
    assert text.endswith(": channels 2, 13")
    assert actions(findings) == [("conv1", "noise")]


@pytest.mark.slow
def test_what_only_rescales_and_the_head_are_never_advised_on(tmp_path):
    still = moving(angles=np.linspace(0, 0.1, N_SNAPSHOTS))
    layers = {
        "bn": ("BatchNorm2d", still),
        "relu": ("ReLU", still),
        "pool": ("AvgPool2d", still),
        "fc": ("Linear", head(still)),
    }
    findings = diagnose(write_run(tmp_path / "run.zarr", layers))
    assert findings.layers["converged"].tolist() == [0, 0, 0, 0]  # it is measured all the same
    assert not findings.layers["counts"].any()
    assert findings.advice == ()


def test_classes_separate_at_the_first_snapshot_close_to_the_best(tmp_path):
    labels = np.arange(N_SAMPLES) % 2
    maps = moving()
    maps[2:, labels == 1, :4] += 4
    run = write_run(tmp_path / "run.zarr", {"conv1": ("Conv2d", maps)}, labels=labels)
    findings = diagnose(run, thresholds=Thresholds(n_neighbors=5))
    row = findings.layers.iloc[0]
    assert (row["separated"], row["separated_epoch"]) == (2, 2)
    table = findings.rows("knn_accuracy")
    assert (table["value"].to_numpy()[2:] == 1).all()
    assert (table["value"].to_numpy()[:2] < 0.8).all()
    assert table["threshold"].tolist() == [0.98] * N_SNAPSHOTS
    assert table["null"].between(0.35, 0.65).all()
    assert table["evidence"].iloc[0] == "best 1.00 at epoch 2; separated at epoch 2"


def test_classes_that_are_as_mixed_as_by_chance_have_not_separated(control):
    findings = diagnose(control, layers=["conv1"])
    assert findings.layers["separated"].isna().all()
    assert findings.rows("knn_accuracy")["evidence"].str.endswith("; not separated").all()


@pytest.mark.slow
def test_without_labels_separation_is_not_available(planted):
    table = planted(moving()).rows("knn_accuracy")
    assert table["value"].isna().all()
    assert set(table["evidence"]) == {"not available: fewer than two classes are known"}


def test_samples_of_unknown_class_are_left_out_of_the_accuracy_alone(tmp_path):
    labels = np.arange(N_SAMPLES) % 2
    maps = moving()
    maps[:, labels == 1, :4] += 4
    unknown = np.where(np.arange(N_SAMPLES) < 6, -1, labels)
    run = write_run(tmp_path / "run.zarr", {"conv1": ("Conv2d", maps)}, labels=unknown)
    assert (diagnose(run).rows("knn_accuracy")["value"] == 1).all()


def test_a_part_of_the_snapshots_and_samples_is_diagnosed_as_a_run_of_these(control, tmp_path):
    found = diagnose(control, layers=["conv1"], snapshots=[1, 3, 4], samples=range(4, 20))
    maps = moving(0)[[1, 3, 4], 4:20]
    labels = np.arange(N_SAMPLES)[4:20] % 3
    same = write_run(tmp_path / "run.zarr", {"conv1": ("Conv2d", maps)}, labels=labels, steps=[10, 30, 40])
    expected = diagnose(same)
    assert found.frame["snapshot"].unique().tolist() == [1, 3, 4]
    pd.testing.assert_series_equal(found.frame["value"], expected.frame["value"])


@pytest.mark.parametrize("kind", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_an_executor_gives_the_same_numbers(control, kind):
    spawned = partial(ProcessPoolExecutor, mp_context=multiprocessing.get_context("spawn"))
    with (ThreadPoolExecutor if kind == "threads" else spawned)(2) as executor:
        found = diagnose(control, executor=executor)
    expected = diagnose(control)
    pd.testing.assert_frame_equal(found.frame, expected.frame, rtol=1e-6)
    pd.testing.assert_frame_equal(found.channels, expected.channels, rtol=1e-6)


@pytest.mark.slow
def test_a_small_budget_gives_the_same_numbers_and_too_small_a_one_is_refused(control):
    expected, found = diagnose(control), diagnose(control, max_bytes=400_000)
    pd.testing.assert_frame_equal(found.frame, expected.frame, rtol=1e-6)
    with pytest.raises(MemoryError, match="budget"):
        diagnose(control, max_bytes=20_000)


def test_layers_come_in_forward_order_each_once(control):
    assert diagnose(control, layers=["layer1", "conv1", "conv1"]).layers["layer"].tolist() == ["conv1", "layer1"]


def test_one_snapshot_says_nothing_of_time(tmp_path):
    run = write_run(tmp_path / "run.zarr", {"conv1": ("Conv2d", moving()[:1])})
    findings = diagnose(run)
    assert findings.advice == ()
    assert findings.layers["converged"].isna().all()
    assert findings.rows("cka_to_last")["evidence"].tolist() == ["not available: one snapshot"]
    assert not findings.channels["converged"].any()


def test_a_layer_of_one_channel_has_no_noise_floor(tmp_path):
    run = write_run(tmp_path / "run.zarr", {"conv1": ("Conv2d", moving(n_channels=1))})
    findings = diagnose(run)
    assert findings.layers["noise_floor"].isna().all()
    assert findings.layers["level"].tolist() == [0.95]
    assert findings.advice == ()


@pytest.mark.slow
def test_a_layer_that_is_dead_as_a_whole_is_reported_as_that(planted):
    findings = planted(np.zeros((N_SNAPSHOTS, N_SAMPLES, N_CHANNELS, 5, 5)))
    assert values(findings, "effective_rank").tolist() == [0] * N_SNAPSHOTS
    assert np.isnan(values(findings, "cka_to_last")).all()
    assert actions(findings) == [("conv1", "dead")]
    assert "conv1: 16 of 16 channels are dead" in str(findings)


@pytest.mark.slow
def test_snapshots_that_are_not_finite_are_left_out_and_an_error_where_asked_for(tmp_path):
    maps = moving()
    maps[2, 7, 1] = np.nan
    run = write_run(tmp_path / "run.zarr", {"conv1": ("Conv2d", maps)})
    with pytest.raises(ValueError, match=r"conv1 holds NaN or infinite values, first at snapshot 2"):
        diagnose(run, snapshots=[0, 1, 2])
    found = diagnose(run)
    assert found.left_out.to_dict("records") == [{"snapshot": 2, "epoch": 2, "step": 20, "layers": 1, "first": "conv1"}]
    without = diagnose(run, snapshots=[0, 1, 3, 4, 5])
    pd.testing.assert_frame_equal(found.frame, without.frame)
    left_out = "Left out: epoch 2 (snapshot 2), where it gave NaN or infinite values."
    assert str(found).splitlines() == [left_out, *str(without).splitlines()]


def test_what_is_no_run_no_thresholds_or_no_layer_is_refused(control):
    with pytest.raises(TypeError, match="received a str; expected Run, made by open_run"):
        diagnose("run.zarr")
    with pytest.raises(TypeError, match="expected Thresholds"):
        diagnose(control, thresholds={"dead": 0.1})
    with pytest.raises(TypeError, match=r"layers is the string 'conv1'; expected .* \['conv1'\]"):
        diagnose(control, layers="conv1")
    with pytest.raises(KeyError, match="did you mean conv1"):
        diagnose(control, layers=["conv11"])
    with pytest.raises(ValueError, match="layers is empty"):
        diagnose(control, layers=[])
    with pytest.raises(ValueError, match="3 samples; debiased CKA needs at least 4"):
        diagnose(control, samples=[0, 1, 2])
    with pytest.raises(ValueError, match="there is no measure 'deat'; expected one of dead, revived"):
        diagnose(control, layers=["fc"]).rows("deat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dead": -0.1}, "the threshold dead is -0.1; expected a number from 0 to 1"),
        ({"cka": 95}, "the threshold cka is 95; expected a number from 0 to 1"),
        ({"drift": "0.1"}, "the threshold drift is '0.1'"),
        ({"noise": float("nan")}, "the threshold noise is nan"),
        ({"n_neighbors": 0}, "n_neighbors is 0; expected an integer of at least 1"),
        ({"n_neighbors": 2.5}, "n_neighbors is 2.5"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Thresholds(**options)


@pytest.mark.parametrize("max_bytes", [1 << 28, 1 << 30])
def test_a_layer_is_examined_in_one_thread_whether_or_not_others_are_beside_it(control, max_bytes, monkeypatch):
    """The threads of BLAS, in products of a few images, and those that read would wait for one another."""
    seen = []

    def examine(layer, **options):
        seen.extend(each["num_threads"] for each in threadpool_info())
        return examine_layer(layer, **options)

    monkeypatch.setattr("fmcluster.analysis.diagnosis._diagnose.examine_layer", examine)
    with threadpool_limits(2):
        diagnose(control, max_bytes=max_bytes)
    assert set(seen) == {1}
