"""Rasterized figures: a figure of matplotlib as pixels."""

import io

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from PIL import Image

DPI = 110


def pixels_of(drawn: Artist) -> npt.NDArray[np.uint8]:
    """Return a figure, or the figure of the axes, as pixels; pyplot forgets it.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
    """
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure()
    root = figure.get_figure(root=True) if figure is not None else None
    if root is None:
        raise TypeError(f"received {drawn!r}; expected a Figure, or Axes that are on one")
    file = io.BytesIO()
    # Never cut to what is drawn: pictures of all snapshots have the same size, so that none jumps under a slider.
    root.savefig(file, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    plt.close(root)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
