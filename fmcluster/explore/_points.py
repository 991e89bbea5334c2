"""Points of the embedding: what is shown of those pointed at, drawn around, searched for, or chosen by cluster."""

from collections.abc import Callable
from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, html, no_update

from ..plot.drawing import cluster_name
from ..report.charts import flow_chart
from ..report.content import LayerContent
from ._chosen import class_mix, nearest, ordinal_in, rows_named, rows_of_cluster
from ._figures import row_pictures
from ._questions import TopImagesOf
from ._worker import Worker

MOST_TILES = 24  # of the chosen points; the others are counted
ContentNow = Callable[[tuple[Any, ...]], LayerContent | None]


def connect_points(app: Dash, worker: Worker, *, content_now: ContentNow, states: list[State]) -> None:
    """Let the page follow its points."""
    _connect_choice(app, worker, content_now, states)
    _connect_pointer(app, worker, content_now, states)


def _connect_choice(app: Dash, worker: Worker, content_now: ContentNow, states: list[State]) -> None:
    @app.callback(
        Output("members", "data", allow_duplicate=True),
        Input("flow", "clickData"),
        Input("band", "value"),
        Input("embedding", "selectedData"),
        Input("search", "value"),
        Input({"cluster": ALL}, "n_clicks"),
        State("snapshot", "value"),
        *states,
        prevent_initial_call=True,
    )
    def choose(
        clicked: Any, band: int | None, drawn_around: Any, text: str | None, _clicks: Any, snapshot: int, *values: Any
    ) -> Any:
        content, by = content_now(values), ctx.triggered_id
        if content is None or (isinstance(by, dict) and not ctx.triggered[0]["value"]):
            return no_update
        if isinstance(by, dict):
            label = by["cluster"]
            at = ordinal_in(content, worker.shown, ordinal=snapshot)
            return None if label == "all" else rows_of_cluster(content, int(label), snapshot=at)
        if by == "search":
            return rows_named(content, text) if text and text.strip() else None
        if by == "embedding":
            points = (drawn_around or {}).get("points", [])
            rows = sorted(point["pointNumber"] for point in points if point["curveNumber"] == 0)
            return rows or no_update
        if by == "flow":
            if not clicked or "source" not in clicked["points"][0]:
                return no_update  # a bar, not a band
            band = clicked["points"][0]["pointNumber"]
        if band is None:
            return no_update
        source, target, here, there = flow_chart(content)["moves"][band]
        labels = content.labels
        return [row for row in range(content.n_rows) if labels[source, row] == here and labels[target, row] == there]

    @app.callback(
        Output("chosen", "children"),
        Input("members", "data"),
        Input("snapshot", "value"),
        Input("sample", "value"),
        Input("top-images", "data"),
        *states,
        prevent_initial_call=True,
    )
    def show_chosen(members: list[int] | None, snapshot: int, sample: int | None, _found: Any, *values: Any) -> Any:
        content = content_now(values)
        if content is None or members is None:
            return []
        snapshot = ordinal_in(content, worker.shown, ordinal=snapshot)
        title = content.titles[snapshot]
        parts: list[Any] = [html.H3(f"{len(members)} of {content.n_rows} points")]
        if not members:
            parts.append(html.P("No point has that in its name."))
        if members:
            labels = content.labels[snapshot, members]
            counts = [(int((labels == label).sum()), label) for label in sorted(set(labels.tolist()))]
            told = ", ".join(f"{count} in {cluster_name(label)}" for count, label in counts)
            parts.append(html.P(f"At {title}: {told}."))
            parts += _mix_of(content, members, worker, values)
            parts.append(_tiles(content, worker, members[:MOST_TILES], snapshot=snapshot, sample=sample, of="chosen"))
        if len(members) > MOST_TILES:
            parts.append(html.P(f"and {len(members) - MOST_TILES} more", className="note"))
        return parts


def _connect_pointer(app: Dash, worker: Worker, content_now: ContentNow, states: list[State]) -> None:
    @app.callback(
        Output("tip", "show"),
        Output("tip", "bbox"),
        Output("tip", "children"),
        Input("embedding", "hoverData"),
        State("snapshot", "value"),
        State("sample", "value"),
        *states,
        prevent_initial_call=True,
    )
    def point_at(hovered: Any, snapshot: int, sample: int | None, *values: Any) -> tuple[Any, ...]:
        content = content_now(values)
        points = [point for point in (hovered or {}).get("points", []) if point["curveNumber"] == 0]
        if content is None or not points or points[0]["pointNumber"] >= content.n_rows:
            return False, no_update, no_update
        row, snapshot = points[0]["pointNumber"], ordinal_in(content, worker.shown, ordinal=snapshot)
        (picture,) = row_pictures(content, worker.run, rows=[row], snapshot=snapshot, sample=sample, side=96)
        name, label = content.row_names[row], int(content.labels[snapshot, row])
        shown = [] if picture is None else [html.Img(src=picture, alt="")]
        return True, points[0]["bbox"], [*shown, html.Div(name), html.Div(cluster_name(label))]

    @app.callback(
        Output("neighbors", "children"),
        Input("ready", "data"),
        Input("row", "value"),
        Input("snapshot", "value"),
        Input("sample", "value"),
        *states,
        prevent_initial_call=True,
    )
    def show_neighbors(_ready: Any, row: int | None, snapshot: int, sample: int | None, *values: Any) -> Any:
        content = content_now(values)
        if content is None or row is None or row >= content.n_rows:
            return no_update
        if content.n_rows < 2:
            return []
        snapshot = ordinal_in(content, worker.shown, ordinal=snapshot)
        found = nearest(content, row=row, snapshot=snapshot)
        ends = [(0, found.then)] if snapshot == 0 else [(0, found.then), (snapshot, found.now)]
        parts: list[Any] = []
        for at, rows in ends:
            parts.append(html.H3(f"Nearest to it at {content.titles[at]}"))
            parts.append(_tiles(content, worker, list(rows), snapshot=at, sample=sample, of=f"near {at}"))
        if snapshot:
            told = f"{found.shared} of {len(found.now)} are the same as at {content.titles[0]}; by chance it would be "
            parts.append(html.P(f"{told}{found.chance:.1f}. By distance between vectors, not in the embedding."))
        return parts


def _mix_of(content: LayerContent, members: list[int], worker: Worker, values: tuple[Any, ...]) -> list[Any]:
    """Tell the classes of what is chosen, beside those of all points."""
    found = worker.answer(TopImagesOf(values[0], values[1]))
    mix = class_mix(content, members, found=found)
    if not mix:
        return []
    here, every = (sum(each[end] for each in mix.values()) for end in (0, 1))
    whose = "Their images" if "sample" in content.scores.identity else "Their top images at the last snapshot"
    told = ", ".join(
        f"{name}: {count} ({count / here:.0%}; of all points {of_all / every:.0%})"
        for name, (count, of_all) in mix.items()
    )
    return [html.P(f"{whose}: {told}.")] if here else []


def _tiles(
    content: LayerContent, worker: Worker, rows: list[int], *, snapshot: int, sample: int | None, of: str
) -> html.Div:
    """Return rows as buttons with their pictures; a click looks at one closely."""
    pictures = row_pictures(content, worker.run, rows=rows, snapshot=snapshot, sample=sample)
    names = content.row_names
    tiles = []
    for row, picture in zip(rows, pictures, strict=True):
        shown = [] if picture is None else [html.Img(src=picture, alt="")]
        tiles.append(html.Button([*shown, html.Span(names[row])], id={"row": row, "of": of}, type="button"))
    return html.Div(tiles, className="tiles")
