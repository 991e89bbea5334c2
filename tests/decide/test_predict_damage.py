"""Predicted damage: by hand, against changes made in the network itself, and beside what ablation measures."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.analysis import Damage
from fmcluster.capture import ModelInputs
from fmcluster.decide import (
    Depth,
    Groups,
    KernelSize,
    Network,
    PredictedDamage,
    Resolution,
    Separable,
    Width,
    predict_damage,
)
from fmcluster.decide._least_squares import kernel_patches
from fmcluster.store import KernelGeometry, Run


def summed(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, reduction="sum")


def recorded(model: nn.Module, probe: TensorDataset, path: Path, **options: Any) -> Run:
    how = {"layers": re.compile(".*"), "record": ("activation", "gradient"), "dtype": "float32", "batch_size": 7}
    with fm.Recorder(model.eval(), path, probe=probe, **how | options) as recorder:
        recorder.snapshot(epoch=4, loss=summed)
    return fm.open_run(path)


@pytest.fixture
def run(residual: nn.Module, probe: TensorDataset, tmp_path: Path) -> Run:
    return recorded(residual, probe, tmp_path / "run.zarr")


def rows(found: PredictedDamage, intervention: str) -> pd.DataFrame:
    return found.frame[found.frame["intervention"] == intervention].set_index(["layer", "what"])


def maps_of(run: Run, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    stored = run[layer]
    return tuple(torch.from_numpy(each.read(epoch=4)).double() for each in (stored, stored.gradient))


def noise(change: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Of each image: the squared first order of noise as large as the change."""
    return change.square().flatten(1).mean(1) * slope.square().flatten(1).sum(1)


def score(change: torch.Tensor, slope: torch.Tensor) -> tuple[float, float, float]:
    """Prediction of what an approximation leaves over, its standard error, and that of noise, from the definition."""
    each = (change * slope).square().flatten(1).sum(1)
    return each.mean().item(), (each.std() / len(each) ** 0.5).item(), noise(change, slope).mean().item()


def score_left_out(change: torch.Tensor, slope: torch.Tensor) -> tuple[float, float, float]:
    """The same of a layer that is left out."""
    first_order, null = (change * slope).flatten(1).sum(1).square(), noise(change, slope)
    found = (first_order.mean() * null.mean()).sqrt()
    # with x and y the two means: d sqrt(x y) = (dx / x + dy / y) sqrt(x y) / 2
    parts = found / 2 * (first_order / first_order.mean() + null / null.mean())
    return found.item(), (parts.std() / len(parts) ** 0.5).item(), null.mean().item()


def test_depth_and_resolution_are_their_definitions(run: Run) -> None:
    found = predict_damage(run)
    maps, slope = maps_of(run, "block1")
    row = rows(found, "depth").loc["block1", "replaced by the identity"]
    before = torch.relu(maps_of(run, "bn")[0])
    expected = score_left_out(before - maps, slope)
    np.testing.assert_allclose(row[["predicted", "predicted_se", "null"]].astype(float), expected, rtol=1e-4)
    others = [[other for other in range(len(maps)) if other != one] for one in range(len(maps))]
    without_one = [score_left_out((before - maps)[rows], slope[rows])[0] for rows in others]
    np.testing.assert_allclose(row["predicted_se"], np.sqrt(len(maps) - 1) * np.std(without_one), rtol=0.25)
    maps, slope = maps_of(run, "stem")
    small = maps.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    back = functional.interpolate(small, size=(8, 8), mode="bilinear", align_corners=False)
    row = rows(found, "resolution").loc["stem", "8 x 8 to 4 x 4"]
    expected = score(back - maps, slope)
    np.testing.assert_allclose(row[["predicted", "predicted_se", "null"]].astype(float), expected, rtol=1e-4)
    variance = (maps - maps.mean((0, 2, 3), keepdim=True)).square().flatten(1).sum(1).mean()
    np.testing.assert_allclose(row["relative"], (back - maps).square().flatten(1).sum(1).mean() / variance, rtol=1e-4)
    assert found.epoch == 4
    assert found.n_samples == 24


