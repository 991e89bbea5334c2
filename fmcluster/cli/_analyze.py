"""The `analyze` command: components, embedding, clusters and churn of layers, printed and saved."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._app import console, frame_table, say, say_left_out, status
from ._options import Layers, NumberOfClusters, RandomState, Rows, RunPath, View, local_output, wanted_layers
from ._scheduler import Scheduler, seen_by_workers, workers_of
from ._write_tables import write_tables

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ..analysis import Analysis
    from ..store import Run
    from ..vectors import Vectors

MOST_COLUMNS = 16  # of a table in a terminal


def analyze(
    run: RunPath,
    layers: Layers = None,
    view: View = "channel",
    clusters: NumberOfClusters = 8,
    components: Annotated[int, typer.Option(min=1, help="Number of principal components.")] = 50,
    rows: Rows = None,
    random_state: RandomState = 0,
    scheduler: Scheduler = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            callback=local_output,
            help="Folder for the tables, with a folder for each of several layers. By default it lies beside the run; "
            "for a run at a URL, none is written.",
        ),
    ] = None,
) -> None:
    """Cluster and track vectors of layers.

    Reduces, embeds, clusters and tracks them over all snapshots; prints and saves the results.
    """
    from ..store import escape, open_run

    opened = open_run(seen_by_workers(run, scheduler=scheduler))
    names = wanted_layers(opened, layers, needed_by="analyze")
    for layer in names:
        parameters = {
            "run": opened.path,
            "snapshots": opened.snapshots.to_dict(orient="list"),
            "layer": layer,
            "view": view,
            "components": components,
            "clusters": clusters,
            "rows": rows,
            "random_state": random_state,
        }
        folder = output if output is not None else _results_folder(opened, parameters)
        if output is not None and len(names) > 1:
            folder = output / escape(layer)
        if folder is not None and folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file; the tables go into a folder")
        if output is None and folder is not None and (folder.is_symlink() or folder.parent.is_symlink()):
            # whoever made the run made it
            raise FileExistsError(f"{folder} is, or lies behind, a link; name the folder of the tables with -o")
        with workers_of(scheduler) as executor:
            found = analyze_layer(
                opened,
                layer,
                view=view,
                clusters=clusters,
                components=components,
                rows=rows,
                random_state=random_state,
                executor=executor,
            )
        _print(found, n_snapshots=len(opened))
        if folder is None:
            say("The tables are not saved: there is no folder beside a run at a URL. -o names one.")
            continue
        made = {"fit": found.clusters.fit, "reducer": found.embedding.method, "clusterer": found.clusters.method}
        write_tables(
            folder,
            {
                "rows": found.embedding.frame.assign(cluster=found.clusters.labels),
                "flow": found.history.flow,
                "steps": found.history.steps,
                "sizes": found.history.sizes.reset_index(),
            },
            parameters=parameters | made,
        )
        say(f"Saved in {folder}")


def _print(found: "Analysis", *, n_snapshots: int) -> None:
    """Print what was found of one layer: a summary, the clusters' sizes, and who changed cluster."""
    scores, embedding, history = found.scores, found.embedding, found.history
    if len(found.vectors.left_out):
        say(f"Left out: {len(found.vectors.left_out)} samples that are not in every snapshot.")
    how = "exact" if scores.method != "randomized" else f"to {scores.error:.1%} of the largest"
    say(
        f"{scores.layer}, {scores.view} view: {len(scores.rows)} rows of {scores.n_features} features over "
        f"{n_snapshots} snapshots; {scores.values.shape[1]} components hold "
        f"{scores.explained_variance_ratio.sum():.1%} of the variance ({how}, {scores.method})."
    )
    say(f"Embedding by {embedding.method}: {embedding.faithfulness}.")
    sizes = history.sizes
    if len(sizes.columns) > MOST_COLUMNS:
        largest = set(sizes.max().nlargest(MOST_COLUMNS, keep="first").index)
        sizes = sizes[[label for label in sizes.columns if label in largest]]
        say(f"Of {len(history.sizes.columns)} clusters the {MOST_COLUMNS} largest are listed; the tables have all.")
    console.print(frame_table("Members of each cluster", sizes.reset_index()))
    if len(history.steps):
        wanted = ["from_snapshot", "to_snapshot", "from_epoch", "to_epoch", "n_rows", "stayed", "churn", "churn_null"]
        console.print(frame_table("Rows that changed cluster, step by step", history.steps[[*wanted, "ari"]]))


def analyze_layer(
    run: "Run",
    layer: str,
    *,
    view: str,
    clusters: int,
    components: int,
    rows: int | None,
    random_state: int,
    executor: "Executor | None" = None,
) -> "Analysis":
    """Reduce, embed, cluster and track the vectors of a layer, or reuse saved results, and show progress."""
    vectors = finite_vectors(run, layer, view=view, rows=rows, random_state=random_state)
    if clusters < 1:
        raise ValueError(f"--clusters is {clusters}; expected at least 1")
    with status("loading the analysis") as shown:
        from ..analysis import ResultCache, analyze

        found = analyze(
            vectors,
            n_clusters=clusters,
            n_components=components,
            random_state=random_state,
            cache=ResultCache.beside(run),
            executor=executor,
            announce=lambda what: shown.update(f"{what} of {vectors.shape[0]:,} rows"),
        )
    if (count := found.clusters.n_clusters) < clusters:
        say(f"{layer}: {count} clusters rather than {clusters:,}; there are not enough different rows for more.")
    return found


def finite_vectors(run: "Run", layer: str, *, view: str, rows: int | None, random_state: int) -> "Vectors":
    """Return the rows of a layer that are finite, and say what is left out."""
    from ..store import describe_excluded, part_by_rows, without_broken_rows

    part = part_by_rows(run, layer)
    whole = run[layer].vectors(
        view, snapshots=part.snapshots, samples=part.samples, n_rows=rows, random_state=random_state
    )
    found = without_broken_rows(whole)
    say_left_out([*part.left_out.lines, *describe_excluded(found)])
    return found


def _results_folder(run: "Run", parameters: dict[str, Any]) -> Path | None:
    """Return the folder beside a run for the results of these parameters and snapshots; None of a run at a URL."""
    from ..analysis import ResultCache
    from ..store import escape

    if not run.is_local:
        return None
    from hashlib import sha256

    digest = sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{escape(parameters['layer'])}-{escape(parameters['view'])}-{digest}"
    return Path(ResultCache.path_beside(run)) / name
