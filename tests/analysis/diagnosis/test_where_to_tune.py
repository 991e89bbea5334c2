"""Where to tune: the head where features hold the classes, up to where inputs shifted where they do not, or all."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

import fmcluster as fm
from fmcluster.analysis import Thresholds, normalization_shift
from fmcluster.analysis.diagnosis import Advice
from fmcluster.analysis.diagnosis._where_to_tune import _entrance, _gain, _head
from fmcluster.store import Run
from tests.analysis.shifted_runs import CLASS, N_IMAGES, NOISY, Net, images, make_network, record, trained


@pytest.fixture(scope="module")
def network() -> Net:
    return make_network()


@pytest.fixture
def clean(network: Net, tmp_path: Path) -> Run:
    return record(tmp_path / "clean.zarr", images(seed=1), network)


def tuning(run: Run, clean: Run | None, **thresholds: float) -> list[Advice]:
    found = fm.diagnose(run, clean=clean, thresholds=Thresholds(**thresholds)).advice
    return [each for each in found if each.action == "tune"]


def test_where_inputs_shifted_the_network_is_tuned_up_to_there(network: Net, clean: Run, tmp_path: Path) -> None:
    run = record(tmp_path / "run.zarr", images(seed=2, shift=5.0), network, trained(network))
    (advice,) = tuning(run, clean, n_neighbors=9)  # an odd number: of two classes, no ties
    assert (advice.layer, advice.until) == ("pool", "bn1")
    labels = np.arange(N_IMAGES) % 2
    right = [
        cross_val_predict(KNeighborsClassifier(9), run["pool"].read(snapshot=at), labels, cv=LeaveOneOut()) == labels
        for at in (0, 1)
    ]
    difference = right[1].astype(float) - right[0]
    error = 1.96 * difference.std(ddof=1) / np.sqrt(N_IMAGES)
    ratio = normalization_shift(run, clean=clean).set_index("layer")["ratio"]
    assert ratio["bn1"] > 2 * ratio["bn2"]
    points = [f"{100 * value:+.0f}" for value in (difference.mean(), *(difference.mean() + error * np.array([-1, 1])))]
    assert advice.text == (
        "Tune the network up to bn1, and its head; freeze the weights behind it, and let all statistics follow the "
        f"images: on these 60 images, nearest neighbors in the feature maps of pool are right on {right[0].mean():.0%} "
        f"at epoch 0, and on {right[1].mean():.0%} at epoch 1 ({points[0]} points, 95 % interval {points[1]} to "
        f"{points[2]}), and before it the inputs of bn1 are {ratio['bn1']:.1f} times as far from its statistics as "
        f"those of known data, those behind it at most {ratio['bn2']:.1f} times. To beat: statistics of the "
        "normalizations that follow the images, with the head"
    )


def test_what_the_network_itself_is_right_on_counts_where_that_is_more(
    network: Net, clean: Run, tmp_path: Path
) -> None:
    end = trained(network)
    with torch.no_grad():  # noise is most of what neighbors see, and the head leaves it out
        end.conv.weight[:, CLASS] *= 0.3
        end.conv.weight[:, NOISY] *= 3
        inverse = torch.linalg.pinv(end.conv.weight[:, :, 0, 0] / end.bn2.running_var.sqrt()[:, None])
        end.fc.weight[0], end.fc.weight[1] = -inverse[CLASS], inverse[CLASS]
        end.fc.bias.zero_()
    run = record(tmp_path / "run.zarr", images(seed=2, shift=5.0), network, end, layers=["pool", "fc"])
    own = [(run["fc"].read(snapshot=at).argmax(axis=1) == np.arange(N_IMAGES) % 2).mean() for at in (0, 1)]
    neighbors = fm.diagnose(run).rows("knn_accuracy", layer="pool")["value"].tolist()
    assert own[0] > neighbors[0]
    assert own[1] > neighbors[1]
    (advice,) = tuning(run, clean)
    assert f"the network itself is right on {own[0]:.0%} at epoch 0, and on {own[1]:.0%} at epoch 1 (" in advice.text
    end.fc.weight.data.zero_()  # it always names the first class
    run = record(tmp_path / "other.zarr", images(seed=2, shift=5.0), network, end, layers=["pool", "fc"])
    said = f"the network itself is right on {own[0]:.0%} at epoch 0, and nearest neighbors in the feature maps of pool "
    (advice,) = tuning(run, clean)
    assert f"{said}on {neighbors[1]:.0%} at epoch 1 (" in advice.text


def test_where_inputs_did_not_shift_all_is_tuned(network: Net, clean: Run, tmp_path: Path) -> None:
    run = record(tmp_path / "run.zarr", images(seed=2), network, trained(network))
    (advice,) = tuning(run, clean)
    assert advice.until is None
    assert "that is no shift (threshold 3)" in advice.text
    assert normalization_shift(run, clean=clean)["ratio"].max() < 3


def test_where_features_hold_the_classes_before_the_head_is_enough(network: Net, clean: Run, tmp_path: Path) -> None:
    start, end = trained(network), trained(network)
    with torch.no_grad():
        end.conv.weight[0, NOISY] += 0.1
    run = record(tmp_path / "run.zarr", images(seed=2, shift=5.0), start, end)
    (advice,) = tuning(run, record(tmp_path / "known.zarr", images(seed=1), start))
    assert advice.until == ""
    assert advice.text.startswith(
        "Tune the head alone: on these 60 images, nearest neighbors in the feature maps of pool"
    )


def test_nothing_is_said_where_nothing_tells(network: Net, clean: Run, tmp_path: Path) -> None:
    probe = images(seed=2, shift=5.0)
    head = trained(network)
    with torch.no_grad():
        head.fc.weight += 1
    # the body was not trained; its features were no better than chance, before and after; nothing was asked
    still = record(tmp_path / "still.zarr", probe, trained(network), head)
    assert tuning(still, clean) == []
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.conv.weight[0, NOISY] += 0.1
    assert tuning(record(tmp_path / "chance.zarr", probe, network, other), clean) == []
    run = record(tmp_path / "run.zarr", probe, network, trained(network))
    assert tuning(run, None) == []
    assert tuning(record(tmp_path / "one.zarr", probe, network), clean) == []


def test_nothing_is_said_where_the_probe_is_too_small_to_tell(network: Net, clean: Run, tmp_path: Path) -> None:
    probe, hardly = images(seed=2, shift=5.0), copy.deepcopy(network)
    with torch.no_grad():
        hardly.conv.weight[:, CLASS] = 0.04 * torch.tensor([1.0, 1, -1, 1])[:, None, None]
    run = record(tmp_path / "run.zarr", probe, network, hardly)
    labels = np.arange(N_IMAGES) % 2
    right = [
        cross_val_predict(KNeighborsClassifier(9), run["pool"].read(snapshot=at), labels, cv=LeaveOneOut()) == labels
        for at in (0, 1)
    ]
    gain = _gain(*right)
    assert gain.lower <= 0 < 0.02 < gain.upper
    assert tuning(run, clean, n_neighbors=9) == []


@pytest.mark.parametrize(
    ("ratios", "until", "why"),
    [
        (
            [1.0, 9.0, 4.0],
            "b",
            "the inputs of b are 9.0 times as far from its statistics as those of known data, those",
        ),
        ([1.0, 9.0, 5.0], None, "those behind it at most 5.0 times: more than one part is shifted"),
        (
            [1.0, 5.0, 9.0],
            None,
            "the inputs of c are 9.0 times as far from its statistics as those of known data; it is",
        ),
        ([2.9, 1.0, 1.0], None, "those of no other farther: that is no shift (threshold 3)"),
        ([np.nan, np.nan, 4.0], None, "it is the last normalization"),
        ([8.0, np.nan, 4.0], "a", "those behind it at most 4.0 times"),
        ([np.nan] * 3, None, "of no normalization it is known how far its inputs shifted"),
    ],
)
def test_what_is_new_entered_before_what_shifted_clearly_most(ratios: list[float], until: str | None, why: str) -> None:
    found = _entrance(pd.DataFrame({"layer": ["a", "b", "c"], "ratio": ratios}), 3.0)
    assert found[0] == until
    assert why in found[1]


def test_runs_without_weights_are_refused(network: Net, clean: Run, tmp_path: Path) -> None:
    run = record(tmp_path / "run.zarr", images(seed=2), network, trained(network), record=("activation",))
    with pytest.raises(ValueError, match="holds no inputs of BatchNorms"):
        fm.diagnose(run, clean=clean)
    with pytest.raises(TypeError, match="diagnose received a str; expected Run"):
        fm.diagnose(run, clean="clean.zarr")


def test_what_a_head_is_given_is_not_taken_for_its_scores(network: Net, clean: Run, tmp_path: Path) -> None:
    assert _head(clean) is None  # the feature maps before it alone were recorded
    whole = record(tmp_path / "whole.zarr", images(seed=1), network, layers=["pool", "fc"])
    head = _head(whole)
    assert head is not None
    assert head.name == "fc"


def test_the_interval_is_paired_over_the_images() -> None:
    first, last = np.array([1, 0, 0, 1, 0], bool), np.array([1, 1, 1, 0, 0], bool)
    gain = _gain(first, last)
    assert gain.mean == pytest.approx(0.2)
    half = 1.96 * np.sqrt(0.7 / 5)  # the differences are 0, 1, 1, -1, 0: their variance is (3 - 5 * 0.04) / 4
    assert (gain.lower, gain.upper) == (pytest.approx(0.2 - half), pytest.approx(0.2 + half))