@pytest.mark.slow
def test_the_inner_kernel_is_the_least_squares_fit_of_what_the_layer_returned(run: Run) -> None:
    maps, slope = maps_of(run, "block2.conv1")
    given = maps_of(run, "block1")[0]
    columns = given[:, :, ::2, ::2].movedim(1, -1).reshape(-1, 8)  # of stride 2, padded by 1: the middle of the kernel
    design = np.column_stack([columns.numpy(), np.ones(len(columns))])
    target = maps.movedim(1, -1).reshape(-1, 16).numpy()
    fit = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    change = torch.from_numpy(fit - target).reshape(24, 4, 4, 16).movedim(-1, 1)
    row = rows(predict_damage(run), "kernel size").loc["block2.conv1", "3 x 3 to 1 x 1"]
    np.testing.assert_allclose(row[["predicted", "null"]].astype(float), score(change, slope)[::2], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [Separable(), Groups()])
def test_other_kernels_are_those_that_ablation_would_build(
    residual: nn.Module, probe: TensorDataset, run: Run, asked: Separable | Groups
) -> None:
    given, (maps, slope) = maps_of(run, "block1")[0], maps_of(run, "block2.conv1")
    network = Network(residual, [ModelInputs((probe.tensors[0],), {})], loss=None)
    expected = {}
    for change in asked.changes(network, ["block2.conv1"]):
        weight = change.fit(network).weights["block2.conv1.weight"].double()
        made = functional.conv2d(given, weight, stride=2, padding=1)
        expected[change.what] = score(made - maps, slope)
    assert len(expected) == (3 if asked == Separable() else 2)
    found = rows(predict_damage(run), asked.name).loc["block2.conv1"]
    assert set(found.index) == set(expected)
    for what, values in expected.items():
        columns = found.loc[what, ["predicted", "predicted_se", "null"]].astype(float)
        np.testing.assert_allclose(columns, values, rtol=1e-2)


@pytest.mark.slow
def test_removed_channels_are_the_least_squares_fit_of_the_others(plain: nn.Module, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    probe = TensorDataset(torch.randn(12, 3, 8, 8, generator=generator), torch.arange(12) % 4)
    run = recorded(plain, probe, tmp_path / "run.zarr")
    maps, slope = maps_of(run, "relu1")  # where the second convolution reads the channels of the first
    flat = maps.movedim(1, -1).reshape(-1, 6).numpy()
    energy = slope.square().mean((0, 2, 3)).numpy()
    losses = []
    for channel in range(6):
        others = np.column_stack([np.delete(flat, channel, axis=1), np.ones(len(flat))])
        fit = others @ np.linalg.lstsq(others, flat[:, channel], rcond=None)[0]
        losses.append((np.mean((fit - flat[:, channel]) ** 2) * energy[channel], fit))
    least = int(np.argmin([loss for loss, _ in losses]))
    change = torch.zeros_like(maps)
    change[:, least] = torch.from_numpy(losses[least][1]).reshape(12, 8, 8) - maps[:, least]
    row = rows(predict_damage(run), "width").loc["conv1", "1 of 6 channels removed"]
    np.testing.assert_allclose(row["predicted"], score(change, slope)[0], rtol=1e-3)


def test_small_changes_cost_what_is_predicted(residual: nn.Module, probe: TensorDataset, run: Run) -> None:
    """The signed sum of gradient times change is the change of the loss, as the change goes to zero."""
    maps, slope = maps_of(run, "block1.conv2")
    small = functional.avg_pool2d(maps, 2)
    change = functional.interpolate(small, size=(8, 8), mode="bilinear", align_corners=False) - maps
    expected = (change * slope).sum().item()

    def hook(_module: nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        return output + 1e-4 * change.to(output.dtype)

    model = residual.double()
    images, labels = probe.tensors
    with torch.no_grad():
        before = summed(model(images.double()), labels)
        handle = model.block1.conv2.register_forward_hook(hook)
        after = summed(model(images.double()), labels)
        handle.remove()
    np.testing.assert_allclose((after - before).item() / 1e-4, expected, rtol=1e-2)


@pytest.mark.slow
def test_blocks_of_one_image_give_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = ["bn", "block1.conv2"]
    whole = predict_damage(run, layers=layers).frame
    monkeypatch.setattr("fmcluster.decide._predict_damage._BLOCK_BYTES", 8 * 8 * 64)
    parts = predict_damage(run, layers=layers).frame
    assert len(whole) > 3
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [
        {"kernel_size": 5, "stride": 2, "padding": 2},
        {"kernel_size": (3, 5), "stride": (3, 1), "padding": (0, 3), "dilation": (2, 1)},
        {"kernel_size": 5, "padding": "same", "groups": 2},
    ],
)
def test_rows_of_an_image_taken_one_after_the_other_give_the_same(
    probe: TensorDataset, tmp_path: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, **made), nn.Flatten(), nn.LazyLinear(4))
    model(probe.tensors[0])
    run = recorded(model, probe, tmp_path / "run.zarr")
    whole = predict_damage(run, layers=["2"]).frame
    seen = []

    def patches(inputs: torch.Tensor, kernel: KernelGeometry, *, rows: range) -> torch.Tensor:
        seen.append((len(inputs), rows))
        return kernel_patches(inputs, kernel, rows=rows)

    monkeypatch.setattr("fmcluster.decide._predicted_changes.kernel_patches", patches)
    monkeypatch.setattr("fmcluster.decide._predict_damage._BLOCK_BYTES", 8 * 8 * 8 * 8)
    parts = predict_damage(run, layers=["2"]).frame
    height = run["2"].shape[-2]
    assert {images for images, _ in seen} == {1}
    assert sum(len(rows) for _, rows in seen) == 24 * height
    assert len(seen) > 24
    assert "kernel size" in set(whole["intervention"])
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-5)


