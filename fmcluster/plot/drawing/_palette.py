"""Palette: one color per cluster, the same in every picture."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib.colors import Colormap

from ...analysis import NOISE

NOISE_COLOR = "#c9c9c9"
MISSING = "#e4e4e4"

# Eight colors that Petroff (2021, "Accessible color sequences for data visualization", arXiv:2107.02270) found to be
# the easiest to tell apart among those that people like, with any kind of color vision; then two that are farthest
# from them.
_FEW = (
    "#1845fb",
    "#ff5e02",
    "#c91f16",
    "#c849a9",
    "#adad7d",
    "#86c8dd",
    "#578dff",
    "#656364",
    "#ffcc44",
    "#662277",
)


def cluster_palette(clusters: int | Iterable[int]) -> dict[int, str]:
    """Map each cluster label to its color.

    Parameters
    ----------
    clusters : int or iterable of int
        How many clusters there are, or labels as they come (repeats allowed; -1 is noise).

    Returns
    -------
    dict of int to str
        Colors as ``"#rrggbb"``: for every label from 0 to the highest, and for -1, which is always gray. Up to
        ten clusters a label has the same color whatever the number of clusters.

    Raises
    ------
    ValueError
        If the number of clusters, or a label, is less than it can be.

    Examples
    --------
    >>> cluster_palette(2)
    {-1: '#c9c9c9', 0: '#1845fb', 1: '#ff5e02'}
    >>> cluster_palette([1, 0, -1, 1])
    {-1: '#c9c9c9', 0: '#1845fb', 1: '#ff5e02'}
    """
    if isinstance(clusters, int | np.integer):
        count, lowest = int(clusters), 0 if clusters >= 0 else int(clusters)
    else:
        labels: npt.NDArray[np.int64] = np.unique(np.fromiter(clusters, dtype=np.int64))
        count, lowest = (int(labels[-1]) + 1, int(labels[0])) if len(labels) else (0, 0)
    if lowest < NOISE or (lowest < 0 and isinstance(clusters, int | np.integer)):
        raise ValueError(
            f"received {lowest} as a number or label of clusters; expected a count of 0 or more, or labels of "
            f"-1 (noise), 0, 1, ...: renumber the labels"
        )
    colors = _FEW if count <= len(_FEW) else _many(count)
    return {NOISE: NOISE_COLOR, **dict(zip(range(count), colors, strict=False))}


def _many(count: int) -> list[str]:
    """Return `count` hues around the wheel; neighboring hues differ in lightness as well."""
    steps = [sns.husl_palette(count, s=0.9, l=lightness).as_hex() for lightness in (0.45, 0.62, 0.8)]
    return [str(steps[i % len(steps)][i]) for i in range(count)]


def color_map(name: str) -> Colormap:
    """Return one of seaborn's color maps, with light gray for what is missing."""
    colors: Colormap = sns.color_palette(name, as_cmap=True)
    return colors.with_extremes(bad=MISSING)


def cluster_name(label: int) -> str:
    """Return ``"cluster 3"``, or ``"noise"``."""
    return "noise" if label == NOISE else f"cluster {label}"
