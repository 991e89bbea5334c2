"""The `report` command: one HTML file about a run, written once or while training goes on."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._app import say, say_left_out, step_progress
from ._options import NumberOfClusters, RandomState, RunPath, SomeLayers, View, local_output, matching_layers
from ._scheduler import Scheduler, seen_by_workers, workers_of

if TYPE_CHECKING:
    from ..store import Run


class Scaled(StrEnum):
    """What is done to each row."""

    none = "none"
    centered = "centered"
    unit = "unit"


def report(
    run: RunPath,
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=local_output, help="The HTML file to write.")
    ] = Path("report.html"),
    layers: SomeLayers = None,
    view: View = "channel",
    sample: Annotated[
        int | None, typer.Option(help="Index of the image on which feature maps are shown; the first by default.")
    ] = None,
    clusters: NumberOfClusters = 8,
    scaling: Annotated[
        Scaled, typer.Option(help="What is done to each row first; with unit, clusters do not move with the scale.")
    ] = Scaled.none,
    diagnosis: Annotated[
        bool, typer.Option("--diagnosis/--no-diagnosis", help="Diagnose all layers, too; this reads the whole run.")
    ] = True,
    plan: Annotated[
        Path | None, typer.Option(help="A plan to show beside the findings, written by fmcluster plan.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the report again whenever the run has new snapshots, until Ctrl-C.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="With --watch: seconds between two checks.")] = 10.0,
    random_state: RandomState = 0,
    scheduler: Scheduler = None,
) -> None:
    """Write one HTML page about a run. It shows how feature maps evolved, and works offline."""
    from ..store import open_run

    planned = None
    if plan is not None:
        from ..decide import Plan

        planned = Plan.from_yaml(plan)

    def write(opened: "Run") -> None:
        from ..report import write_report
        from ..report.content import part_to_show, part_with

        names = matching_layers(opened, layers)
        with workers_of(scheduler) as executor, step_progress("report") as on_stage:
            page = write_report(
                opened,
                output,
                layers=names,
                view=view,
                sample=sample,
                n_clusters=clusters,
                scaling=scaling.value,
                diagnosis=diagnosis,
                plan=planned,
                refresh=max(1, round(interval)) if watch else None,
                random_state=random_state,
                progress=on_stage,
                executor=executor,
            )
        say_left_out((part_with(opened, names) if names else part_to_show(opened)).left_out.lines)
        say(f"The report of {len(opened)} snapshots is in {page.resolve()}")

    if not watch:
        write(open_run(seen_by_workers(run, scheduler=scheduler)))
        return
    from ._watch import follow, until_interrupted

    say(f"Watching {run}; end with Ctrl-C.")
    with until_interrupted() as stop:
        follow(seen_by_workers(run, scheduler=scheduler), write, interval=interval, stop=stop)
    say("Stopped watching.")
    raise typer.Exit(130)
