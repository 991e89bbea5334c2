"""Page of the explorer: its controls, charts and panels."""

from typing import Any

import pandas as pd
from dash import dcc, html

from ..plot.drawing import metric_title, metrics_to_draw, snapshot_titles
from ..report.charts import flow_width, layout_of, metric_chart
from ..report.content import GLOSSARY, choose_layers, diverged_lines, part_lines, part_to_show, split_at_terms
from ..store import Run
from ..vectors import VIEWS
from ._figures import sample_names
from ._questions import CLUSTERERS, QUANTITIES, SCALINGS

MOST_METRICS = 4
TICK, LOOK = 400, 10_000  # milliseconds between two looks at the answer, and at the run


def page(run: Run, shown: pd.DataFrame) -> html.Div:
    """Return the page: the controls, and the panels that follow them."""
    return html.Div(
        [
            html.Header([html.H1(run.name), html.P(id="about")]),
            html.Section(
                [_controls(run), html.P(id="status", role="status")],
                className="controls",
                **{"aria-label": "Settings"},  # type: ignore[arg-type]
            ),
            html.Main(
                id="panels",
                children=[
                    html.Div([_embedding(len(shown)), _side(), _flow(len(shown)), _grid()], className="desk"),
                    _overview(),
                    _metrics(run),
                ],
            ),
            dcc.Store(id="ready"),
            dcc.Store(id="members"),
            dcc.Store(id="overview"),
            dcc.Store(id="top-images"),
            dcc.Store(id="report"),
            dcc.Interval(id="tick", interval=TICK),
            dcc.Interval(id="look", interval=LOOK),
            dcc.Interval(id="beat", interval=1100, disabled=True),
        ]
    )


def _finite_epochs(run: Run) -> list[int]:
    """Return the epochs that are shown: clusters of any other cannot be asked for."""
    return list(dict.fromkeys(run.snapshots["epoch"].iloc[part_to_show(run).snapshots].tolist()))


def _controls(run: Run) -> html.Div:
    epochs = [{"value": str(epoch), "label": f"epoch {epoch}"} for epoch in _finite_epochs(run)]
    fits = [
        {"value": "pooled", "label": "all snapshots"},
        {"value": "each", "label": "each snapshot"},
        *epochs,
    ]
    samples = sample_names(run)
    return html.Div(
        [
            _choice("layer", "layer", part_to_show(run).layers, choose_layers(run)[-1]),
            _choice("quantity", "of its", QUANTITIES, "activation"),
            _choice("view", "a point is a", VIEWS, "channel"),
            _choice("scaling", "rows are", _scalings(), "none"),
            _choice("clusterer", "clusters by", CLUSTERERS, "KMeans"),
            _number("n_clusters", "how many", 8, least=1),
            _choice("fit", "clusters of", fits, "pooled"),
            _number("n_rows", "points, at most", 1000, least=4),
            _number("random_state", "random_state", 0, least=0),
            _choice("color", "color by", ["cluster", "drift", "class"], "cluster"),
            _choice("mark", "drawn as", ["dots", "pictures"], "dots"),
            _choice("sample", "image", samples, samples[0]["value"] if samples else None),
        ],
        className="choices",
    )


def _scalings() -> list[dict[str, str]]:
    words = {"none": "as they are", "centered": "centered", "unit": "of unit length"}
    return [{"value": name, "label": words[name]} for name in SCALINGS]


def _stamp(name: str) -> html.P:
    """Return the paragraph that says with which settings a chart was made."""
    return html.P(id=f"stamp-{name}", className="stamp")


def _embedding(n_snapshots: int) -> html.Section:
    last = n_snapshots - 1
    return _panel(
        "The embedding",
        html.Div(
            [
                html.Button("Play", id="play", type="button"),
                dcc.Slider(
                    min=0,
                    max=last,
                    step=1,
                    value=last,
                    marks=None,
                    id="snapshot",
                    allow_direct_input=False,
                    included=False,
                ),
                html.Output(id="when"),
            ],
            className="player",
        ),
        _graph("embedding", 470, clear_on_unhover=True),
        dcc.Tooltip(id="tip", direction="top"),
        _stamp("embedding"),
        html.Ul(id="classes", className="legend"),
        html.Div(id="legend", className="legend"),
        html.P(id="faithful", className="note"),
    )


def _side() -> html.Aside:
    """Return what is chosen: it stays in view beside the charts, and on a narrow page above them until it is closed."""
    close = html.Button("Close", id="close", type="button")
    return html.Aside([close, _chosen(), _row()], id="side", **{"aria-label": "What is chosen"})  # type: ignore[arg-type]


def _row() -> html.Section:
    return _panel(
        "One point, closely",
        html.Label(
            [
                html.Span("which point"),
                dcc.Dropdown(id="row", clearable=False, placeholder="which", labels={"search": "Search"}),
            ],
            className="named",
        ),
        html.Div(id="closely"),
        html.Div(id="neighbors"),
        html.Button("Find its top images", id="find", type="button"),
        html.Div(id="found"),
        note="Click a point of the embedding, or a channel in the grid, or choose one here.",
    )


