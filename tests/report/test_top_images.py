"""The top images of the page: those of the verb, in the order of the rows, with thumbnails of each."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

import fmcluster as fm
from fmcluster.report.content._layer_content import Settings, make_layer_content
from fmcluster.report.content._top_images import ShownImages, find_top_images, make_thumbnails
from tests.report.small_report import Written


def test_the_page_has_the_top_images_of_each_channel_then_and_now(written: Written) -> None:
    for place, name in enumerate(["conv1", written.run.layers[2]]):
        found = fm.top_images(written.run[name], k=8, snapshots=[0, 2])
        shown = written.parsed.data["shown_images"][written.run.layers.index(name) if place else 0]
        assert [each["title"] for each in shown] == ["top images at epoch 0", "top images at epoch 1, step 8"]
        for end in range(2):
            for row, images in enumerate(shown[end]["rows"]):
                samples = [sample for sample in found.samples[end, row].tolist() if sample >= 0]
                assert [image[0] for image in images] == samples
                drawn = np.array([image[1:] for image in images], dtype=np.float64)
                np.testing.assert_allclose(drawn, found.fractions[end, row, : len(images)], atol=5.1e-4)


def test_each_thumbnail_is_the_image_that_the_network_saw(written: Written) -> None:
    shown = [ShownImages(**each) for layer in written.parsed.data["shown_images"] for each in layer]
    thumbnails = make_thumbnails(written.run, shown)
    data = base64.b64decode(thumbnails.uri.partition(",")[2])
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    wanted = {image[0] for each in shown for row in each.rows for image in row}
    assert set(thumbnails.tiles) == wanted
    side = thumbnails.side
    images = {
        sample: np.asarray(Image.fromarray(written.run.display(sample)).resize((side, side), Image.Resampling.BOX))
        for sample in wanted
    }
    for sample, place in thumbnails.tiles.items():
        top, left = place // thumbnails.across * side, place % thumbnails.across * side
        drawn = sheet[top : top + side, left : left + side]
        away = {other: float(np.abs(drawn - image).mean()) for other, image in images.items()}
        assert min(away, key=away.__getitem__) == sample
        assert away.pop(sample) < 0.6 * min(away.values())


@pytest.mark.parametrize("view", ["sample", "feature_map", "position"])
def test_rows_of_one_image_show_it_and_where_in_it_they_are(view: str, written: Written) -> None:
    settings = Settings(view, 3, PCA(2, random_state=0), 0, 1 << 30)
    content = make_layer_content(written.run["conv1"], settings, announce=lambda what: None, cache=None)
    (found,) = find_top_images(content, cache=None, max_bytes=1 << 30)
    assert found.title == "the image"
    rows = content.scores.rows.iloc[: content.n_rows]
    assert [row[0][0] for row in found.rows] == rows["sample"].tolist()
    where = [row[0][1:] for row in found.rows]
    if view == "position":  # of 16 x 16 pixels, their centers
        expected = ((rows[["y", "x"]] + 0.5) / 16).to_numpy()
        np.testing.assert_allclose(np.array(where, np.float64), expected, atol=5.1e-4)
    else:
        assert where == [[None, None]] * content.n_rows


def test_without_exhibits_there_are_no_thumbnails(written: Written) -> None:
    assert make_thumbnails(written.run, []) is None
