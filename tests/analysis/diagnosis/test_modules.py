"""Which layers count, and which are neighbors, by names and classes alone."""

import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.analysis.diagnosis._modules import activated_by, head_of, is_activation, made_by, next_layers, passes_on
from tests.analysis.planted_runs import head, moving, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The layers of a small residual network, at several depths, in forward order."""
    maps = moving(n_channels=4, side=2)[:1]
    wide = moving(n_channels=6, side=2)[:1]
    layers = {
        "conv1": ("Conv2d", maps),
        "bn1": ("BatchNorm2d", maps),
        "relu": ("ReLU", maps),
        "layer1.0.conv": ("Conv2d", maps),
        "layer1.0": ("BasicBlock", maps),
        "layer1.1.act.call0": ("SiLU", maps),
        "layer1.1": ("BasicBlock", maps),
        "layer1": ("Sequential", maps),
        "layer2.0": ("BasicBlock", wide),
        "layer2": ("Sequential", wide),
        "pool": ("AdaptiveAvgPool2d", wide),
        "fc": ("Linear", head(wide)),
    }
    return write_run(tmp_path_factory.mktemp("modules") / "run.zarr", layers)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        *((name, True) for name in ("ReLU", "BatchNorm2d", "GroupNorm", "MaxPool2d", "Dropout", "Identity", "Flatten")),
        *((name, True) for name in ("FrozenBatchNorm2d", "LayerNorm2d", "DropPath", "StochasticDepth")),
        *((name, False) for name in ("Conv2d", "Linear", "Sequential", "Bottleneck", "MultiheadAttention", "LSTM")),
    ],
)
def test_only_modules_with_channels_of_their_own_count(module, expected):
    assert passes_on(module) is expected


def test_the_names_are_those_of_the_modules_of_torch():
    passing = {"activation", "batchnorm", "channelshuffle", "dropout", "flatten", "fold", "instancenorm"}
    passing |= {"normalization", "padding", "pixelshuffle", "pooling", "upsampling"}
    modules = {name: found for name, found in vars(nn).items() if isinstance(found, type)}
    rooms = {name: found.__module__.rpartition(".")[2] for name, found in modules.items()}
    own = {"Identity": True, "MultiheadAttention": False}
    for name, room in rooms.items():
        assert passes_on(name) is own.get(name, room in passing), name
        assert is_activation(name) is (room == "activation" and name != "MultiheadAttention"), name
    assert {"ReLU", "Conv2d", "ZeroPad2d"} < set(rooms)


def test_neighbors_are_of_one_depth_and_not_made_of_one_another(run):
    assert next_layers(run, run.layers) == {
        "conv1": "layer1",
        "layer1": "layer2",
        "layer1.0": "layer1.1",
        "layer1.1": "layer2.0",
    }


def test_a_module_that_fires_twice_is_no_neighbor_of_itself(tmp_path):
    maps = moving(n_channels=4, side=2)[:1]
    layers = dict.fromkeys(("mix.call0", "mix.call1", "out"), ("Conv2d", maps))
    run = write_run(tmp_path / "run.zarr", layers)
    assert next_layers(run, run.layers) == {"mix.call0": "out", "mix.call1": "out"}


def test_the_head_is_the_last_layer_unless_it_gives_maps(run, tmp_path):
    assert head_of(run) == "fc"
    maps = moving(n_channels=4, side=2)[:1]
    assert head_of(write_run(tmp_path / "run.zarr", {"a": ("Conv2d", maps), "b": ("Conv2d", maps)})) is None


def test_what_passes_on_is_made_by_the_layer_before_if_that_has_as_many_channels(run):
    assert made_by(run, run.layers) == {
        "bn1": "conv1",
        "relu": "bn1",
        "layer1.1.act.call0": "layer1.0",
        "pool": "layer2",
    }
    assert made_by(run, ["relu", "fc"]) == {}


@pytest.mark.slow
def test_an_activation_is_traced_to_what_made_what_it_is_given(tmp_path):
    torch.manual_seed(0)
    convolved = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.GELU())
    model = nn.Sequential(convolved, nn.Conv2d(4, 4, 1), nn.Flatten(), nn.LazyLinear(2)).eval()
    model(torch.zeros(1, 3, 6, 6))
    with fm.Recorder(model, tmp_path / "run.zarr", layers="leaves", probe=list(torch.randn(5, 3, 6, 6))) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    assert activated_by(run, run.layers) == {"0.2": "0.0", "0.4": "0.0"}
    assert activated_by(run, ["0.1", "0.2"]) == {}  # what made it is not among them
