"""Quality: how good clusters are, over the snapshots."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from .drawing import (
    FAINT,
    axes_or_new,
    brief_ticks,
    cluster_palette,
    dress_curve,
    layer_text,
    snapshot_table,
    snapshot_titles,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import Quality

# What stands in the legend, and what is a good value. Measures without a scale of their own share one from 0 to 1.
_MEASURES = {
    "silhouette": ("silhouette", "from -1 to 1, high is good"),
    "nmi": ("NMI with the classes", "from 0 to 1, high is good"),
    "ami": ("AMI with the classes", "0 is chance, 1 the best"),
    "purity": ("purity of classes", "from 0 to 1, high is good"),
    "knn_accuracy": ("neighbors' accuracy", "share of rows whose class their neighbors name"),
    "noise": ("noise", "share of rows in no cluster"),
    "davies_bouldin": ("Davies-Bouldin index", "from 0, low is good"),
    "calinski_harabasz": ("Calinski-Harabasz index", "from 0, high is good"),
}
# What a measure is held against.
_BESIDE = {
    "silhouette": ("silhouette_null", "null: labels permuted"),
    "knn_accuracy": ("knn_chance", "their chance"),
}
_OWN_SCALE = ("davies_bouldin", "calinski_harabasz")
_OF_CLASSES = ("nmi", "ami", "purity", "knn_accuracy")
_MARKERS = "osD^vP"


def quality(found: "Quality", *, measures: Sequence[str] = ("silhouette",), ax: Axes | None = None) -> Axes:
    """Draw how good the clusters of each snapshot are, as a curve for each measure.

    Parameters
    ----------
    found : Quality
        Made by `fmcluster.analysis.quality.quality`.
    measures : sequence of str
        Columns of its frame: ``"silhouette"``, ``"nmi"``, ``"ami"``, ``"purity"``, ``"knn_accuracy"`` and ``"noise"``
        go together; ``"davies_bouldin"`` and ``"calinski_harabasz"``, which have scales of their own, are drawn alone.
        With the accuracy of the neighbors comes its chance, and with silhouettes their null, dashed. (A noise
        floor, how much they differ with no change at all, is only known of churn.)
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        Snapshots along x, evenly spaced; a curve's gid is the name of its column. Where a measure is not defined its
        curve is broken.

    Raises
    ------
    TypeError
        If `measures` is one name, not a sequence of names.
    ValueError
        If there is no such measure, one has no value at any snapshot, or measures of different scales are to share
        the axes.
    """
    names = _checked(found, measures)
    table = snapshot_table(found.frame)
    frame = found.frame.sort_values("snapshot")
    title = f"{layer_text(found.layer)}: {found.view} view, {_in_words(names)}"
    if names != ["knn_accuracy"]:  # which is of rows, whatever their clusters
        title += f" of the clusters of {found.method}"
    width = max(float(np.clip(0.6 * len(table) + 1.5, 6.4, 14.0)), min(text_width(title, size=11) + 0.6, 16.0))
    ax = axes_or_new(ax, width=width, height=3.8)
    indices = np.arange(len(table))
    colors = cluster_palette(len(names))
    curves: list[Line2D] = []
    for number, name in enumerate(names):
        style: dict[str, Any] = {"color": colors[number], "marker": _MARKERS[number], "ms": 5, "lw": 1.8}
        curves += ax.plot(indices, frame[name], **style, label=_MEASURES[name][0], gid=name)
        if name in _BESIDE:
            column, label = _BESIDE[name]
            beside: dict[str, Any] = {"color": colors[number], "ls": "--", "lw": 1.4, "label": label}
            curves += ax.plot(indices, frame[column], **beside, gid=column)
    _scale(ax, curves, own=names[0] in _OWN_SCALE)
    unit = f"{_MEASURES[names[0]][0]} ({_MEASURES[names[0]][1]})" if len(names) == 1 else "measure (at most 1)"
    if names == ["noise"] or names == ["knn_accuracy"]:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    dress_curve(ax, title=title, x=_note(found, names), y=unit, legend=curves if len(curves) > 1 else [])
    titles = snapshot_titles(table, separator="\n")
    shown = brief_ticks(ax, titles)
    ax.set_xticks(shown, [titles[index] for index in shown])
    ax.set_xlim(-0.4, len(table) - 0.6)
    return ax


def _checked(found: "Quality", measures: Sequence[str]) -> list[str]:
    """Return the measures asked for, each once."""
    if isinstance(measures, str):
        raise TypeError(f"received measures={measures!r}; expected a sequence of names: measures=[{measures!r}]")
    names = list(dict.fromkeys(measures))
    known = ", ".join(repr(name) for name in _MEASURES)
    if not names:
        raise ValueError(f"received no measures; expected one or more of {known}: name one of these")
    for name in names:
        if name not in _MEASURES:
            raise ValueError(f"received the measure {name!r}; expected one of {known}: choose one of these")
        if bool(found.frame[name].isna().all()):
            notes = "; ".join(note for note in found.frame["note"].unique() if note)
            why = f" ({notes})" if notes else ""
            what = "pass classes to quality(), or " if name in _OF_CLASSES else ""
            raise ValueError(
                f"received the measure {name!r}, which has no value at any snapshot{why}; expected one that is "
                f"defined: {what}choose another"
            )
    if len(names) > 1 and (alone := [name for name in names if name in _OWN_SCALE]):
        raise ValueError(
            f"received {names}; expected {alone[0]!r}, which has a scale of its own, alone: draw it on other axes"
        )
    return names


def _in_words(names: list[str]) -> str:
    """Name one measure, or two; of more say how many."""
    words = [_MEASURES[name][0] for name in names]
    return " and ".join(words) if len(words) < 3 else f"{len(words)} measures"


def _scale(ax: Axes, curves: list[Line2D], *, own: bool) -> None:
    """Show 0, and no more of the scale than there are values for; a line marks 0 where some are below."""
    values = np.concatenate([np.asarray(curve.get_ydata(), dtype=np.float64) for curve in curves])
    lowest, highest = float(np.nanmin(values)), float(np.nanmax(values))
    top = 1.15 * max(highest, 0.0) or 0.05
    ax.set_ylim(1.15 * lowest if lowest < 0 else 0, top if own else min(1.05, max(top, 0.05)))
    if lowest < 0:
        ax.axhline(0, color=FAINT, lw=0.8, zorder=0.5)


def _note(found: "Quality", names: list[str]) -> str:
    """Say what snapshots are, and how many rows are in no cluster and so in no measure of clusters."""
    low, high = float(found.frame["noise"].min()), float(found.frame["noise"].max())
    of_clusters = [name for name in names if name not in ("noise", "knn_accuracy")]
    if high == 0 or not of_clusters:
        return "snapshot"
    share = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    return f"snapshot\n{share} of the rows are noise, and left out of the measures of clusters"