def _chosen() -> html.Section:
    return _panel(
        "Several points, together",
        html.Label(
            [
                html.Span("search their names"),
                dcc.Input(id="search", type="search", debounce=True, placeholder="a number, a class", value=""),
            ],
            className="named",
        ),
        html.Div(id="chosen"),
        note="Draw a line around points of the embedding, click a cluster under it or a band of the flow, or search.",
    )


def _grid() -> html.Section:
    return _panel(
        "All channels on this image",
        html.Div([html.Div(id="input"), _graph("grid", 400)], className="beside"),
        _stamp("grid"),
        note="At the snapshot of the slider; one scale for all. Click a channel to look at it closely.",
    )


def _flow(n_snapshots: int) -> html.Section:
    chart = html.Div(_graph("flow", 430), style={"minWidth": flow_width(n_snapshots)})
    scroll: Any = {"aria-label": "Flow between clusters"}
    return _panel(
        "Flow between clusters",
        html.Div(chart, className="scroll", role="group", tabIndex=0, **scroll),
        html.Label(
            [html.Span("who goes from one to another"), dcc.Dropdown(id="band", placeholder="which band")],
            className="named",
        ),
        _stamp("flow"),
        note="Click a band, or choose one under the chart: the embedding then shows who goes that way. Under each step "
        "is the share that moved, in parentheses where it is not over the noise floor, which is known of KMeans of all "
        "snapshots together.",
    )


def _overview() -> html.Section:
    return _panel(
        "All layers",
        html.Div(
            [
                html.Button("Judge and compare all layers", id="compare", type="button"),
                html.Button("Write the report", id="write", type="button"),
                html.Span(id="written"),
            ],
            className="buttons",
        ),
        html.Div(id="findings"),
        html.Div([_graph("layers", 400), _graph("snapshots", 400)], id="heat", className="beside", hidden=True),
        _stamp("similarity"),
        note="What the measurements say, and debiased CKA: layer against layer at the snapshot of the slider, and the "
        "chosen layer against itself. It reads the whole run once.",
    )


def _metrics(run: Run) -> html.Section | None:
    metrics = run.metrics
    names = metrics_to_draw(metrics, at_most=MOST_METRICS)
    if not names:
        return None
    charts = []
    for index, name in enumerate(names):
        chart = metric_chart(metrics, column=name)["figure"]
        charts.append(html.Figure([html.Figcaption(metric_title(name)[0]), _graph(f"metric-{index}", 230, chart)]))
    return _panel("The training", html.Div(charts, className="charts"))


def _panel(title: str, *children: Any, note: str = "") -> html.Section:
    head = [html.H2(title), *([html.P(explained(note), className="note")] if note else [])]
    return html.Section([*head, *children], className="card")


def explained(text: str) -> list[Any]:
    """Make the first mention of each term a button that says what it means, with the texts of the report."""
    parts: list[Any] = []
    for part, term in split_at_terms(text):
        about: dict[str, Any] = {} if term is None else {"data-term": term, "data-meaning": GLOSSARY[term]}
        parts.append(part if term is None else html.Button(part, type="button", className="term", **about))
    return parts


def _graph(name: str, height: int, figure: dict[str, Any] | None = None, **more: Any) -> dcc.Graph:
    bare = layout_of(margin={"l": 0, "r": 0, "t": 0, "b": 0})
    empty = {"data": [], "layout": bare | {"xaxis": {"visible": False}, "yaxis": {"visible": False}}}
    config: Any = {"displayModeBar": False, "responsive": True}
    look: Any = {"className": "chart", "responsive": True, "style": {"height": height}}
    return dcc.Graph(id=name, figure=figure or empty, config=config, **look, **more)


def _choice(name: str, label: str, options: Any, value: Any) -> html.Label:
    return html.Label([html.Span(label), dcc.Dropdown(id=name, options=list(options), value=value, clearable=False)])


def _number(name: str, label: str, value: int, *, least: int) -> html.Label:
    return html.Label(
        [html.Span(label), dcc.Input(id=name, type="number", value=value, min=least, step=1, debounce=True)]
    )


def about(run: Run, shown: pd.DataFrame) -> str:
    """Say what the run is, and what is left out because layers gave NaN or infinite values."""
    titles = snapshot_titles(run.snapshots)
    text = f"{len(run.layers)} layers, {len(run)} snapshots ({titles[0]} to {titles[-1]}), {run.n_samples} images"
    if lines := diverged_lines(run, kept=shown["snapshot"].tolist()):
        text += f". Left out, as layers gave NaN or infinite values: {'; '.join(lines)}"
    return ". ".join([text, *(line.removesuffix(".") for line in part_lines(part_to_show(run)))])
