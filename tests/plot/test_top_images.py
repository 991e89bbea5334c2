"""The pictures of top images against the result and the layer that they are drawn from."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from fmcluster.analysis._top_images import TopImages
from fmcluster.plot._top_images import top_images


@dataclass(frozen=True)
class Pictured:
    samples: pd.DataFrame
    pictures: np.ndarray | None
    label: str = "layer3"
    feature_map_shape: tuple[int, int, int] = (12, 4, 4)
    output_shape: tuple[int, ...] = (12, 4, 4)
    crop: tuple[tuple[int, int], tuple[int, int]] | None = None

    def display(self, sample: int) -> np.ndarray | None:
        return None if self.pictures is None else self.pictures[self.samples.index.get_loc(sample)]


@pytest.fixture
def layer() -> Pictured:
    rng = np.random.default_rng(0)
    index = pd.Index(range(100, 140), name="sample")
    samples = pd.DataFrame({"class_name": [f"class {i % 3}" for i in range(40)]}, index=index)
    return Pictured(samples, rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))


@pytest.fixture
def found() -> TopImages:
    """Three snapshots, twelve channels with the numbers 2, 4, ..., seven top images each."""
    rng = np.random.default_rng(1)
    shape = (3, 12, 7)
    samples = 100 + np.stack([rng.permutation(40)[:7] for _ in range(36)]).reshape(shape)
    samples[2, 0, :3] = samples[0, 0, [2, 0, 6]]
    samples[2, 0, 3:] = [s for s in range(100, 140) if s not in samples[0, 0]][:4]
    places = rng.integers(0, 4, (*shape, 2))
    snapshots = pd.DataFrame({"snapshot": [0, 1, 2], "epoch": [0, 1, 1], "step": [0, 4, 9]})
    return TopImages(
        layer="layer3",
        by="max",
        k=7,
        snapshots=snapshots,
        samples=samples,
        values=-np.sort(-rng.gamma(2, 3, shape), axis=2),
        positions=places,
        fractions=(places + 0.5) / 4,
        channels=snapshots.merge(pd.DataFrame({"channel": range(2, 26, 2), "nonfinite": 0}), how="cross"),
        n_samples=40,
        left_out=np.empty(0, np.int64),
    )


def without(found, *, snapshot, channel):
    """The same, of a channel that no image drives at a snapshot."""
    changed = {name: getattr(found, name).copy() for name in ("samples", "values", "positions", "fractions")}
    for name, values in changed.items():
        values[snapshot, channel] = -1 if name in ("samples", "positions") else np.nan
    return replace(found, **changed)


def panel(figure):
    return figure.axes[-1]


def images(figure):
    return [image for image in panel(figure).images if image.get_gid() == "image"]


def patches(figure, gid):
    return [patch for patch in panel(figure).patches if isinstance(patch, Rectangle) and patch.get_gid() == gid]


def words(figure):
    return [text.get_text() for text in [*figure.texts, *panel(figure).texts]]


def test_pictures_are_those_of_the_top_images_then_and_now_strongest_first(found, layer):
    figure = top_images(found, layer, channels=[8, 2], k=4)
    drawn = iter(images(figure))
    for place in (3, 0):
        for snapshot in (0, 2):
            for sample in found.samples[snapshot, place, :4]:
                np.testing.assert_array_equal(next(drawn).get_array(), layer.display(sample))
    assert next(drawn, None) is None
    assert "layer3: the images that drive a channel most, epoch 0 and epoch 1, step 9" in words(figure)


def test_boxes_lie_at_the_places_in_their_images(found, layer):
    figure = top_images(found, layer, channels=[2, 4, 6])
    expected = np.concatenate([found.fractions[s, place, :5] for place in range(3) for s in (0, 2)])
    for image, box, fraction in zip(images(figure), patches(figure, "position"), expected, strict=True):
        left, right, bottom, top = image.get_extent()
        (x, y), wide, tall = box.get_xy(), box.get_width(), box.get_height()
        assert (y + tall / 2 - top) / (bottom - top) == pytest.approx(fraction[0])
        assert (x + wide / 2 - left) / (right - left) == pytest.approx(fraction[1])
        assert wide == pytest.approx((right - left) / 4)


def test_a_box_of_a_cropped_layer_is_as_large_as_a_place_of_it(found, layer):
    cropped = replace(layer, output_shape=(12, 8, 8), crop=((0, 8), (0, 6)))
    figure = top_images(found, cropped)
    image, box = images(figure)[0], patches(figure, "position")[0]
    left, right, bottom, top = image.get_extent()
    assert box.get_height() == pytest.approx((bottom - top) / 4)
    assert box.get_width() == pytest.approx((right - left) * 6 / 8 / 4)


@pytest.mark.parametrize("shape", [(12, 1, 1), (12,)])
def test_a_layer_without_places_gets_no_boxes_and_no_word_about_them(found, layer, shape):
    fractions = found.fractions * np.nan if len(shape) == 1 else np.full_like(found.fractions, 0.5)
    bare = replace(layer, output_shape=shape, feature_map_shape=(12, 1, 1))
    figure = top_images(replace(found, fractions=fractions), bare)
    assert len(images(figure)) == 60
    assert not patches(figure, "position")
    assert not any("box" in word for word in words(figure))


def test_images_drawn_at_both_are_framed_at_both_and_counted(found, layer):
    figure = top_images(found, layer, channels=[2], k=5)
    before, after = found.samples[0, 0, :5].tolist(), found.samples[2, 0, :5].tolist()
    shared = set(before) & set(after)
    assert len(shared) == 2
    lefts = [image.get_extent()[0] for image in images(figure)]
    framed = sorted(patch.get_x() for patch in patches(figure, "stayed"))
    assert framed == sorted(left for left, sample in zip(lefts, before + after, strict=True) if sample in shared)
    assert "2 of 5\nstayed" in words(figure)


def test_what_stayed_over_all_channels_stands_beside_chance(found, layer):
    kept = [
        len(set(a[:5].tolist()) & set(b[:5].tolist())) for a, b in zip(found.samples[0], found.samples[2], strict=True)
    ]
    said = f"Over the 12 channels with images at both, {np.mean(kept):.1f} of 5 stayed (by chance {25 / 40:.1f})."
    assert any(said in word for word in words(top_images(found, layer)))


def test_default_channels_are_those_driven_most_now(found, layer):
    figure = top_images(found, layer)
    strongest = np.argsort(-found.values[2, :, :5].mean(axis=1))[:6]
    assert [word for word in words(figure) if word.startswith("ch ")] == [f"ch {2 + 2 * place}" for place in strongest]
    assert any(word.startswith("6 channels driven most at epoch 1, step 9, images ranked") for word in words(figure))


def test_samples_classes_and_values_are_written_under_the_images(found, layer):
    said = words(top_images(found, layer, channels=[10], k=3))
    for snapshot in (0, 2):
        for sample, value in zip(found.samples[snapshot, 4, :3], found.values[snapshot, 4, :3], strict=True):
            assert f"{sample} ({layer.samples.loc[sample, 'class_name']})" in said
            assert f"{value:.3g}" in said


@pytest.mark.slow
def test_long_class_names_are_cut_and_formulas_are_names(found, layer, tmp_path):
    long = replace(layer, samples=layer.samples.assign(class_name="$\\frac$ of a very long name"))
    figure = top_images(found, long)
    assert max(len(word) for word in words(figure) if word.endswith("…")) < 20
    figure.savefig(tmp_path / "a.png")


def test_other_snapshots_can_be_chosen_and_the_same_one_is_drawn_once(found, layer):
    drawn = images(top_images(found, layer, channels=[2], then=1, now=2, k=1))
    np.testing.assert_array_equal(drawn[0].get_array(), layer.display(found.samples[1, 0, 0]))
    once = top_images(found, layer, channels=[2], then=1, now=1, k=2)
    assert len(images(once)) == 2
    assert not any("stayed" in word for word in words(once))


def test_a_channel_that_no_image_drives_says_so(found, layer):
    figure = top_images(without(found, snapshot=2, channel=0), layer, channels=[2])
    assert len(images(figure)) == 5
    assert "no image drives it" in words(figure)
    assert any("Over the 11 channels" in word for word in words(figure))


@pytest.mark.parametrize("k", [1, 5, 50])
def test_no_text_leaves_the_page_or_meets_another(found, layer, k):
    figure = top_images(found, layer, k=k)
    figure.draw_without_rendering()
    texts = [text for text in [*figure.texts, *panel(figure).texts] if text.get_text()]
    edges = np.array([text.get_window_extent().extents for text in texts])
    assert (edges[:, :2] >= figure.bbox.min).all()
    assert (edges[:, 2:] <= figure.bbox.max).all()
    across = (edges[:, None, 0] < edges[None, :, 2]) & (edges[:, None, 2] > edges[None, :, 0])
    up = (edges[:, None, 1] < edges[None, :, 3]) & (edges[:, None, 3] > edges[None, :, 1])
    assert (across & up).sum() == len(texts)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"channels": [2, 3]}, "received channel 3; expected some of the 12"),
        ({"channels": []}, "received no channel"),
        ({"channels": [2] * 61}, "received 61 channels; expected 60 or fewer"),
        ({"then": 9}, "received snapshot=9; expected one of 0, 1, 2"),
        ({"then": 2, "now": 1}, "received then=2, now=1; expected `then` before `now`"),
        ({"k": 0}, "received k=0; expected 1 or more"),
    ],
)
def test_errors_say_what_to_do(found, layer, arguments, said):
    with pytest.raises(ValueError, match=said):
        top_images(found, layer, **arguments)


def test_another_layer_or_one_without_pictures_is_refused(found, layer):
    with pytest.raises(ValueError, match="received top images of 'layer3' and layer 'layer4'"):
        top_images(found, replace(layer, label="layer4"))
    with pytest.raises(ValueError, match="a run without pictures of its inputs"):
        top_images(found, replace(layer, pictures=None))


def test_images_that_are_left_out_as_they_are_not_finite_are_counted(found, layer):
    table = found.channels.copy()
    n_channels = found.samples.shape[1]
    table.loc[table.index[2 * n_channels], "nonfinite"] = 3  # of the first channel at the last snapshot
    figure = top_images(replace(found, channels=table), layer, channels=[2])
    assert "Left out: up to 3 images of a channel, whose feature maps are NaN or infinite." in words(figure)
    assert not any("Left out" in word for word in words(top_images(found, layer, channels=[2])))
    table.loc[table.index[2 * n_channels], "nonfinite"] = found.n_samples
    never = replace(without(found, snapshot=2, channel=0), channels=table)
    said = words(top_images(never, layer, channels=[2]))
    assert "it is not finite" in said
    assert "no image drives it" not in said
