"""Callbacks of the explorer: what is drawn anew when something on the page is changed."""

from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, html, no_update

from ..plot.drawing import cluster_name, snapshot_titles
from ..report.charts import band_names, flow_chart, similarity_charts
from ..report.content import NOTHING_FOUND, LayerContent, advice_lines, faithfulness_line
from ._chosen import ordinal_in
from ._figures import (
    class_legend,
    class_of_rows,
    embedding_figure,
    grid_figure,
    heat_map,
    input_image,
    row_image,
    row_pictures,
    row_strip,
    sample_names,
)
from ._page import about, explained
from ._points import connect_points
from ._questions import ContentOf, OverviewOf, Question, ReportOf, TopImagesOf, layer_of
from ._worker import Worker

STORES = ("ready", "overview", "top-images", "report")
MOST_PICTURES = 300  # more would hide each other
ASKED = ("layer", "quantity", "view", "scaling", "clusterer", "n_clusters", "fit", "n_rows", "random_state")


def question_of(values: tuple[Any, ...]) -> ContentOf:
    """Return what the controls ask for."""
    asked = dict(zip(ASKED, values, strict=True))
    for name, least in (("n_clusters", 1), ("n_rows", 4), ("random_state", 0)):
        if not isinstance(asked[name], int) or asked[name] < least:
            received = "empty, or not such a number" if asked[name] is None else asked[name]  # Dash hands on no other
            raise ValueError(f"{name} is {received}; expected an integer from {least}")
    if asked["fit"] not in ("pooled", "each"):
        asked["fit"] = int(asked["fit"])
    return ContentOf(**asked)


