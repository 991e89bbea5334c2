"""Colors: of plain marks and of what is missing, color maps, and the names of clusters."""

from collections.abc import Iterable
import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib.colors import Colormap





MISSING = "#e4e4e4"


def color_map(name: str) -> Colormap:
    """Return one of seaborn's color maps, with light gray for what is missing."""
    colors: Colormap = sns.color_palette(name, as_cmap=True)
    return colors.with_extremes(bad=MISSING)


def cluster_name(label: int) -> str:
    """Return ``"cluster 3"``, or ``"noise"``."""
    return "noise" if label == NOISE else f"cluster {label}"
