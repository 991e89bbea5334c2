"""Commands that look into a run: `analyze`, `diagnose` and `report`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ._app import bars, cell, console, say
from ._info import RunPath

if TYPE_CHECKING:
    import pandas as pd

    from ..analysis import Study
    from ..store import Run

LayerName = Annotated[str, typer.Option("--layer", help="Which layer.")]
View = Annotated[str, typer.Option(help="What a row is: channel, map, sample, position, or an einops pattern.")]
NumberOfClusters = Annotated[int, typer.Option("--clusters", help="How many clusters (k-means).")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the map and the clusters.")]
Rows = Annotated[int | None, typer.Option("--rows", min=1, help="Draw so many rows of each snapshot; all by default.")]


def analyze(
    run: RunPath,
    layer: LayerName,
    view: View = "channel",
    clusters: NumberOfClusters = 8,
    components: Annotated[int, typer.Option(min=1, help="How many principal components.")] = 50,
    rows: Rows = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the tables; beside the run by default.")
    ] = None,
) -> None:
    """Reduce, map, cluster and track the vectors of a layer over all snapshots; print and save what comes out."""
    from ..store import open_run

    opened = open_run(run)
    parameters = {
        "run": opened.path,
        "snapshots": opened.snapshots.to_dict(orient="list"),
        "layer": layer,
        "view": view,
        "components": components,
        "clusters": clusters,
        "rows": rows,
        "random_state": seed,
    }
    folder = output or _results_folder(opened, parameters)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; the tables go into a folder")
    found = study_layer(opened, layer, view=view, clusters=clusters, components=components, rows=rows, seed=seed)
    scores, embedding, history = found.scores, found.embedding, found.history
    if len(found.vectors.left_out):
        say(f"Left out: {len(found.vectors.left_out)} samples that are not in every snapshot.")
    how = "exact" if scores.method != "randomized" else f"to {scores.error:.1%} of the largest"
    say(
        f"{layer}, {view} view: {len(scores.rows)} rows of {scores.n_features} features over {len(opened)} snapshots; "
        f"{scores.values.shape[1]} components hold {scores.explained_variance_ratio.sum():.1%} of the variance "
        f"({how}, {scores.method})."
    )
    say(f"Map by {embedding.method}: {embedding.faithfulness}.")
    console.print(_table("Members of each cluster", history.sizes.reset_index()))
    if len(history.steps):
        wanted = [
            "from_snapshot",
            "to_snapshot",
            "from_epoch",
            "to_epoch",
            "n_rows",
            "stayed",
            "churn",
            "churn_null",
            "ari",
        ]
        console.print(_table("Rows that changed cluster, step by step", history.steps[wanted]))
    _save(
        folder,
        parameters | {"fit": found.clusters.fit, "reducer": embedding.method, "clusterer": found.clusters.method},
        {
            "rows": embedding.frame.assign(cluster=found.clusters.labels),
            "flow": history.flow,
            "steps": history.steps,
            "sizes": history.sizes.reset_index(),
        },
    )
    say(f"Saved in {folder}")


def report(
    run: RunPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page.")] = Path("report.html"),
    layers: Annotated[str | None, typer.Option(help="Names with commas; about five of the run by default.")] = None,
    view: View = "channel",
    sample: Annotated[
        int | None, typer.Option(help="The image on which maps are shown, by its index; by default the first.")
    ] = None,
    clusters: NumberOfClusters = 8,
    diagnosis: Annotated[
        bool, typer.Option("--diagnosis/--no-diagnosis", help="Judge all layers, too: reads all of the run.")
    ] = True,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again whenever training has added snapshots, until Ctrl-C.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="With --watch: seconds between two looks.")] = 10.0,
    seed: Seed = 0,
) -> None:
    """Write one HTML page that shows how a run's feature maps evolved; it works offline."""
    from ..store import Run, open_run

    names = [name.strip() for name in layers.split(",")] if layers else None

    def write(opened: Run) -> None:
        from ..report import write_report

        with report_progress() as on_stage:
            page = write_report(
                opened,
                output,
                layers=names,
                view=view,
                sample=sample,
                n_clusters=clusters,
                diagnosis=diagnosis,
                refresh=max(1, round(interval)) if watch else None,
                random_state=seed,
                progress=on_stage,
            )
        say(f"The report of {len(opened)} snapshots is in {page.resolve()}")

    if not watch:
        write(open_run(run))
        return
    from threading import Event

    from ._watch import follow

    say(f"Watching {run}; end with Ctrl-C.")
    try:
        follow(run, write, interval=interval, stop=Event())
    except KeyboardInterrupt:
        say("Stopped watching.")


