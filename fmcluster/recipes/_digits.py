"""Digits: the handwritten ones that scikit-learn ships, as a small offline data set for fine-tuning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

IMAGE_SIZE = 64
OLD_DIGITS = (0, 1, 2, 3, 4)
NEW_DIGITS = (5, 6, 7, 8, 9)
TRAINING_PER_DIGIT = 80
PROBE_PER_DIGIT = 20
_BRIGHTEST = 16.0
_MEAN = 0.3
_STD = 0.35


class DigitImages(Dataset[tuple[Tensor, int]]):
    """Some of the 1,797 scans of 8 x 8 pixels, enlarged to 64 x 64 with three equal channels.

    Items are (image, label): float32 of shape (3, 64, 64), normalized, and an int.

    Parameters
    ----------
    digits : sequence of int
        The digits that may occur; a label is a position in it.
    indices : array_like of int
        Which scans, by their number in `sklearn.datasets.load_digits`.

    Attributes
    ----------
    indices : ndarray of shape (n_images,), int64
        The scans in item order.
    classes : tuple of str
        `digits` as names.
    targets : list of int
        The label of every item.
    transform : torchvision.transforms.Normalize
        What was applied to pixels between 0 (paper) and 1 (ink).

    Raises
    ------
    ValueError
        A scan shows none of `digits`.

    References
    ----------
    .. [1] E. Alpaydin, C. Kaynak (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning
       Repository. https://doi.org/10.24432/C50P49
    """

    def __init__(self, digits: Sequence[int], indices: Sequence[int] | NDArray[np.int64]) -> None:
        self.indices = np.asarray(indices, dtype=np.int64)
        self.classes = tuple(str(digit) for digit in digits)
        self.transform = transforms.Normalize((_MEAN,) * 3, (_STD,) * 3)
        scans, shown = _read_scans()
        foreign = sorted(set(shown[self.indices].tolist()) - set(digits))
        if foreign:
            raise ValueError(f"indices name scans of {foreign}: expected only scans of the digits {list(digits)}")
        self.targets = [list(digits).index(digit) for digit in shown[self.indices].tolist()]
        pixels = torch.from_numpy(scans[self.indices, None] / _BRIGHTEST).float()
        self._images = torch.nn.functional.interpolate(pixels, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image and the label at one position."""
        image: Tensor = self.transform(self._images[index].expand(3, -1, -1))
        return image, self.targets[index]


@dataclass(frozen=True)
class DigitSplits:
    """The demo's images; no scan is in two of `pretraining`, `training` and `validation`.

    Attributes
    ----------
    pretraining : DigitImages
        Every scan of the digits 0 to 4.
    training : DigitImages
        400 scans of the digits 5 to 9, 80 of each.
    validation : DigitImages
        The other scans of the digits 5 to 9.
    probe : DigitImages
        100 of the validation scans, 20 of each digit, in the order of the digits.
    """

    pretraining: DigitImages
    training: DigitImages
    validation: DigitImages
    probe: DigitImages


def load_digit_splits() -> DigitSplits:
    """Split the scans, the same way every time.

    Returns
    -------
    DigitSplits
        The split never depends on a training random_state, so runs of different seeds can be compared image by image.
    """
    _, shown = _read_scans()
    order = np.random.default_rng(0).permutation(len(shown))
    by_digit = {digit: order[shown[order] == digit] for digit in NEW_DIGITS}
    training = np.concatenate([found[:TRAINING_PER_DIGIT] for found in by_digit.values()])
    validation = np.concatenate([found[TRAINING_PER_DIGIT:] for found in by_digit.values()])
    probe = [found[TRAINING_PER_DIGIT : TRAINING_PER_DIGIT + PROBE_PER_DIGIT] for found in by_digit.values()]
    return DigitSplits(
        pretraining=DigitImages(OLD_DIGITS, order[np.isin(shown[order], OLD_DIGITS)]),
        training=DigitImages(NEW_DIGITS, training),
        validation=DigitImages(NEW_DIGITS, validation),
        probe=DigitImages(NEW_DIGITS, np.concatenate(probe)),
    )


def _read_scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scans = load_digits()
    return scans.images, scans.target
