"""Animated grid: feature maps from snapshot to snapshot."""

import numpy as np
import pytest
from PIL import Image

from fmcluster import plot
from tests.plot.test_animate_embedding import frames, panel, show, words


def test_a_grid_shows_the_maps_of_each_snapshot_on_one_scale(layers):
    layer = layers["layer1"]
    animation = plot.animate_grid(layer, sample=2, channels=range(8))
    assert frames(animation) == list(range(9))
    scales = set()
    for snapshot in range(9):
        figure = show(animation, snapshot)
        read = layer.read(snapshot=snapshot, samples=2, channels=list(range(8)))[0].astype(np.float32)
        drawn = [image.get_array() for image in panel(figure).images]
        np.testing.assert_array_equal(drawn, [values for values in read if np.ptp(values)])
        scales |= {(image.norm.vmin, image.norm.vmax) for image in panel(figure).images}
    assert len(scales) == 1
    assert [text.get_text() for text in panel(figure).texts] == list(map(str, range(8)))


def test_the_title_of_a_grid_names_its_snapshot(layers):
    animation = plot.animate_grid(layers["conv1"], channels=range(8))
    assert "conv1 at epoch 1, step 2" in words(show(animation, 1))
    assert "conv1 at epoch 6" in words(show(animation, 8))
    assert "conv1 at epoch 1, step 2" not in words(animation._fig)


def test_channels_of_a_grid_keep_their_places_by_activity_over_all_snapshots(layers):
    layer = layers["conv1"]
    power = (layer.statistics["mean"] ** 2 + layer.statistics["std"] ** 2).groupby(layer.statistics["channel"]).mean()
    ranked = [str(channel) for channel in (-power).sort_values(kind="stable").index]
    animation = plot.animate_grid(layer, order="activity")
    for snapshot in (0, 8):
        assert [text.get_text() for text in panel(show(animation, snapshot)).texts] == ranked


def test_each_channel_can_have_a_scale_of_its_own(layers):
    animation = plot.animate_grid(layers["conv1"], channels=range(4), scale="channel")
    limits = [[image.norm.vmax for image in panel(show(animation, k)).images] for k in (0, 8)]
    assert limits[0] == limits[1]
    assert len(set(limits[0])) == 4


def test_a_wrong_choice_is_refused(layers):
    with pytest.raises(ValueError, match="received order='cluster'; expected one of 'index', 'activity'"):
        plot.animate_grid(layers["conv1"], order="cluster")
    with pytest.raises(ValueError, match="received sample=99"):
        plot.animate_grid(layers["conv1"], sample=99)


@pytest.mark.slow
def test_a_gif_has_a_frame_for_each_snapshot(layers, tmp_path):
    plot.animate_grid(layers["fc"]).save(tmp_path / "fc.gif", writer="pillow", dpi=40)
    with Image.open(tmp_path / "fc.gif") as image:
        assert image.n_frames == 9
