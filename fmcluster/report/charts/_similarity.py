"""Similarity charts: how similar layers and snapshots are, as heat maps with a control each."""

import numpy as np
import numpy.typing as npt

from ...analysis import Similarity
from ...plot.drawing import color_map, scale_start
from ._charts import Json, layout_of, literal

WITH_NUMBERS = 12
NEAR_ONE = 0.9  # where the scale begins here or above, two decimals would all be the same


def similarity_charts(similarity: Similarity, *, titles: list[str], opened: str | None = None) -> dict[str, Json]:
    """Return layers against layers at each snapshot, and snapshots against snapshots of each layer.

    Parameters
    ----------
    found : Similarity
        Of all layers at all snapshots of one run.
    titles : list of str
        The snapshots' names.
    opened : str, optional
        The layer whose snapshots are compared at first; by default the first.

    Returns
    -------
    dict
        ``layers`` and, with two or more snapshots, ``snapshots``: the ``figure`` as it is at first, ``stages``, a
        matrix for each position of the control, ``starts``, where the scale of each begins (of layers one for all
        snapshots, which are compared; of snapshots each layer's own), and ``digits``, with how many decimals the values
        of each are written.
    """
    names = list(dict.fromkeys(similarity.rows["layer"]))
    numbers = list(dict.fromkeys(similarity.rows["snapshot"].tolist()))
    layers = [similarity.between_layers(number).to_numpy() for number in numbers]
    starts = [scale_start(np.stack(layers))] * len(layers)
    charts = {"layers": _chart(layers, [literal(name) for name in names], starts=starts, first=len(numbers) - 1)}
    if len(numbers) > 1:
        snapshots = [similarity.between_snapshots(name).to_numpy() for name in names]
        first = names.index(opened) if opened in names else 0
        charts["snapshots"] = _chart(snapshots, titles, starts=[scale_start(each) for each in snapshots], first=first)
    return charts


def _chart(stages: list[npt.NDArray[np.float64]], names: list[str], *, starts: list[float], first: int) -> Json:
    matrices = [[[_plain(value) for value in row] for row in stage] for stage in stages]
    digits = [3 if start >= NEAR_ONE else 2 for start in starts]
    shades = color_map("mako")(np.linspace(0, 1, 11))
    mesh = {
        "type": "heatmap",
        "z": matrices[first],
        "zmin": starts[first],
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorscale": [
            [index / 10, "#" + bytes(np.round(255 * shade[:3]).astype(np.uint8)).hex()]
            for index, shade in enumerate(shades)
        ],
        "colorbar": {
            "thickness": 12,
            "title": {"text": "CKA", "side": "right"},
            "outlinewidth": 0,
            "nticks": 5,
        },
        "hovertemplate": "%{y}<br>%{x}<br><b>CKA %{z:.3f}</b><extra></extra>",
        "hoverongaps": False,
    }
    if len(names) <= WITH_NUMBERS:
        mesh |= {"texttemplate": f"%{{z:.{digits[first]}f}}", "textfont": {"size": 11}}
    layout = layout_of(margin={"l": 8, "r": 8, "t": 8, "b": 8})
    axis = {
        "tickmode": "array",
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "fixedrange": True,
    }
    axis |= {"tickvals": list(range(len(names))), "ticktext": names}
    layout["xaxis"] = axis | {"tickangle": -45}
    layout["yaxis"] = axis | {"autorange": "reversed"}
    return {
        "figure": {"data": [mesh], "layout": layout},
        "stages": matrices,
        "starts": starts,
        "digits": digits,
        "first": first,
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 3)
