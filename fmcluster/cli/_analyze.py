"""The `analyze` command: components, embedding, clusters and churn of layers, printed and saved."""

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._app import console, frame_table, say
from ._options import NumberOfClusters, OneLayer, RandomState, Rows, RunPath, View, one_layer

if TYPE_CHECKING:
    import pandas as pd

    from ..analysis import Study
    from ..store import Run


def analyze(
    run: RunPath,
    layers: OneLayer = None,
    view: View = "channel",
    clusters: NumberOfClusters = 8,
    components: Annotated[int, typer.Option(min=1, help="Number of principal components.")] = 50,
    rows: Rows = None,
    random_state: RandomState = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the tables; beside the run by default.")
    ] = None,
) -> None:
    """Reduce, embed, cluster and track the vectors of a layer over all snapshots; print and save the results."""
    from ..store import open_run

    opened = open_run(run)
    layer = one_layer(opened, layers, needed_by="analyze")
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
    folder = output or _results_folder(opened, parameters)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; the tables go into a folder")
    found = analyze_layer(
        opened, layer, view=view, clusters=clusters, components=components, rows=rows, random_state=random_state
    )
    scores, embedding, history = found.scores, found.embedding, found.history
    if len(found.vectors.left_out):
        say(f"Left out: {len(found.vectors.left_out)} samples that are not in every snapshot.")
    how = "exact" if scores.method != "randomized" else f"to {scores.error:.1%} of the largest"
    say(
        f"{layer}, {view} view: {len(scores.rows)} rows of {scores.n_features} features over {len(opened)} snapshots; "
        f"{scores.values.shape[1]} components hold {scores.explained_variance_ratio.sum():.1%} of the variance "
        f"({how}, {scores.method})."
    )
    say(f"Embedding by {embedding.method}: {embedding.faithfulness}.")
    console.print(frame_table("Members of each cluster", history.sizes.reset_index()))
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
        console.print(frame_table("Rows that changed cluster, step by step", history.steps[wanted]))
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


def analyze_layer(
    run: "Run", layer: str, *, view: str, clusters: int, components: int, rows: int | None, random_state: int
) -> "Study":
    """Reduce, embed, cluster and track the vectors of a layer, or reuse saved results, and show progress."""
    vectors = run[layer].vectors(view, n_rows=rows, random_state=random_state)
    if clusters < 1:
        raise ValueError(f"--clusters is {clusters}; expected at least 1")
    with console.status("loading the analysis") as status:
        from ..analysis import MOST_ROWS, ResultCache, study

        if vectors.shape[0] > MOST_ROWS:
            raise ValueError(
                f"the {view} view of {layer} has {vectors.shape[0]:,} rows, and an embedding takes "
                f"{MOST_ROWS:,} at most; "
                f"draw some with --rows, up to {MOST_ROWS // len(run):,} of each snapshot"
            )
        return study(
            vectors,
            n_clusters=clusters,
            n_components=components,
            random_state=random_state,
            saved=ResultCache.beside(run),
            announce=lambda what: status.update(f"{what} of {vectors.shape[0]:,} rows"),
        )


def _results_folder(run: "Run", parameters: dict[str, Any]) -> Path:
    """Return the folder beside a run for the results of these parameters and snapshots."""
    from ..store import escape

    digest = sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{escape(parameters['layer'])}-{escape(parameters['view'])}-{digest}"
    return Path(f"{run.path.rstrip('/')}.results") / name


def _save(folder: Path, parameters: dict[str, Any], tables: "dict[str, pd.DataFrame]") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "parameters.json").write_text(json.dumps(parameters, indent=1))
