"""A layer that is named by a number, as in a Sequential, is not taken for one."""

import pytest

from fmcluster.store import layer_title


@pytest.mark.parametrize(("name", "title"), [("layer4", "layer4"), ("0", "layer 0"), ("0.conv", "layer 0.conv")])
def test_a_number_is_called_a_layer(name, title):
    assert layer_title(name) == title
