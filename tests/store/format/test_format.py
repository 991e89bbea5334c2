"""What is stored of a layer, and the paths of a run's nodes."""

import pytest

from fmcluster.store import LayerSpec
from fmcluster.store.format._format import array_path, holds_feature_maps, layer_path, statistics_path


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((4, 6), {"output": (4, 6, 6)}),
        ((4, 6, 6), {"output": (8, 6, 6)}),
        ((2, 6, 6), {"output": (8, 6, 6), "channels": (1, 8)}),
        ((2, 6, 6), {"output": (8, 6, 6), "channels": (1, 1)}),
        ((2, 6, 6), {"output": (8, 6, 6), "channels": (-1, 1)}),
        ((3, 6, 6), {"output": (8, 6, 6), "channels": (1, 2)}),
        ((8, 6, 7), {"output": (8, 6, 6)}),
        ((8, 5, 5), {"output": (8, 6, 6), "crop": ((0, 4), (0, 6))}),
        ((8, 6, 6), {"output": (8, 6, 6), "crop": ((0, 7), (0, 6))}),
        ((8, 1, 6), {"output": (8, 6, 6), "crop": ((3, 3), (0, 6))}),
        ((5, 8), {"output": (6, 8)}),
        ((5, 8), {"output": (6, 8), "crop": ((0, 5), (0, 8))}),
    ],
)
def test_reductions_that_do_not_lead_to_the_shape_are_refused(shape: tuple[int, ...], how: dict) -> None:
    with pytest.raises(ValueError, match="layer 'x' cannot be stored as"):
        LayerSpec("x", shape, "float16", "M", **how)


@pytest.mark.parametrize(
    ("shape", "how", "pooled"),
    [
        ((8, 6, 6), {}, False),
        ((8, 3, 6), {"output": (8, 6, 6)}, True),
        ((8, 4, 2), {"output": (8, 6, 6), "crop": ((2, 6), (1, 3))}, False),
        ((8, 2, 2), {"output": (8, 6, 6), "crop": ((2, 6), (1, 3))}, True),
        ((2, 6, 6), {"output": (8, 6, 6), "channels": (5, 1)}, False),
        ((4, 2), {"output": (4, 8), "channels": (5, 1)}, False),
        ((1,), {"output": (8,), "channels": (5,)}, False),
    ],
)
def test_averaging_is_what_neither_crop_nor_channels_explain(shape: tuple[int, ...], how: dict, pooled: bool) -> None:
    assert LayerSpec("x", shape, "float16", "M", **how).average_pooled is pooled


def test_gradients_are_stored_in_float32_whatever_the_activations_are_in() -> None:
    spec = LayerSpec("x", (4, 3, 2), "float16", "M", gradient=True)
    assert spec.quantities == ("activation", "gradient")
    assert [spec.dtype_of(quantity) for quantity in spec.quantities] == ["float16", "float32"]
    assert [spec.bytes_of(quantity) for quantity in spec.quantities] == [48, 96]
    assert spec.sample_bytes == 144


@pytest.mark.parametrize(
    ("shape", "dimensions", "axis"),
    [
        ((7,), ("sample", "channel"), 0),
        ((5, 7), ("sample", "token", "channel"), 1),
        ((7, 3, 2), ("sample", "channel", "height", "width"), 0),
    ],
)
def test_axes_have_names_and_the_channels_are_one_of_them(shape, dimensions, axis) -> None:
    spec = LayerSpec("x", shape, "float16", "M")
    assert spec.dimensions == dimensions
    assert spec.n_channels == shape[axis] == 7


def test_paths_of_a_layer() -> None:
    assert layer_path("layer1.0.conv1") == "layers/layer1.0.conv1"
    assert array_path("fc", "gradient") == "layers/fc/gradient"
    assert statistics_path("fc", "gradient") == "layers/fc/gradient_statistics"
    assert holds_feature_maps("layers/fc/activation")
    assert holds_feature_maps("layers/fc/gradient")
    assert not any(map(holds_feature_maps, ("layers/fc/statistics", "index", "layers/fc/channel")))