def connect(app: Dash, worker: Worker) -> None:
    """Let the page of an app follow its controls."""
    controls = [Input(name, "value") for name in ASKED]
    states = [State(name, "value") for name in ASKED]

    def content_now(values: tuple[Any, ...]) -> LayerContent | None:
        return worker.answer(question_of(values))

    @app.callback(
        Output("status", "children"),
        *(Output(name, "data") for name in STORES),
        Output("panels", "className"),
        Output("n_clusters", "disabled"),
        Input("tick", "n_intervals"),
        *(State(name, "data") for name in STORES),
        *controls,
    )
    def follow(_tick: int, *stored_and_values: Any) -> tuple[Any, ...]:
        stored, values = stored_and_values[: len(STORES)], stored_and_values[len(STORES) :]
        try:
            question = question_of(values)
        except ValueError as error:
            return str(error), *(no_update for _ in STORES), "stale", no_update
        worker.ask(question)
        top_images = TopImagesOf(question.layer, question.quantity)
        questions: list[Question] = [question, OverviewOf(), top_images, ReportOf()]  # in the order of STORES
        refused = next(filter(None, [worker.refusal(each) for each in questions]), "")
        doing = worker.doing()
        # A number of snapshots and a question have one answer: when they change, everything is drawn again.
        new = [_name(worker, each) for each in questions]
        changed = [no_update if now == old else now for now, old in zip(new, stored, strict=True)]
        said = [html.Span(className="spinner"), f"{doing} …"] if doing and not refused else refused
        # what is on the page is of earlier settings as long as these have no answer
        look = "" if new[0] is not None else "stale"
        stores = (no_update if now is None else now for now in changed)
        return said, *stores, look, question.clusterer == "HDBSCAN"

    @app.callback(
        Output("row", "options"),
        Output("row", "value"),
        Output("legend", "children"),
        Output("faithful", "children"),
        Output("flow", "figure"),
        Output("members", "data"),
        Output("stamp-flow", "children"),
        Output("band", "options"),
        Output("band", "value"),
        Input("ready", "data"),
        *states,
        prevent_initial_call=True,
    )
    def show_study(_ready: str, *values: Any) -> tuple[Any, ...]:
        content = content_now(values)
        if content is None:
            return (no_update,) * 9
        options = [{"value": row, "label": name} for row, name in enumerate(content.row_names)]
        n_rows, of = content.n_rows, content.rows_in_view
        drawn = f" {n_rows} of {of} rows, drawn at random." if n_rows < of else ""
        faithful = f"This embedding {faithfulness_line(content.embedding.faithfulness)}.{drawn}"
        more = content.scores.n_snapshots > 1
        flow = flow_chart(content)["figure"] if more else no_update
        bands = [{"value": number, "label": name} for number, name in band_names(content)] if more else []
        stamp, row = question_of(values).in_words(content.clusters.n_clusters), int(content.change.argmax())
        return options, row, _legend(content), explained(faithful), flow, None, stamp, bands, None

    @app.callback(
        Output("embedding", "figure"),
        Output("when", "children"),
        Output("stamp-embedding", "children"),
        Output("classes", "children"),
        Output("legend", "className"),
        Input("ready", "data"),
        Input("snapshot", "value"),
        Input("row", "value"),
        Input("members", "data"),
        Input("color", "value"),
        Input("mark", "value"),
        Input("sample", "value"),
        *states,
        prevent_initial_call=True,
    )
    def draw_embedding(
        _ready: Any,
        snapshot: int,
        row: int | None,
        members: list[int] | None,
        color: str,
        mark: str,
        sample: int | None,
        *values: Any,
    ) -> tuple[Any, ...]:
        content = content_now(values)
        if content is None:
            return no_update, snapshot_titles(worker.shown)[snapshot], no_update, no_update, no_update
        if ctx.triggered_id == "sample" and mark == "dots":
            return (no_update,) * 5
        row = row if row is not None and row < content.n_rows else None
        asked, snapshot = snapshot_titles(worker.shown)[snapshot], ordinal_in(content, worker.shown, ordinal=snapshot)
        made = question_of(values).in_words(content.clusters.n_clusters)
        stamp = f"{made}; {content.titles[snapshot]}; colored by {color}"
        if other := content.limits.note_at(snapshot, titles=content.titles):
            stamp += f"; {other}"
        pictures = None
        if mark == "pictures" and content.n_rows <= MOST_PICTURES:
            every = list(range(content.n_rows))
            pictures = row_pictures(content, worker.run, rows=every, snapshot=snapshot, sample=sample, side=40)
        elif mark == "pictures":
            stamp += f"; dots, as there are more than {MOST_PICTURES} points"
        figure = embedding_figure(content, snapshot=snapshot, row=row, members=members, color=color, pictures=pictures)
        if color == "class" and class_of_rows(content) is None:
            stamp += " of images, which a point of this view is not: the colors are those of clusters"
            color = "cluster"
        if asked != content.titles[snapshot]:
            stamp += f"; at {asked} it is not finite"
        named = class_legend(content) if color == "class" else []
        # a color that no point has would say nothing
        return figure, asked, stamp, named, "legend" if color == "cluster" else "legend plain"

    @app.callback(
        Output("row", "value", allow_duplicate=True),
        Input("embedding", "clickData"),
        Input("grid", "clickData"),
        Input({"row": ALL, "of": ALL}, "n_clicks"),
        *states,
        prevent_initial_call=True,
    )
    def choose_row(on_embedding: Any, on_grid: Any, _on_tiles: Any, *values: Any) -> Any:
        content = content_now(values)
        if content is None or not ctx.triggered[0]["value"]:
            return no_update
        if isinstance(ctx.triggered_id, dict):
            return ctx.triggered_id["row"]
        if ctx.triggered_id == "embedding":
            point = on_embedding["points"][0]
            return point["pointNumber"] if point["curveNumber"] == 0 else no_update
        if content.scores.identity != ["channel"]:
            return no_update
        channel = int(content.layer.channels[on_grid["points"][0]["pointNumber"]])
        rows = content.scores.rows["channel"].iloc[: content.n_rows].tolist()
        return rows.index(channel) if channel in rows else no_update

    @app.callback(
        Output("closely", "children"),
        Input("ready", "data"),
        Input("row", "value"),
        Input("sample", "value"),
        *states,
        prevent_initial_call=True,
    )
    def show_row(_ready: Any, row: int | None, sample: int | None, *values: Any) -> Any:
        content = content_now(values)
        if content is None or row is None or row >= content.n_rows:
            return no_update
        return _closely(content, worker, row=row, sample=sample)

    @app.callback(
        Output("grid", "figure"),
        Output("input", "children"),
        Output("stamp-grid", "children"),
        Input("layer", "value"),
        Input("quantity", "value"),
        Input("sample", "value"),
        Input("snapshot", "value"),
        Input("row", "value"),
        State("ready", "data"),
        *states,
    )
    def draw_grid(
        name: str, quantity: str, sample: int | None, snapshot: int, row: int | None, _ready: Any, *values: Any
    ) -> Any:
        if sample is None or (quantity == "gradient" and "gradient" not in worker.run[name].quantities):
            return no_update, no_update, no_update
        layer, content = layer_of(worker.run, name, quantity=quantity), content_now(values)
        chosen = None
        if content is not None and row is not None and row < content.n_rows and content.scores.identity == ["channel"]:
            chosen = int(content.scores.rows["channel"].iloc[row])
        number = int(worker.shown["snapshot"].iloc[snapshot])
        picture = input_image(worker.run, sample)
        shown = [] if picture is None else [html.Img(src=picture, alt="The image that the network saw")]
        stamp = f"{quantity} of {name} on sample {sample}; {snapshot_titles(worker.shown)[snapshot]}"
        return grid_figure(layer, snapshot=number, sample=sample, chosen=chosen), shown, stamp

    _connect_overview(app, worker)
    connect_points(app, worker, content_now=content_now, states=states)
    _connect_top_images(app, worker, content_now, states)
    _connect_time(app, worker)


