"""Image strips: images of the probe side by side, as one small picture."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ...store import Run
from ._feature_maps import Picture, encode_picture

SIDE, GAP = 40, 3


def image_strip(
    run: Run,
    samples: Sequence[int] | npt.NDArray[np.int64],
    *,
    fractions: npt.NDArray[np.float64] | None = None,
    what: str,
) -> Picture | None:
    """Draw images side by side, with a ring where in them a channel is most active; None where the run has no pictures.

    Parameters
    ----------
    run : Run
        Holds the images.
    samples : sequence of int
        Their indices in the data set.
    fractions : ndarray of shape (n_samples, 2), optional
        Where the rings are, as shares of height and width; NaN for none.
    what : str
        What they are, for those who do not see them; not escaped.
    """
    pictures = [run.display(int(sample)) for sample in samples]
    if not pictures or any(picture is None for picture in pictures):
        return None
    sheet = Image.new("RGBA", (len(pictures) * (SIDE + GAP) - GAP, SIDE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(sheet)
    for ordinal, picture in enumerate(pictures):
        left = ordinal * (SIDE + GAP)
        image = Image.fromarray(np.asarray(picture)).convert("RGB")
        sheet.paste(
            image.resize((SIDE, SIDE), Image.Resampling.BOX if min(image.size) > SIDE else Image.Resampling.BICUBIC),
            (left, 0),
        )
        if fractions is None or np.isnan(fractions[ordinal]).any():
            continue
        down, along = fractions[ordinal]
        x, y = left + along * SIDE, down * SIDE
        for color, width, reach in (("black", 3, 5), ("white", 1, 4)):
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=color, width=width)
    numbers = ", ".join(str(int(sample)) for sample in samples)
    return encode_picture(np.asarray(sheet), f"{what}: samples {numbers}", lossless=False)
