"""Page of a report: all its parts, put into the template."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ..plot.drawing import list_classes, metric_title, metrics_to_draw, recorded_metrics, snapshot_titles
from ..store import FinitePart, Layer, Run, layer_title
from ._files import environment
from .charts import STRONG, embedding_chart, flow_chart, metric_chart, similarity_charts, trajectories_chart
from .content import (
    GLOSSARY,
    NOTHING_FOUND,
    Caption,
    Change,
    ClusterRow,
    Grid,
    LayerContent,
    Moved,
    Overview,
    Responses,
    Settings,
    ShownImages,
    Sprites,
    Step,
    Strips,
    advice_lines,
    change_text,
    cluster_rows,
    diverged_lines,
    faithfulness_line,
    gradient,
    how_it_was_made,
    last_session,
    layer_evidence,
    make_grid,
    make_sprites,
    make_strips,
    make_thumbnails,
    mark_terms,
    missing_lines,
    model_name,
    moved_overall,
    one_row,
    plan_text,
    row_meaning,
    row_noun,
    steps,
    story_line,
    thumbnails_data,
)

if TYPE_CHECKING:
    from ..decide import Plan

MOST_METRICS = 4


@dataclass(frozen=True)
class LayerSection:
    """All that the page says of one layer; texts are not escaped yet.

    Attributes
    ----------
    anchor : str
        Its id in the page.
    name, module, shape : str
        What the layer is.
    noun, one : str
        What its rows are called, and one of them.
    n_rows : int
        Rows in a snapshot.
    charts : dict of str to dict
        ``embedding``, and with two or more snapshots ``trajectories`` and ``flow``.
    faithfulness, made, asked : str
        How far the embedding can be believed, how it was made, and why there are fewer clusters than asked for, if so.
    other_axes, cut_off : str
        Which snapshots have other axes, and what of the paths is cut off; empty where none are.
    titles : list of str
        The snapshots' names.
    palette : dict of int to str
        The color of each cluster.
    ratio : float
        Width over height of the feature maps.
    clusters, steps, moved
        The tables, and the rows that are in another cluster at the last snapshot.
    captions : dict of int to Caption
        What each cluster is.
    n_strong : int
        How many trajectories are drawn strong.
    row_names : list of str
        What each row is.
    most_moved : int
        The row that changed most.
    strips, grid, sprites
        The pictures; None where the run knows no samples, and sprites where rows have no feature maps, too.
    shown_images : list of ShownImages
        The images of each row.
    """

    anchor: str
    name: str
    module: str
    shape: str
    noun: str
    one: str
    n_rows: int
    charts: dict[str, Any]
    faithfulness: str
    made: str
    asked: str
    other_axes: str
    cut_off: str
    titles: list[str]
    palette: dict[int, str]
    ratio: float
    clusters: list[ClusterRow]
    steps: list[Step]
    moved: Moved
    captions: dict[int, Caption]
    n_strong: int
    strips: Strips | None
    grid: Grid | None
    row_names: list[str]
    most_moved: int
    sprites: Sprites | None
    shown_images: list[ShownImages]


def layer_section(
    content: LayerContent,
    *,
    number: int,
    samples: list[int],
    sprites_bytes: int,
    shown_images: list[ShownImages],
    captions: dict[int, Caption],
    settings: Settings,
) -> LayerSection:
    """Draw everything the page shows of one layer, on some images."""
    layer, found = content.layer, content.clusters.n_clusters
    charts = {"embedding": embedding_chart(content)}
    if content.scores.n_snapshots > 1:
        charts |= {"trajectories": trajectories_chart(content), "flow": flow_chart(content)}
    fewer = f"{found} clusters rather than {settings.n_clusters:,}: there are not enough different rows for more."
    return LayerSection(
        anchor=f"layer-{number}",
        name=layer.name,
        module=layer.module,
        shape=_shape(layer) + _guessed(layer),
        noun=row_noun(settings.view),
        one=one_row(settings.view),
        n_rows=content.n_rows,
        charts=charts,
        faithfulness=faithfulness_line(content.embedding.faithfulness),
        made=how_it_was_made(content),
        asked=fewer if found < settings.n_clusters else "",
        other_axes=content.limits.note_each(titles=content.titles),
        cut_off=content.limits.note_together(titles=content.titles),
        titles=content.titles,
        palette=content.palette,
        ratio=round(content.ratio, 3),
        clusters=cluster_rows(content),
        steps=steps(content),
        moved=moved_overall(content),
        captions=captions,
        n_strong=min(STRONG, content.n_rows),
        strips=make_strips(content, sample=samples[0]) if samples else None,
        # where every channel is on the page already, the classic picture would be the same once more
        grid=make_grid(layer, sample=samples[0], snapshot=content.vectors.snapshots[-1])
        if samples and content.scores.identity != ["channel"]
        else None,
        row_names=content.row_names,
        most_moved=int(content.change.argmax()),
        sprites=make_sprites(content, samples=samples, max_bytes=sprites_bytes),
        shown_images=shown_images,
    )


def render_page(
    run: Run,
    sections: list[LayerSection],
    *,
    overview: Overview,
    change: Change | None,
    responses: Responses | None,
    plan: "Plan | None",
    refresh: int | None,
    settings: Settings,
    part: FinitePart,
    left_out: list[str],
) -> str:
    """Return the page, one HTML document that loads nothing."""
    metrics = run.metrics
    names = recorded_metrics(metrics)
    drawn = metrics_to_draw(metrics, at_most=MOST_METRICS)
    kept = set(settings.snapshots or run.snapshots["snapshot"])
    titles = [
        title
        for title, number in zip(snapshot_titles(run.snapshots), run.snapshots["snapshot"], strict=True)
        if number in kept
    ]
    shown_images = [shown for section in sections for shown in section.shown_images]
    data = {
        "metrics": [metric_chart(metrics, column=name) for name in drawn],
        "layers": [section.charts for section in sections],
        "similarity": {}
        if overview.similarity is None
        else similarity_charts(overview.similarity, titles=titles, opened=_most_changed_layer(change)),
        "titles": titles,
        "sprites": [_sprites_data(section) for section in sections],
        "shown_images": [
            [{"title": each.title, "rows": each.rows} for each in section.shown_images] for section in sections
        ],
        "thumbnails": thumbnails_data(make_thumbnails(run, shown_images)),
        "most_moved": [section.most_moved for section in sections],
    }
    templates = environment()
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    templates.filters |= {
        "brief_advice": _brief_advice,
        "bytes": _bytes,
        "change": change_text,
        "class_list": list_classes,
        "gradient": gradient,
        "layer": layer_title,
        "metric": _metric,
        "metric_name": lambda name: metric_title(name)[0],
        "share": _share,
        "terms": mark_terms,
    }
    return templates.get_template("report.html.j2").render(
        run=run,
        run_name=run.name,
        model=model_name(run),
        session=last_session(run),
        titles=titles,
        n_finite=max(len(part.snapshots), len(titles)),
        diverged=diverged_lines(run),
        left_out_how=_left_out_how(run, part),
        left_out=left_out,
        missing=missing_lines(run),
        refresh=refresh,
        overview=overview,
        advice=[] if overview.findings is None else advice_lines(overview.findings),
        evidence=[] if overview.findings is None else layer_evidence(overview.findings),
        snapshots=metrics.to_dict("records"),
        metric_names=names,
        drawn_metrics=[metric_title(name)[0] for name in drawn],
        story=story_line(run),
        pixels=overview.pixels,
        nothing_found=NOTHING_FOUND,
        plan=None if plan is None else plan_text(plan),
        priced=overview.findings is not None
        and any("measure" not in each.evidence for each in overview.findings.advice),
        change=change,
        most_changed=_most_changed(change),
        responses=responses,
        most_moved=_most_moved(sections),
        glossary=GLOSSARY,
        opened=_opened(sections, change),
        sections=sections,
        settings=settings,
        noun=row_noun(settings.view),
        meaning=row_meaning(settings.view),
        fused=settings.reducer is None,
        data=data,
        plotly=Markup(get_plotlyjs()),
    )


def _left_out_how(run: Run, part: FinitePart) -> str:
    """Say what of snapshots that are not finite is left out."""
    if not set(run.diverged()["snapshot"]) & set(part.snapshots):
        return "These snapshots are left out of everything else"
    if len(part.left_out.samples) and not len(part.left_out.layers):
        return "The images of which they did are left out of everything else"
    if run.finiteness.at(part.layers[0])[part.snapshots].any():
        return f"Here stand the channels of {layer_title(part.layers[0])} that stayed finite, and nothing else"
    return "Here stand layers that stayed finite, and nothing of the others"


def _sprites_data(section: LayerSection) -> dict[str, Any] | None:
    """Return what cuts the sheets of a layer into tiles."""
    sprites = section.sprites
    if sprites is None:
        return None
    return {
        "sheets": [sheet.uri for sheet in sprites.sheets],
        "titles": [sheet.title for sheet in sprites.sheets],
        "height": sprites.height,
        "width": sprites.width,
        "across": sprites.across,
        "columns": sprites.columns,
    }


def _opened(sections: list[LayerSection], change: Change | None) -> int:
    """Return which layer is shown first: the one that changed most, if any is over its noise floor."""
    names = [section.name for section in sections]
    over = [each for each in change.layers if each.is_over(each.total) and each.name in names] if change else []
    return names.index(max(over, key=lambda each: each.total).name) if over else 0


def _most_changed_layer(change: Change | None) -> str | None:
    """Return the layer that changed most."""
    return max(change.layers, key=lambda each: each.total).name if change else None


def _most_moved(sections: list[LayerSection]) -> float:
    """Return the greatest share in the table of churn, at least 5 %: the darkest shade."""
    every = [step.moved for section in sections for step in section.steps]
    shares = [moved.share for moved in [*every, *(section.moved for section in sections)] if moved is not None]
    return max([0.05, *(share for share in shares if np.isfinite(share))])


def _most_changed(change: Change | None) -> float:
    """Return the greatest change of a step in the heat map: the darkest shade."""
    return max([1e-6, *(value for layer in change.layers for value in layer.steps)]) if change else 1.0


def _shape(layer: Layer) -> str:
    channels, height, width = layer.feature_map_shape
    maps = f", feature maps of {height} × {width}" if height * width > 1 else ""
    whole = layer.n_output_channels
    return f"{channels} channels{f' of {whole}' if channels < whole else ''}{maps}"


def _guessed(layer: Layer) -> str:
    """Say where nothing told which axis holds the channels."""
    if layer.channel_axis_source != "shape" or len(layer.output_shape) < 2:
        return ""
    return " (which axis holds the channels is guessed from the shape; channel_axis= says so)"


def _brief_advice(text: str) -> str:
    """Return what is advised, or found, without lists of channels and what brackets add, but for intervals.

    The page has all of it below.

    Examples
    --------
    >>> _brief_advice("conv1: 2 of 8 channels are dead (constant over the probe) from the first snapshot on: 0, 3")
    'conv1: 2 of 8 channels are dead from the first snapshot on.'
    >>> _brief_advice("conv1 would move 0.010 (0.002 to 0.020) to the end (1 - CKA): a candidate to freeze")
    'conv1 would move 0.010 (0.002 to 0.020) to the end: a candidate to freeze.'
    """
    said = re.sub(r" \((?!-?[\d.]+ to -?[\d.]+)[^()]*\)|: \d+(?: = |, | \.\.\.|$).*", "", text)
    return said if said.endswith(".") else f"{said}."


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def _metric(value: float, name: str) -> str:
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "infinite"
    return f"{value:.1%}" if metric_title(name)[1] else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.0%}"