def _connect_overview(app: Dash, worker: Worker) -> None:
    @app.callback(Output("compare", "disabled"), Input("compare", "n_clicks"), prevent_initial_call=True)
    def compare(_clicks: int) -> bool:
        worker.ask(OverviewOf())
        return True

    @app.callback(Output("findings", "children"), Input("overview", "data"), prevent_initial_call=True)
    def show_findings(_found: Any) -> Any:
        overview = worker.answer(OverviewOf())
        if overview is None:
            return no_update
        if overview.findings is None:
            return html.P(f"The layers were not compared: {overview.refused}")
        lines = advice_lines(overview.findings)
        if not lines:
            return html.P(f"{NOTHING_FOUND[0].upper()}{NOTHING_FOUND[1:]}.")
        return html.Ul([html.Li([html.Strong(each.action), f" {each.text}"]) for each in lines], className="advice")

    @app.callback(
        Output("write", "disabled"),
        Output("written", "children"),
        Input("write", "n_clicks"),
        Input("report", "data"),
        prevent_initial_call=True,
    )
    def write(clicks: int | None, _written: Any) -> tuple[bool, Any]:
        if ctx.triggered_id == "write" and clicks:
            worker.ask(ReportOf())
        page = worker.answer(ReportOf())
        if page is None:
            return ctx.triggered_id == "write", no_update
        return False, html.A(f"Open the report ({len(page) / 1e6:.1f} MB)", href="/report.html", target="_blank")

    @app.callback(
        Output("layers", "figure"),
        Output("snapshots", "figure"),
        Output("heat", "hidden"),
        Output("stamp-similarity", "children"),
        Input("overview", "data"),
        Input("snapshot", "value"),
        Input("layer", "value"),
        prevent_initial_call=True,
    )
    def show_similarity(_found: Any, snapshot: int, layer: str) -> tuple[Any, ...]:
        overview = worker.answer(OverviewOf())
        found = None if overview is None else overview.similarity
        if found is None:
            return no_update, no_update, True, ""
        charts = similarity_charts(found, titles=snapshot_titles(worker.shown))
        whole = heat_map(charts["layers"], stage=snapshot)
        if "snapshots" not in charts:
            return whole, no_update, False, ""
        stamp = f"left: {snapshot_titles(worker.shown)[snapshot]}; right: {layer}"
        compared = found.rows["layer"].unique().tolist()
        if layer not in compared:  # it was finite until the snapshots that were shown since it was chosen
            return whole, no_update, False, f"left: {snapshot_titles(worker.shown)[snapshot]}; {layer} is not finite"
        stage = compared.index(layer)
        return whole, heat_map(charts["snapshots"], stage=stage), False, stamp