@pytest.mark.slow
def test_agreement_is_that_of_ranks(run: Run, residual: nn.Module, probe: TensorDataset) -> None:
    found = predict_damage(run)
    asked = [Depth(), KernelSize(), Resolution(), Width(shares=(0.25, 0.5, 0.75))]
    damage = fm.ablate(residual, probe, interventions=asked, n_null=0)
    agreement = found.agreement(damage).set_index("intervention")
    both = found.frame.merge(
        damage.frame[["intervention", "layer", "what", "kl"]], on=["intervention", "layer", "what"]
    )
    for intervention, part in both.groupby("intervention"):
        row = agreement.loc[intervention]
        assert row["n"] == len(part) > 0
        if part["layer"].nunique() < 4:
            assert row.drop("n").isna().all()
            continue
        expected = part["predicted"].rank().corr(part["kl"].rank())
        np.testing.assert_allclose(row["rank_correlation"], expected)
        assert row["low"] <= row["high"]
    assert agreement.loc["kernel size", "rank_correlation"] > 0.5


def damage_and_prediction(predicted: list[float], kl: list[float], layers: list[str]) -> tuple[Damage, PredictedDamage]:
    rows = pd.DataFrame({"layer": layers, "predicted": predicted, "kl": kl})
    rows = rows.assign(
        intervention="kernel size", what=[str(number) for number in range(len(rows))], how="", relative=1
    )
    nothing = pd.DataFrame()
    damage = Damage(rows.reindex(columns=Damage.COLUMNS), nothing, 0.5, 0.9, 40, {})
    return damage, PredictedDamage(rows.reindex(columns=PredictedDamage.COLUMNS), nothing, 40, 0, 0)


