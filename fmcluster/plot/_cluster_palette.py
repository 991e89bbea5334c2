"""Cluster palette: one color for each cluster, the same in every picture."""

from collections.abc import Iterable
import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib.colors import Colormap





NOISE = -1

NOISE_COLOR = "#a6a6a6"

# seaborn's "colorblind", its likest pairs apart and what is faint on white last; its gray is left to noise, and
# wine from Paul Tol's "muted" stands in for it.
_FEW = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#cc78bc",
    "#d55e00",
    "#56b4e9",
    "#ca9161",
    "#882255",
    "#ece133",
    "#fbafe4",
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
    {-1: '#a6a6a6', 0: '#0173b2', 1: '#de8f05'}
    >>> cluster_palette([1, 0, -1, 1])
    {-1: '#a6a6a6', 0: '#0173b2', 1: '#de8f05'}
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
