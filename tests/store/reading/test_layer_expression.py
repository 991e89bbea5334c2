"""Layer expressions: wildcards stop at dots, and all else is meant as it is written."""

import pytest

from fmcluster.store import layer_expression


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("layer1.*", ["layer1.0", "layer1.conv"], ["layer1", "layer1.0.conv1", "layer10"]),
        ("layer?", ["layer1", "layerX"], ["layer", "layer.", "layer12"]),
        ("*", ["conv1"], ["layer1.0"]),
        ("*.conv1", ["0.conv1"], ["conv1", "layer1.0.conv1", "0xconv1"]),
        ("a+b[0]", ["a+b[0]"], ["aab0", "a+b0"]),
    ],
)
def test_wildcards_stop_at_dots(pattern, matched, others):
    expression = layer_expression(pattern)
    assert [name for name in (*matched, *others) if expression.fullmatch(name)] == matched