def diagnose(
    run: RunPath,
    layers: Annotated[str | None, typer.Option(help="Names with commas; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of what is drawn at random.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the tables, as CSV.")] = None,
) -> None:
    """Say which layers converged, narrowed, doubled or died, with the numbers, and what follows."""
    from ..store import open_run

    opened = open_run(run)
    opened.resolve(snapshot=0)
    if output is not None and output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file; the tables go into a folder")
    names = [name.strip() for name in layers.split(",")] if layers else None
    with console.status(f"reading {len(opened)} snapshots of {len(names or opened.layers)} layers"):
        from ..analysis import diagnose as judge

        findings = judge(opened, layers=names, random_state=seed)
    last = findings.frame[findings.frame["snapshot"] == findings.frame["snapshot"].max()]
    measured = last.pivot(index="layer", columns="measure", values="value").reset_index()
    table = findings.layers.merge(measured, on="layer", how="left", sort=False)
    wanted = [
        "layer",
        "channels",
        "dead",
        "duplicates",
        "effective_rank",
        "drift",
        "converged_epoch",
        "separated_epoch",
    ]
    table = table[[name for name in wanted if name in table]].round(2)
    table.columns = [name.removeprefix("effective_").removesuffix("_epoch") for name in table.columns]
    console.print(_table("Each layer at the last snapshot; converged and separated are epochs", table))
    say(str(findings))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for name in ("frame", "channels", "layers"):
            getattr(findings, name).to_csv(output / f"{name}.csv", index=False)
        say(f"Saved in {output}")


@contextmanager
def report_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Draw how far a report has come."""
    with bars() as progress:
        task = progress.add_task("report")
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def study_layer(
    run: "Run", layer: str, *, view: str, clusters: int, components: int, rows: int | None, seed: int
) -> "Study":
    """Reduce, map, cluster and track the vectors of a layer, or take what is saved of that, and tell how far it is."""
    vectors = run[layer].vectors(view, n_rows=rows, random_state=seed)
    if clusters < 1:
        raise ValueError(f"--clusters is {clusters}; expected at least 1")
    with console.status("loading the analysis") as status:
        from ..analysis import MOST_ROWS, ResultCache, study

        if vectors.shape[0] > MOST_ROWS:
            raise ValueError(
                f"the {view} view of {layer} has {vectors.shape[0]:,} rows, and a map takes {MOST_ROWS:,} at most; "
                f"draw some with --rows, up to {MOST_ROWS // len(run):,} of each snapshot"
            )
        return study(
            vectors,
            n_clusters=clusters,
            n_components=components,
            random_state=seed,
            saved=ResultCache.beside(run),
            announce=lambda what: status.update(f"{what} of {vectors.shape[0]:,} rows"),
        )


def _table(title: str, frame: "pd.DataFrame") -> Table:
    table = Table(title=title, title_justify="left")
    for name in frame.columns:
        table.add_column(str(name), justify="right", no_wrap=True)
    for row in frame.itertuples(index=False):
        table.add_row(*map(cell, row))
    return table


def _results_folder(run: "Run", parameters: dict[str, Any]) -> Path:
    """Return where results lie beside a run: other parameters or snapshots, another folder."""
    from ..store import escape

    digest = sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{escape(parameters['layer'])}-{escape(parameters['view'])}-{digest}"
    return Path(f"{run.path.rstrip('/')}.results") / name


def _save(folder: Path, parameters: dict[str, Any], tables: "dict[str, pd.DataFrame]") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "parameters.json").write_text(json.dumps(parameters, indent=1))
