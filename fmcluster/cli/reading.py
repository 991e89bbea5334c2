"""Commands that read a run: `info` and `verify`."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .app import bars, cell, console, say, size

if TYPE_CHECKING:
    from ..store import Run

RunPath = Annotated[str, typer.Argument(help="A run's folder, or its URL.")]


def info(
    run: RunPath,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what is in a run: layers, shapes, snapshots, samples, bytes, and what is missing."""
    from ..store import missing_files, open_run

    opened = open_run(run)
    missing = missing_files(opened)
    if as_json:
        typer.echo(json.dumps(_as_dict(opened, missing), indent=2, allow_nan=False))
        return
    classes = f" of {len(opened.classes)} classes ({', '.join(opened.classes)})" if opened.classes else ""
    say(f"{opened.path}: {opened.n_samples} samples{classes}")
    console.print(_layer_table(opened))
    if len(opened):
        console.print(_snapshot_table(opened))
    else:
        say("No whole snapshot yet.")
    stored = size(opened.nbytes_stored) if opened.is_local else "unknown, as it is remote"
    say(f"{size(opened.nbytes)} of activations; on disk {stored}.")
    for line in missing[:10]:
        say(f"missing: {line}", style="red")
    say(f"{len(missing)} files are missing." if missing else "Nothing is missing.")


def verify(run: RunPath) -> None:
    """Read every chunk of a run, its checksum included; exit code 1 where anything is damaged."""
    from ..store import open_run
    from ..store import verify as check

    opened = open_run(run)
    with bars() as progress:
        task = progress.add_task("reading")
        damage = check(opened, progress=lambda done, total: progress.update(task, completed=done, total=total))
    for line in damage:
        say(line, style="red")
    if damage:
        say(f"{len(damage)} of the run's files are damaged.")
        raise typer.Exit(1)
    say(f"{opened.path}: {len(opened)} snapshots, every checksum is right.")


def _layer_table(run: "Run") -> Table:
    table = Table(title="Layers", title_justify="left")
    for name in ("layer", "module", "shape of a sample", "dtype"):
        table.add_column(name, no_wrap=True)
    table.add_column("activations", justify="right", no_wrap=True)
    for name in run.layers:
        layer = run[name]
        table.add_row(name, layer.module, str(layer.shape[2:]), str(layer.dtype), size(layer.nbytes))
    return table


def _snapshot_table(run: "Run") -> Table:
    table = Table(title="Snapshots", title_justify="left")
    for name in run.metrics.columns:
        table.add_column(str(name), justify="right", no_wrap=True)
    for row in run.metrics.itertuples(index=False):
        table.add_row(*map(cell, row))
    return table


def _as_dict(run: "Run", missing: list[str]) -> dict[str, Any]:
    metrics = run.metrics.astype(object).where(run.metrics.notna(), None)
    return {
        "path": run.path,
        "layers": [
            {
                "name": name,
                "module": run[name].module,
                "shape": list(run[name].shape),
                "dimensions": list(run[name].dimensions),
                "dtype": str(run[name].dtype),
                "bytes": run[name].nbytes,
            }
            for name in run.layers
        ],
        "snapshots": metrics.to_dict(orient="records"),
        "samples": run.n_samples,
        "classes": list(run.classes),
        "bytes": run.nbytes,
        "bytes_stored": run.nbytes_stored if run.is_local else None,
        "missing": missing,
        "provenance": run.provenance,
    }
