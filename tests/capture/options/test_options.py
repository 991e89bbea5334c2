"""What is kept of a layer: what the options mean, and what they may not be."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fmcluster.capture.forward._hooks import Firing
from fmcluster.capture.layers._axis_tracker import ChannelAxis
from fmcluster.capture.layers._layers import FirstOutput, plan_layer
from fmcluster.capture.options._options import Keep, Reduction
from fmcluster.capture.transfer._reduce import reduce_with_torch, stored_shape

NAMES = ("layer1.0", "layer1.0", "layer1.0.call0")
MAPS = (8, 20, 30)


def of(shape: tuple[int, ...] = MAPS, names: tuple[str, ...] = NAMES, **options: Any) -> Reduction:
    return Keep(**options).of(names, shape)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "bfloat16"}, ValueError, "dtype is 'bfloat16'; expected one of float16, float32"),
        ({"dtype": {"a": "float16", "b": "int8"}}, ValueError, "dtype is 'int8'"),
        ({"overflow": "wrap"}, ValueError, "overflow is 'wrap'; expected 'error' or 'clip'"),
        ({"record": ("gradient",)}, ValueError, "record is .*expected .'activation',. or"),
        ({"record": ("weight",)}, ValueError, "record is .* with or without 'weight'"),
        ({"record": tuple("activation")}, ValueError, "record is"),
        ({"max_size": 0}, ValueError, "max_size is 0; expected a positive number of pixels"),
        ({"max_size": -7}, ValueError, "max_size is -7"),
        ({"max_size": True}, ValueError, "max_size is True"),
        ({"max_size": 3.5}, ValueError, "max_size is 3.5"),
        ({"max_size": "7"}, ValueError, "max_size is '7'"),
        ({"max_size": (7,)}, ValueError, r"max_size is \(7,\)"),
        ({"max_size": (7, 0)}, ValueError, r"max_size is \(7, 0\)"),
        ({"max_size": {"conv1": (7, 7, 7)}}, ValueError, "max_size is"),
        ({"crop": slice(0, 3)}, TypeError, "crop is slice.*expected .slice of rows, slice of columns."),
        ({"crop": (slice(0, 3), 5)}, TypeError, "crop is"),
        ({"crop": {"conv1": (1, 2)}}, TypeError, "crop is"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant_are_refused_at_once(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Keep(**options)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (slice(None), None),
        (range(8), None),
        (None, None),
        (slice(0, 3), (0, 1, 2)),
        (slice(-2, None), (6, 7)),
        (slice(None, None, 3), (0, 3, 6)),
        (slice(5, 100), (5, 6, 7)),
        ([5, 0], (5, 0)),
        (range(7, -1, -1), (7, 6, 5, 4, 3, 2, 1, 0)),
        (np.array([1, 4]), (1, 4)),
        ([np.int64(2), np.uint8(7)], (2, 7)),
        (torch.tensor([3, 1]), (3, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(8,), (5, 8), MAPS], ids=["vectors", "tokens", "maps"])
def test_channels_in_their_order(channels: Any, expected: tuple | None, shape: tuple) -> None:
    found = of(shape, channels=channels).channels
    assert found == expected
    assert found is None or all(type(c) is int for c in found)


@pytest.mark.parametrize(
    ("channels", "error"),
    [
        ([0, 8], ValueError),
        ([-1], ValueError),
        ([2, 2], ValueError),
        ([], ValueError),
        (slice(3, 3), ValueError),
        (3, TypeError),
        ([0.0, 1.7], TypeError),
        ([True, False], TypeError),
        (np.array([True, False]), TypeError),
        (torch.tensor([True, False]), TypeError),
        (["0"], TypeError),
    ],
    ids=str,
)
def test_channels_that_are_not_there_or_no_numbers_are_refused_by_layer(channels: Any, error: type) -> None:
    expected = r"expected (numbers from 0 to 7, each once|a slice, or numbers of channels)"
    with pytest.raises(error, match=rf"channels of layer 'layer1.0': received .*; {expected}"):
        of(channels=channels)


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        ((slice(None), slice(None)), ((0, 20), (0, 30))),
        ((slice(2, 5), slice(10, 99)), ((2, 5), (10, 30))),
        ((slice(-4, None), slice(None, -28)), ((16, 20), (0, 2))),
    ],
    ids=str,
)
def test_a_crop_in_the_maps_own_pixels(crop: tuple, expected: tuple) -> None:
    assert of(crop=crop).crop == expected


@pytest.mark.parametrize("rows", [slice(5, 5), slice(9, 3), slice(20, 30), slice(0, 9, 2), slice(9, 0, -1)], ids=str)
def test_a_crop_that_leaves_nothing_or_has_steps_is_refused_by_layer(rows: slice) -> None:
    for crop in ((rows, slice(None)), (slice(None), rows)):
        if crop == (slice(None), slice(20, 30)):
            continue  # the maps are wide enough
        with pytest.raises(ValueError, match=r"crop of layer 'layer1.0' is.*maps of 20 x 30 pixels.*leave something"):
            of(crop=crop)


@pytest.mark.parametrize(
    ("max_size", "crop", "expected"),
    [
        (7, None, (7, 7)),
        ((7, 4), None, (7, 4)),
        (25, None, (20, 25)),  # no map is ever enlarged
        (30, None, None),
        (1000, None, None),
        ((20, 30), None, None),
        (7, (slice(0, 5), slice(0, 9)), (5, 7)),
        (9, (slice(0, 5), slice(0, 9)), None),
    ],
    ids=str,
)
def test_larger_maps_are_averaged_down(max_size: Any, crop: tuple | None, expected: tuple | None) -> None:
    assert of(max_size=max_size, crop=crop).size == expected


@pytest.mark.parametrize("shape", [(8,), (5, 8)], ids=["vectors", "tokens"])
def test_what_are_no_maps_is_neither_cropped_nor_averaged(shape: tuple) -> None:
    assert of(shape, crop=(slice(0, 1), slice(0, 1)), max_size=1) == Reduction("float16")


def test_an_option_by_layer_is_that_of_the_first_pattern_that_fits() -> None:
    dtype = {"layer?.0": "float32", "layer1.*": "float16", "fc": "float32"}
    assert of(names=("layer1.0",) * 3, dtype=dtype).dtype == "float32"
    assert of(names=("layer1.1",) * 3, dtype=dtype).dtype == "float16"
    assert of((8,), names=("fc",) * 3, dtype=dtype).dtype == "float32"
    assert of(names=("layer1.0.relu",) * 3, dtype=dtype).dtype == "float16"  # what no pattern fits
    names = ("relu", "relu[0]", "relu.call1[0]")
    for pattern in (*names, "re*", "relu.*"):
        assert of(names=names, max_size={pattern: 3}).size == (3, 3)
    assert of(names=names, max_size={"relu.call0[0]": 3}).size is None


def test_a_pattern_of_no_layer_is_refused() -> None:
    keep = Keep(dtype={"conv1": "float32"}, channels={"lay*": [0]}, crop={"fc?": (slice(0, 1),) * 2}, max_size={"x": 1})
    with pytest.raises(ValueError, match="no recorded layer is called 'x'; it has: conv1, layer1, fc1"):
        keep.check_names(iter(["conv1", "layer1", "fc1"]))
    keep.check_names(["conv1", "layer1", "fc1", "x"])
    for missing in ("conv1", "layer1", "fc1"):
        with pytest.raises(ValueError, match="no recorded layer is called"):
            keep.check_names({"conv1", "layer1", "fc1", "x"} - {missing})


def test_options_are_as_json_holds_them() -> None:
    numbers = np.arange(4)
    keep = Keep(
        dtype={"conv1": "float32"},
        channels={
            "a": numbers,
            "b": list(numbers),
            "c": slice(numbers[1], None),
            "d": range(2),
            "e": torch.tensor([1]),
        },
        crop=(slice(0, np.int64(3)), slice(None, None, None)),
        max_size={"a": 7, "b": (7, 8)},
        record=("activation", "gradient"),
        channel_axis={"a": -1},
    )
    told = json.loads(json.dumps(keep.as_json()))
    assert told == {
        "record": ["activation", "gradient"],
        "dtype": {"conv1": "float32"},
        "overflow": "error",
        "channels": {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3], "c": [1, None, None], "d": [0, 1], "e": [1]},
        "crop": [[0, 3, None], [None, None, None]],
        "max_size": {"a": 7, "b": [7, 8]},
        "channel_axis": {"a": -1},
    }
    assert Keep().as_json() == {
        "record": ["activation"],
        "dtype": "float16",
        "overflow": "error",
        **dict.fromkeys(["channels", "crop", "max_size", "channel_axis"]),
    }


def test_gradients_are_asked_for() -> None:
    assert not Keep().gradient
    assert Keep(record=("gradient", "activation")).gradient


def test_neighboring_channels_are_taken_without_a_copy() -> None:
    maps, tokens = torch.rand(2, 6, 3, 3), torch.rand(2, 5, 6)
    assert Reduction("float16", (2, 3, 4)).of_channels(maps).data_ptr() == maps[:, 2].data_ptr()
    assert Reduction("float16", (2, 3, 4)).of_channels(tokens).data_ptr() == tokens[..., 2].data_ptr()
    for channels in ((4, 3, 2), (2, 4)):
        assert torch.equal(Reduction("float16", channels).of_channels(maps), maps[:, list(channels)])
        assert torch.equal(Reduction("float16", channels).of_channels(tokens), tokens[..., list(channels)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_averaging_is_torchs_in_float32_at_least(dtype: torch.dtype) -> None:
    maps = torch.rand(2, 3, 9, 11).to(dtype)
    found = Reduction("float16", None, ((1, 8), (0, 11)), (2, 3)).of_positions(maps)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.dtype == wide
    assert torch.equal(found, functional.adaptive_avg_pool2d(maps[:, :, 1:8].to(wide), (2, 3)))
    assert Reduction("float16", None, ((1, 8), (0, 11))).of_positions(maps).dtype == dtype


@st.composite
def kept(draw: st.DrawFn) -> tuple[Keep, tuple[int, ...]]:
    """Options, and the shape of a sample that they can be of."""
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple))
    count = shape[0 if len(shape) == 3 else -1]
    channels = draw(st.none() | st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))
    crop = None
    if len(shape) == 3:
        starts = [draw(st.integers(0, n - 1)) for n in shape[1:]]
        box = tuple(slice(at, draw(st.integers(at + 1, n + 3))) for at, n in zip(starts, shape[1:], strict=True))
        crop = draw(st.none() | st.just(box))
    max_size = draw(st.none() | st.integers(1, 10) | st.tuples(st.integers(1, 10), st.integers(1, 10)))
    dtype = draw(st.sampled_from(["float16", "float32"]))
    record = draw(st.sampled_from([("activation",), ("activation", "gradient")]))
    return Keep(dtype, channels, crop, max_size, record=record), shape


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(case=kept())
def test_what_is_said_of_a_layer_is_what_is_stored_of_it(case: tuple[Keep, tuple[int, ...]]) -> None:
    keep, shape = case
    first = FirstOutput(shape, "Conv2d", ChannelAxis(1 if len(shape) >= 3 else len(shape), "module"))
    planned = plan_layer(Firing("layer1.0", 0, ""), first, keep=keep, name="layer1.0")
    reduction, spec = planned.reduction, planned.spec
    batch = torch.rand(2, *shape)
    stored, sums = reduce_with_torch(batch, reduction, clips=False)
    assert tuple(stored.shape) == (2, *spec.shape) == stored_shape(batch, reduction)
    assert stored.dtype == getattr(torch, spec.dtype)
    assert len(sums) == 7 * spec.n_channels + 2
    assert spec.output == shape
    assert (spec.channels, spec.crop, spec.gradient) == (reduction.channels, reduction.crop, keep.gradient)
    assert spec.average_pooled == (reduction.size is not None)
    assert spec.sample_bytes == stored[0].numel() * (stored.element_size() + 4 * keep.gradient)
