"""Report: one HTML file about a run."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ..analysis import MAX_BYTES, Damage, Reducer, ResultCache, blas_in_one_thread
from ..store import Layer, Run, describe_excluded
from ..vectors import Scaling
from ._files import checked_target, replace
from ._page import LayerSection, layer_section, render_page
from ._written_page import WrittenPage
from .content import (
    OVERALL_STAGES,
    SHEETS_BYTES,
    STAGES,
    Change,
    LayerContent,
    Overview,
    Responses,
    Settings,
    ShownImages,
    choose_images,
    choose_layers,
    choose_snapshots,
    find_captions,
    find_responses,
    find_top_images,
    make_layer_content,
    make_overview,
    moved_overall,
    part_lines,
    part_with,
    row_noun,
    samples_of,
    top_images_of,
    what_changed_most,
)

if TYPE_CHECKING:
    from ..decide import Plan

Announce = Callable[[str], None]
Progress = Callable[[str, int, int], None]


def write_report(
    run: Run,
    path: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    view: str = "channel",
    n_clusters: int = 8,
    scaling: Scaling = "none",
    sample: int | None = None,
    reducer: Reducer | None = None,
    random_state: int = 0,
    max_bytes: int = MAX_BYTES,
    diagnosis: bool = True,
    damage: Damage | None = None,
    plan: "Plan | None" = None,
    refresh: int | None = None,
    max_snapshots: int = 40,
    cache: ResultCache | Literal["beside"] | None = "beside",
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> WrittenPage:
    """Analyze some layers of a run and write what was found to one HTML file, which works offline.

    What is not finite is left out, and named on the page: snapshots at which a layer gave NaN or infinite values; where
    there would be none left, samples and layers, too (`Run.finite_part`).

    What would take long is estimated, and the page says on how much: channels are compared at 32,768 positions of all
    images, drawn at random, where products of all rows would be over 69 billion multiplications; principal components
    are those of a random sketch where that takes less than half of the exact way (`pca`, ``exact=False``); and
    `diagnose` draws positions of large layers.

    What was found is saved beside the run (``<run>.results``), and used again by the next report or `fmcluster analyze`
    as long as arguments and snapshots are the same.

    Parameters
    ----------
    run : Run
        Made by `open_run`.
    path : path-like
        The file to write; it is replaced once the new one is whole. Its folder has to exist.
    layers : sequence of str, optional
        Which layers. By default up to five, spread over the depth: those that make new feature maps (convolutions
        and blocks rather than normalization, activation and pooling), coarse blocks first.
    view : str
        What a point in the embeddings is: ``"channel"``, or another view of `Layer.vectors`. Of more than 2,048 rows in
        a snapshot as many are drawn at random; in other views than that of channels, of more than 20,480 in all (but at
        least 256 of each snapshot).
    n_clusters : int
        How many clusters k-means looks for in each layer; fewer where there are fewer rows.
    scaling : {"none", "centered", "unit"}
        What is done to each row before it is embedded and clustered, as of `Layer.vectors`. With ``"unit"``, nothing
        moves because activations grew.
    sample : int, optional
        The image on which feature maps are shown, by its index in the data set; by default the first. Beside it, the
        first ones of up to two other classes are.
    reducer : scikit-learn style reducer, optional
        Makes the embeddings; by default that of `embed`.
    random_state : int
        Seed. The same run, arguments and library versions give the same file.
    max_bytes : int
        Memory that each step of the analysis may take; up to a quarter of it holds the layer at hand as it is stored.
    diagnosis : bool
        Whether to `diagnose` the run and to compare all of its layers, which reads all of it. A run that cannot be
        diagnosed (fewer than four images in every snapshot) gets a page that says why.
    damage : Damage, optional
        What `ablate` measured: the diagnosis then says what could be frozen or built smaller, too, as that of
        `diagnose` does.
    plan : Plan, optional
        What to do to the network, made by `plan`; shown beside what follows, with its price.
    refresh : int, optional
        Seconds after which a browser loads the page again, for one that is written again while training goes on.
    max_snapshots : int
        How many snapshots are analyzed and shown, at least 2. Of more, those between which most changes are chosen, by
        the channels' means and standard deviations; the page says so.
    cache : ResultCache, "beside" or None
        Where results are saved and used again; by default beside the run. None to compute all.
    progress : callable, optional
        Called before each stage with what it is, how many stages are done, and how many there are. What is made beside
        the analysis, embeddings and pictures, is named at the end, when there is nothing else to wait for.
    executor : concurrent.futures.Executor, optional
        Where parts of the analysis are done; by default in threads.

    Returns
    -------
    WrittenPage
        The path of the file, which a notebook shows as the page.

    Raises
    ------
    StoreError
        Where the run has no snapshot yet, or is damaged.
    KeyError
        Where it has no such layer.
    ValueError
        Where it has no such sample, the view is unknown, a layer has too few rows for an embedding, or nothing is
        finite of all layers, or of one that was asked for.
    FileNotFoundError
        Where the folder of `path` does not exist.
    IsADirectoryError
        Where `path` is a folder.
    """
    if not isinstance(run, Run):
        raise TypeError(f"write_report received a {type(run).__name__}; expected a Run, made by open_run(path)")
    if plan is not None:
        _check_plan(plan)
    if damage is not None:
        _check_damage(damage, diagnosis=diagnosis)
    run.resolve(snapshot=0)
    if max_snapshots < 2:
        raise ValueError(f"max_snapshots is {max_snapshots}; expected at least 2")
    target = checked_target(Path(path))
    chosen = [run[name] for name in dict.fromkeys(choose_layers(run) if layers is None else layers)]
    if not chosen:
        raise ValueError(f"no layer was asked for; expected one or more of {', '.join(run.layers)}")
    for layer in chosen:
        layer.vectors(view, scaling=scaling)
    if n_clusters < 1:
        raise ValueError(f"n_clusters is {n_clusters}; expected at least 1")
    if refresh is not None and refresh < 1:
        raise ValueError(f"refresh is {refresh}; expected seconds, at least 1, or None for never")
    names = [layer.name for layer in chosen]
    part = part_with(run, names)
    snapshots = choose_snapshots(run, layers=names, snapshots=part.snapshots, at_most=max_snapshots)
    images = choose_images(run, sample=_checked_sample(run, sample, without=part.left_out.samples))
    settings = Settings(
        view=view,
        n_clusters=n_clusters,
        reducer=reducer,
        random_state=random_state,
        max_bytes=max_bytes,
        snapshots=snapshots,
        samples=samples_of(part),
        scaling=scaling,
        executor=executor,
    )
    done, total = 0, len(chosen) * (STAGES + 3) + OVERALL_STAGES * diagnosis + 1

    def announce(stage: str) -> None:
        nonlocal done
        if progress is not None:
            progress(stage, done, total)
        done += 1

    saved = ResultCache.beside(run) if cache == "beside" else cache

    def diagnose_run() -> Overview:
        if not diagnosis:
            return Overview(None)
        return make_overview(run, settings, part=part, announce=announce, cache=saved, damage=damage)

    contents, sections, overview = _make_sections(
        run, chosen, settings, images=images, announce=announce, cache=saved, diagnose_run=diagnose_run
    )
    announce("page")
    change = _what_changed_most(run, overview, contents, noun=row_noun(view)) if len(snapshots) > 1 else None
    page = render_page(
        run,
        sections,
        overview=overview,
        change=change,
        responses=_responses(run, contents, change, cache=saved, max_bytes=max_bytes) if images else None,
        plan=plan,
        refresh=refresh,
        settings=settings,
        part=part,
        left_out=[*part_lines(part), *(line for each in contents for line in describe_excluded(each.vectors))],
    )
    replace(target, page)
    return WrittenPage(target)


def _make_sections(
    run: Run,
    layers: list[Layer],
    settings: Settings,
    *,
    images: list[int],
    announce: Announce,
    cache: ResultCache | None,
    diagnose_run: Callable[[], Overview],
) -> tuple[list[LayerContent], list[LayerSection], Overview]:
    """Analyze one layer after the other; each is embedded and drawn meanwhile, in one thread more; diagnose the run.

    The last layer is the first: its rows are most, as a rule, and their embedding takes longest. The run is diagnosed
    at the end, so that there is something to do beside the last pictures. One layer at a time is drawn, as more would
    hold up the analysis; what has not begun at the end is drawn here, the last first. A reducer that was passed is run
    in no other thread than this.
    """
    contents: list[LayerContent] = []
    drawings: list[tuple[LayerContent, Callable[[], LayerSection], Future[LayerSection]]] = []
    passed = settings.reducer is not None

    def draw_layer(content: LayerContent, *, number: int, shown_images: list[ShownImages]) -> LayerSection:
        return layer_section(
            content,
            number=number,
            samples=images,
            sprites_bytes=SHEETS_BYTES // len(layers),
            shown_images=shown_images,
            captions=find_captions(run, content, shown=shown_images),
            settings=settings,
        )

    # what is analyzed and what is drawn set the threads of BLAS, each for itself
    with blas_in_one_thread(), ThreadPoolExecutor(1, thread_name_prefix="fmcluster-sections") as threads:
        try:
            for number, layer in reversed(list(enumerate(layers))):
                content = make_layer_content(layer, settings, announce=announce, cache=cache)
                announce(f"{layer.name}: top_images")
                shown = find_top_images(content, cache=cache, max_bytes=settings.max_bytes) if images else []
                if passed:
                    announce(f"{layer.name}: embed")
                    _ = content.embedding
                draw: Callable[[], LayerSection] = partial(draw_layer, content, number=number, shown_images=shown)
                contents.append(content)
                drawings.append((content, draw, threads.submit(draw)))
            overview, sections = diagnose_run(), []
            for content, draw, begun in reversed(drawings):
                here = begun.cancel()
                if not passed:
                    announce(f"{content.layer.name}: embed")
                    _ = here and content.embedding
                announce(f"{content.layer.name}: pictures")
                sections.append(draw() if here else begun.result())
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return contents[::-1], sections, overview


def _check_damage(damage: object, *, diagnosis: bool) -> None:
    if not isinstance(damage, Damage):
        raise TypeError(f"damage is a {type(damage).__name__}; expected a Damage, made by ablate(model, probe)")
    if not diagnosis:
        raise ValueError("damage was passed with diagnosis=False, which leaves out what it says; pass diagnosis=True")


def _check_plan(plan: object) -> None:
    from ..decide import Plan

    if not isinstance(plan, Plan):
        raise TypeError(f"plan is a {type(plan).__name__}; expected a Plan, made by plan(findings, damage)")


def _what_changed_most(run: Run, overview: Overview, contents: list[LayerContent], *, noun: str) -> Change | None:
    if overview.findings is None or overview.similarity is None:
        return None
    moved = [(content.layer.name, moved_overall(content)) for content in contents]
    return what_changed_most(run, findings=overview.findings, similarity=overview.similarity, moved=moved, noun=noun)


def _responses(
    run: Run, contents: list[LayerContent], change: Change | None, *, cache: ResultCache | None, max_bytes: int
) -> Responses | None:
    """Return what the channels respond to in the layer that changed most of those shown, or in the last of them."""
    of_channels = [content for content in contents if content.scores.identity == ["channel"]]
    if not of_channels or contents[0].scores.n_snapshots < 2:
        return None
    total = {each.name: each.total for each in change.layers if each.is_over(each.total)} if change else {}
    chosen = max(reversed(of_channels), key=lambda content: total.get(content.layer.name, 0.0))
    found = top_images_of(chosen, cache=cache, max_bytes=max_bytes)
    return find_responses(run, found, titles=(chosen.titles[0], chosen.titles[-1]))


def _checked_sample(run: Run, sample: int | None, *, without: npt.NDArray[np.int64]) -> int | None:
    known = run.common_samples(range(len(run)))
    if sample is None:
        finite = known[~np.isin(known, without)]
        return int(finite[0]) if len(finite) else None
    if sample not in known:
        raise ValueError(
            f"received sample={sample}; expected one of the {len(known)} samples that every snapshot holds"
            + (f" ({known.min()} to {known.max()})" if len(known) else "")
        )
    return int(sample)
