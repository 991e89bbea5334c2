"""Interactive charts: plotly's JSON as plain dictionaries, without a color for ink or paper.

Text, grid lines and backgrounds get their colors from the page's style sheet, so that one chart serves light, dark
and print.
"""

from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...plot.drawing import brief, metric_title, snapshot_titles

Json = dict[str, Any]

CLEAR = "rgba(0,0,0,0)"
LINE = "#0173b2"


def metric_chart(metrics: pd.DataFrame, *, column: str) -> Json:
    """Return a metric over the optimizer steps, with a mark at each snapshot and a line at the end of each epoch."""
    stepped = bool(metrics["step"].is_monotonic_increasing and metrics["step"].is_unique)
    along = metrics["step" if stepped else "snapshot"]
    ends = metrics.assign(along=along).groupby("epoch", sort=True)["along"].max()
    shown = brief(len(ends), at_most=8) if len(ends) > 1 else [0]
    _, percent = metric_title(column)
    values = metrics[column].to_numpy(dtype=np.float64) * (100 if percent else 1)
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": along.tolist(),
        "y": [float(f"{value:.6g}") if np.isfinite(value) else None for value in values],
        "customdata": [[title] for title in snapshot_titles(metrics[["snapshot", "epoch", "step"]])],
        "connectgaps": not np.isinf(values).any().item(),  # a line leads past what was not recorded, and not past that
        "cliponaxis": False,
        "line": {"color": LINE, "width": 2.5},
        "marker": {"size": 9, "color": LINE},
        "hovertemplate": "<b>%{y:.4~g}" + " %" * percent + "</b><br>%{customdata[0]}"
        f"<br>{'step' if stepped else 'snapshot'} %{{x}}<extra></extra>",
    }
    layout = layout_of(margin={"l": 58, "r": 18, "t": 14, "b": 48})
    span = float(along.max() - along.min()) or 1.0
    layout["xaxis"] = {
        "range": [float(along.min()) - 0.04 * span, float(along.max()) + 0.04 * span],
        "tickvals": [int(ends.iloc[index]) for index in shown],
        "title": {"text": ("optimizer steps" if stepped else "snapshot") + ", lines at ends of epochs", "standoff": 8},
        "gridwidth": 1,
        "griddash": "dot",
        "zeroline": False,
        "fixedrange": True,
        "tickangle": 0,
    }
    layout["yaxis"] = {
        "title": {"text": "%" if percent else ""},
        "zeroline": False,
        "fixedrange": True,
        "nticks": 6,
        "rangemode": "normal" if percent else "tozero",
        "ticklabelstandoff": 6,
    }
    return {"figure": {"data": [line], "layout": layout}}


def layout_of(*, margin: dict[str, int]) -> Json:
    """Return what all charts have in common."""
    return {
        "margin": margin,
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "hoverlabel": {"align": "left", "font": {"size": 13}},
    }


def literal(text: str) -> str:
    """Return a text that plotly shows as it is: neither as markup nor, between dollars, as mathematics."""
    return escape(text).replace("$", "&#36;")


def short(values: npt.NDArray[np.float64]) -> list[float]:
    """Return numbers with six significant digits: finer than a pixel."""
    return [float(f"{value:.6g}") for value in values]