def _connect_top_images(app: Dash, worker: Worker, content_now: Any, states: list[State]) -> None:
    @app.callback(
        Output("find", "hidden"), Input("find", "n_clicks"), Input("ready", "data"), *states, prevent_initial_call=True
    )
    def find(_clicks: int | None, _ready: Any, *values: Any) -> bool:
        content = content_now(values)
        if ctx.triggered_id == "find":
            worker.ask(TopImagesOf(values[0], values[1]))
        return content is not None and content.scores.identity != ["channel"]

    @app.callback(
        Output("found", "children"),
        Input("top-images", "data"),
        Input("row", "value"),
        Input("ready", "data"),
        *states,
        prevent_initial_call=True,
    )
    def show_top_images(_found: Any, row: int | None, _ready: Any, *values: Any) -> Any:
        content, found = content_now(values), worker.answer(TopImagesOf(values[0], values[1]))
        if (
            content is None
            or found is None
            or row is None
            or content.scores.identity != ["channel"]
            or row >= content.n_rows
        ):
            return []
        channel = int(content.scores.rows["channel"].iloc[row])
        ordinal = content.layer.channels.tolist().index(channel)
        shown = []
        for end, title in enumerate(snapshot_titles(found.snapshots)):
            images = []
            for sample, at in zip(found.samples[end, ordinal], found.fractions[end, ordinal], strict=True):
                picture = input_image(worker.run, int(sample), at=(at[0], at[1]), side=80) if sample >= 0 else None
                name = f"sample {sample}"
                images.append(html.Span(name) if picture is None else html.Img(src=picture, alt=name, title=name))
            shown.append(html.Figure([html.Figcaption(f"top images at {title}"), html.Div(images, className="strip")]))
        return shown


def _connect_time(app: Dash, worker: Worker) -> None:
    @app.callback(
        Output("beat", "disabled"),
        Output("play", "children"),
        Output("snapshot", "value", allow_duplicate=True),
        Input("play", "n_clicks"),
        Input("beat", "n_intervals"),
        State("snapshot", "value"),
        State("beat", "disabled"),
        prevent_initial_call=True,
    )
    def play(_clicks: int, _beats: int, snapshot: int, still: bool) -> tuple[bool, str, Any]:
        last = len(worker.shown) - 1
        if ctx.triggered_id == "play":
            if not still:
                return True, "Play", no_update
            return False, "Pause", 0 if snapshot == last else min(snapshot + 1, last)
        following = min(snapshot + 1, last)
        return following == last, "Play" if following == last else "Pause", following

    @app.callback(
        Output("about", "children"),
        Output("snapshot", "max"),
        Output("sample", "options"),
        Input("look", "n_intervals"),
        Input({"refresh": 0}, "n_clicks", allow_optional=True),
    )
    def look(_looks: int | None, refresh: int | None) -> tuple[Any, Any, Any]:
        if ctx.triggered_id == {"refresh": 0} and refresh:
            worker.reopen()
        newer = worker.newer()
        more = [f"; {newer} more by now ", html.Button("Show them", id={"refresh": 0}, type="button")] if newer else []
        return [about(worker.run, worker.shown), *more], len(worker.shown) - 1, sample_names(worker.run)


def _name(worker: Worker, question: Question) -> str | None:
    """Return what tells an answer from others, or None while there is none."""
    return f"{len(worker.run)} {question}" if worker.answer(question) is not None else None


def _legend(content: LayerContent) -> list[Any]:
    sizes = content.history.sizes.iloc[-1]
    shown = [
        html.Button(
            [html.I(style={"background": content.palette[label]}), f"{cluster_name(label)} ({sizes[label]})"],
            id={"cluster": label},
            type="button",
        )
        for label in sorted(int(label) for label in content.history.sizes.columns)
        if sizes[label]
    ]
    return [*shown, html.Button("All points", id={"cluster": "all"}, type="button")]


def _closely(content: LayerContent, worker: Worker, *, row: int, sample: int | None) -> list[Any]:
    name, labels = content.row_names[row], content.labels[:, row].tolist()
    pictures = row_strip(content, row=row, sample=sample)
    columns = []
    for ordinal, (title, label) in enumerate(zip(content.titles, labels, strict=True)):
        what = f"{title}: {cluster_name(label)}"
        shown = [html.Img(src=pictures[ordinal], alt=f"{name}, {what}", className="tile")] if pictures else []
        mark = html.I(style={"background": content.palette[label]})
        columns.append(html.Figure([*shown, html.Figcaption([mark, what])]))
    own = row_image(content, worker.run, row=row)
    beside = [] if own is None else [html.Img(src=own, alt=name)]
    return [html.H3(name), *beside, html.Div(columns, className="strip")]
