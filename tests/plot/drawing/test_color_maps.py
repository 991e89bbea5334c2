import matplotlib as mpl
import numpy as np
import pytest

from fmcluster.plot.drawing import color_map


@pytest.mark.parametrize("name", ["rocket", "mako", "crest", "vlag", "icefire", "rocket_r", "mako_r"])
def test_a_color_map_has_the_pixels_of_seaborns(name):
    import seaborn  # noqa: F401  (registers its color maps)

    values = np.linspace(-0.1, 1.1, 5001)
    theirs, ours = mpl.colormaps[name], color_map(name)
    assert np.array_equal(ours(values, bytes=True), theirs(values, bytes=True))
    assert np.abs(ours(values) - theirs(values)).max() < 1 / 255


def test_what_is_missing_has_a_color_of_its_own():
    assert mpl.colors.to_hex(color_map("mako")(np.nan)) == "#e4e4e4"
    assert mpl.colors.to_hex(color_map("vlag", missing="#8fbf8f")(np.nan)) == "#8fbf8f"


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="received 'viridis' as a color map; expected one of rocket, mako, crest,"):
        color_map("viridis")