def test_how_far_off_a_prediction_is_of_layers_that_were_left_out() -> None:
    """Against lines that numpy fits, once for each layer that is left out; what does nothing has no logarithm."""
    draw = np.random.default_rng(0)
    predicted = draw.lognormal(size=12)
    kl = predicted**0.7 * draw.lognormal(sigma=0.5, size=12)
    layers = [f"conv{number // 2}" for number in range(12)]
    damage, found = damage_and_prediction([*predicted, 0.0, 1.0], [*kl, 0.1, 0.0], [*layers, "conv0", "conv1"])
    (row,) = found.agreement(damage).to_dict("records")
    x, y = np.log(predicted), np.log(kl)
    inside = y - np.polyval(np.polyfit(x, y, 1), x)
    outside = []
    for layer in range(6):
        others = [number for number in range(12) if number // 2 != layer]
        line = np.polyfit(x[others], y[others], 1)
        outside += [y[number] - np.polyval(line, x[number]) for number in (2 * layer, 2 * layer + 1)]
    assert row["n"] == 14
    assert row["factor"] == pytest.approx(np.exp(np.sqrt(np.mean(np.square(inside)))))
    assert row["factor_left_out"] == pytest.approx(np.exp(np.sqrt(np.mean(np.square(outside)))))
    assert row["factor"] < row["factor_left_out"]


def test_of_three_layers_nothing_is_said_of_a_fourth() -> None:
    damage, found = damage_and_prediction([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 5.0], ["a", "b", "c", "c"])
    (row,) = found.agreement(damage).set_index("intervention").to_dict("records")
    assert row.pop("n") == 4
    assert len(row) == 6
    assert np.isnan(list(row.values())).all()


def test_of_two_layers_with_many_changes_no_interval_is_told() -> None:
    predicted = [float(number) for number in range(1, 21)]
    damage, found = damage_and_prediction(predicted, predicted, ["a", "b"] * 10)
    assert found.agreement(damage)[["rank_correlation", "low", "high", "of_relative"]].isna().all(axis=None)
    damage, found = damage_and_prediction(predicted, predicted, ["a", "b", "c", "d"] * 5)
    assert found.agreement(damage)["rank_correlation"].item() == pytest.approx(1)


@pytest.mark.slow
def test_only_what_is_promising_is_measured(run: Run, residual: nn.Module, probe: TensorDataset) -> None:
    predicted = predict_damage(run)
    frame = predicted.frame[predicted.frame["intervention"] != "groups"]  # of which nothing is known then
    predicted = replace(predicted, frame=frame)
    asked = [Resolution(), KernelSize(), Groups(counts=(2,))]
    some = fm.ablate(residual, probe, interventions=asked, predicted=predicted, n_promising=2, n_null=0)
    every = fm.ablate(residual, probe, interventions=asked, n_null=0)
    promising = {name: set(predicted.least(name, n=2)["layer"]) for name in ("resolution", "kernel size")}
    for name, layers in promising.items():
        there = set(predicted.frame.loc[predicted.frame["intervention"] == name, "layer"])
        unknown = set(every.frame.loc[every.frame["intervention"] == name, "layer"]) - there
        assert set(some.frame.loc[some.frame["intervention"] == name, "layer"]) == layers | unknown
        passed_over = some.skipped[some.skipped["reason"].str.contains("among the 2 that are predicted to do least")]
        assert set(passed_over.loc[passed_over["intervention"] == name, "layer"]) == there - layers
    of_groups = [each.frame[each.frame["intervention"] == "groups"].reset_index(drop=True) for each in (some, every)]
    pd.testing.assert_frame_equal(*of_groups)
    assert every.agreement is None
    pd.testing.assert_frame_equal(some.agreement, predicted.agreement(some))


@pytest.mark.slow
def test_layers_that_cannot_be_changed_do_not_count_among_the_promising(
    run: Run, residual: nn.Module, probe: TensorDataset
) -> None:
    predicted = predict_damage(run)
    every = fm.ablate(residual, probe, interventions=[Width()], n_null=0)
    tied = set(every.skipped["layer"]) - set(every.frame["layer"])
    of_width = predicted.frame["intervention"] == "width"
    assert tied & set(predicted.frame.loc[of_width, "layer"])
    frame = predicted.frame.copy()
    frame.loc[of_width & frame["layer"].isin(tied), "predicted"] = -1.0  # the most promising cannot be made
    some = fm.ablate(
        residual, probe, interventions=[Width()], predicted=replace(predicted, frame=frame), n_promising=1, n_null=0
    )
    first = frame[of_width & ~frame["layer"].isin(tied)].nsmallest(1, "predicted")["layer"].item()
    known = set(frame.loc[of_width, "layer"])
    assert set(some.frame["layer"]) & known == {first}
    assert tied & known <= set(some.skipped["layer"])


def test_what_is_not_known_is_said(residual: nn.Module, probe: TensorDataset, tmp_path: Path) -> None:
    run = recorded(residual, probe, tmp_path / "run.zarr", layers=["block1.conv2", "block2"], max_size=4)
    found = predict_damage(run)
    reasons = found.skipped.set_index(["layer", "intervention"])["reason"]
    assert reasons["block1.conv2", "all"] == "a part of its feature maps was recorded, or their averages"
    assert reasons["block2", "depth"] == "what it was given is not recorded"
    assert "layers were left out by some" in str(found)


def test_channels_of_what_the_network_returns_are_not_removed(
    run: Run, plain: nn.Module, probe: TensorDataset, tmp_path: Path
) -> None:
    scores_first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    fully_convolutional = recorded(scores_first, probe, tmp_path / "scores.zarr")
    for each, head in (
        (run, "head"),
        (recorded(plain, probe, tmp_path / "plain.zarr"), "fc"),
        (fully_convolutional, "0"),
    ):
        found = predict_damage(each)
        assert head not in rows(found, "width").index.get_level_values("layer")
        of_width = found.skipped[found.skipped["intervention"] == "width"].set_index("layer")["reason"]
        assert of_width[head] == "its channels are what the network returns, such as scores of classes"
    assert "stem" in rows(predict_damage(run), "width").index.get_level_values("layer")


def test_convolutions_that_are_not_two_dimensional_are_listed(probe: TensorDataset, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv1d(3, 6, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 4))
    series = TensorDataset(probe.tensors[0].flatten(2), probe.tensors[1])
    skipped = predict_damage(recorded(model, series, tmp_path / "series.zarr")).skipped
    reasons = skipped[skipped["layer"] == "0"].set_index("intervention")["reason"]
    for asked in ("kernel size", "separable", "groups", "resolution"):
        assert reasons[asked] == "it is a Conv1d, not a 2-D convolution"


def test_kernels_that_pad_otherwise_are_listed(probe: TensorDataset, tmp_path: Path) -> None:
    conv = nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect")
    model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    found = predict_damage(recorded(model, probe, tmp_path / "reflect.zarr"))
    reasons = found.skipped[found.skipped["layer"] == "0"].set_index("intervention")["reason"]
    for asked in ("kernel size", "separable", "groups"):
        assert "pads with other values than zeros" in reasons[asked]
    assert len(rows(found, "resolution"))


@pytest.mark.slow
def test_kernels_whose_moments_do_not_fit_are_listed(probe: TensorDataset, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 7, groups=2), nn.Flatten(), nn.LazyLinear(4))
    model(probe.tensors[0])
    run = recorded(model, probe, tmp_path / "run.zarr")
    moments = 8 * 7 * 99**2  # of two groups of 98 weights and a constant, and five matrices while they are solved
    assert "kernel size" in set(predict_damage(run, layers=["1"], max_bytes=moments).frame["intervention"])
    found = predict_damage(run, layers=["1"], max_bytes=moments - 1)
    reasons = found.skipped.set_index("intervention")["reason"]
    assert reasons["kernel size"] == "the moments of its kernel take 1 MiB while it is fitted, over max_bytes"
    assert "kernel size" not in set(found.frame["intervention"])


def test_what_cannot_be_asked(run: Run, residual: nn.Module, probe: TensorDataset, tmp_path: Path) -> None:
    assert fm.predict_damage is predict_damage
    with pytest.raises(TypeError, match="predict_damage received a str; expected Run, made by open_run"):
        predict_damage("run.zarr")
    with pytest.raises(TypeError, match=r"layers is the string 'stem'; expected a sequence of names: \['stem'\]"):
        predict_damage(run, layers="stem")
    with pytest.raises(ValueError, match="nothing was predicted of 'groups'; expected one of"):
        predict_damage(run, layers=["stem"]).least("groups")
    with pytest.raises(ValueError, match="there is one image; expected at least two"):
        predict_damage(run, samples=[0])
    with pytest.raises(MemoryError, match="while it is changed, the budget is"):
        predict_damage(run, max_bytes=1000)
    path = tmp_path / "plain.zarr"
    with fm.Recorder(residual, path, probe=probe, layers=["stem"]) as recorder:
        recorder.snapshot(epoch=0)
    with pytest.raises(ValueError, match="holds no gradients of stem; expected some"):
        predict_damage(fm.open_run(path))
