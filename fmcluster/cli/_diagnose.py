"""The `diagnose` command: a table of measures for each layer, and advice."""

from pathlib import Path
from typing import Annotated

import typer

from ._app import console, frame_table, say, status
from ._options import AllLayers, RandomState, RunPath, local_output, matching_layers
from ._scheduler import Scheduler, seen_by_workers, workers_of
from ._write_tables import write_tables


def diagnose(
    run: RunPath,
    layers: AllLayers = None,
    clean: Annotated[
        Path | None,
        typer.Option(
            help="Another run: the network before fine-tuning, shown images that it knows, with weights. Advice on "
            "where to tune needs it."
        ),
    ] = None,
    at_rest: Annotated[
        Path | None,
        typer.Option(
            help="Another run: the same training at learning rate 0, with the same probe. Advice on freezing needs it."
        ),
    ] = None,
    steps_left: Annotated[
        int, typer.Option(min=0, help="How many optimizer steps are still to come; for advice on freezing.")
    ] = 0,
    random_state: RandomState = 0,
    scheduler: Scheduler = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", callback=local_output, help="Folder for the tables, as CSV.")
    ] = None,
) -> None:
    """Find converged layers and faulty channels.

    Names layers that converged, and channels that are dead, duplicate, noise or permuted; prints
    the advice that follows.
    """
    from ..store import open_run

    opened = open_run(seen_by_workers(run, scheduler=scheduler))
    opened.resolve(snapshot=0)
    if output is not None and output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file; the tables go into a folder")
    rest, known = (None if path is None else open_run(path) for path in (at_rest, clean))
    names = matching_layers(opened, layers)
    reading = f"reading {len(opened)} snapshots of {len(names or opened.layers)} layers"
    with workers_of(scheduler) as executor, status(reading):
        from ..analysis import diagnose as make_diagnosis

        findings = make_diagnosis(
            opened,
            layers=names,
            clean=known,
            at_rest=rest,
            steps_left=steps_left,
            random_state=random_state,
            executor=executor,
        )
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
    console.print(frame_table("Each layer at the last snapshot; converged and separated are epochs", table))
    say(str(findings))
    if output is not None:
        write_tables(output, {name: getattr(findings, name) for name in ("frame", "channels", "layers")})
        say(f"Saved in {output}")
