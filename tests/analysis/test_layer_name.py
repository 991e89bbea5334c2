"""A layer's name, of the layer or of its name."""

from types import SimpleNamespace

from fmcluster.analysis import layer_name


def test_a_layer_has_its_name_and_a_name_is_one():
    assert layer_name(SimpleNamespace(name="layer4.0")) == layer_name("layer4.0") == "layer4.0"
