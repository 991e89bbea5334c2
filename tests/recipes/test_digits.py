import numpy as np
import pytest
import torch
from torchvision import transforms

from fmcluster.recipes import DigitImages, DigitSplits, load_digit_splits


@pytest.fixture(scope="module")
def splits() -> DigitSplits:
    return load_digit_splits()


def test_no_scan_is_in_two_splits_and_none_is_lost(splits: DigitSplits) -> None:
    parts = [splits.pretraining.indices, splits.training.indices, splits.validation.indices]
    everything = np.concatenate(parts)
    assert np.array_equal(np.sort(everything), np.arange(1797))


def test_training_and_probe_are_balanced(splits: DigitSplits) -> None:
    assert np.bincount(splits.training.targets).tolist() == [80] * 5
    assert np.bincount(splits.probe.targets).tolist() == [20] * 5
    assert set(splits.probe.indices) <= set(splits.validation.indices)


def test_classes_are_named_after_the_digits(splits: DigitSplits) -> None:
    assert splits.pretraining.classes == ("0", "1", "2", "3", "4")
    assert splits.training.classes == splits.probe.classes == ("5", "6", "7", "8", "9")


def test_splits_are_the_same_every_time_and_leave_the_random_state_alone(splits: DigitSplits) -> None:
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    again = load_digit_splits()
    assert np.array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(again.training.indices, splits.training.indices)
    assert np.array_equal(again.probe.indices, splits.probe.indices)


def test_items_are_grey_images_whose_pixels_come_back(splits: DigitSplits) -> None:
    image, label = splits.probe[0]
    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.float32
    assert label == 0
    assert torch.equal(image[0], image[2])
    normalize = splits.probe.transform
    assert isinstance(normalize, transforms.Normalize)
    pixels = image * torch.tensor(normalize.std).view(3, 1, 1) + torch.tensor(normalize.mean).view(3, 1, 1)
    assert float(pixels.min()) >= -1e-6
    assert float(pixels.max()) <= 1 + 1e-6


def test_an_enlarged_scan_keeps_its_brightness() -> None:
    from sklearn.datasets import load_digits

    images = DigitImages((0,), [0])
    pixels = images[0][0][0] * images.transform.std[0] + images.transform.mean[0]
    blocks = pixels.reshape(8, 8, 8, 8).mean(dim=(1, 3))
    assert np.corrcoef(blocks.ravel(), load_digits().images[0].ravel())[0, 1] > 0.95


def test_a_scan_of_another_digit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"indices name scans of \[0\]: expected only scans of .*\[5, 6\]"):
        DigitImages((5, 6), [0])


def test_items_end_where_the_set_ends() -> None:
    assert len(list(zip(DigitImages((0,), [0]), range(5), strict=False))) == 1
