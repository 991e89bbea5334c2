"""The `export` command: a run written for TensorBoard, its projector, or Weights & Biases."""

from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from ._analyze import analyze_layer
from ._app import say, say_left_out, step_progress
from ._options import NumberOfClusters, RandomState, Rows, RunPath, SomeLayers, View, local_output, matching_layers

if TYPE_CHECKING:
    from ..store import Run


class Target(StrEnum):
    """What `export` can write for."""

    tensorboard = "tensorboard"
    wandb = "wandb"
    projector = "projector"


def export(
    run: RunPath,
    target: Annotated[Target, typer.Argument(help="For which tool; projector: the rows of layers, for TensorBoard's.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=local_output, help="The folder with all logs, such as logs/.")
    ],
    layers: SomeLayers = None,
    samples: Annotated[
        list[int] | None,
        typer.Option("--sample", help="An image for feature maps, by index; may be repeated. By default the first."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the run is called there; by default as its folder.")] = None,
    project: Annotated[str, typer.Option(help="The project in Weights & Biases.")] = "fmcluster",
    view: View = "channel",
    clusters: NumberOfClusters = 8,
    rows: Rows = None,
    diagnosis: Annotated[
        bool, typer.Option("--diagnosis/--no-diagnosis", help="Diagnose all layers, too; this reads the whole run.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export of the same name.")] = False,
    random_state: RandomState = 0,
) -> None:
    """Write logs for TensorBoard or W&B.

    They hold metrics, pictures, embeddings and findings; Weights & Biases stays offline.
    """
    from ..store import open_run

    opened = open_run(run)
    opened.resolve(snapshot=0)
    _check_installed(target)
    names = matching_layers(opened, layers)
    called = name or Path(opened.name).stem
    if called in ("", ".", "..") or Path(called).name != called:
        raise ValueError(f"--name is {called!r}; expected the name of a folder to be made in {output}")
    if target is Target.projector:
        if samples is not None and len(samples) > 1:
            raise ValueError(f"--sample was given {len(samples)} times; the projector shows channels on one image")
        sample = samples[0] if samples else None
        folder = output / called
        _to_projector(
            opened,
            folder,
            layers=names,
            sample=sample,
            view=view,
            clusters=clusters,
            rows=rows,
            overwrite=overwrite,
            random_state=random_state,
        )
        say(f"Written to {folder}. Look at it, under Projector, with:\n  tensorboard --logdir {quote(str(output))}")
        return
    if rows is not None:
        raise ValueError("--rows is for the projector; other exports draw 2,048 rows where there are more")
    from ..export import to_tensorboard, to_wandb
    from ..report.content import part_to_show, part_with

    say_left_out((part_with(opened, names) if names else part_to_show(opened)).left_out.lines)
    with step_progress("report") as on_stage:
        if target is Target.tensorboard:
            written = to_tensorboard(
                opened,
                output / called,
                layers=names,
                samples=samples,
                view=view,
                n_clusters=clusters,
                diagnosis=diagnosis,
                random_state=random_state,
                overwrite=overwrite,
                progress=on_stage,
            )
        else:
            written = to_wandb(
                opened,
                output,
                project=project,
                name=called,
                layers=names,
                samples=samples,
                view=view,
                n_clusters=clusters,
                diagnosis=diagnosis,
                random_state=random_state,
                progress=on_stage,
            )
    if target is Target.wandb:
        say(f"Written to {written}. Send it with:\n  wandb sync {quote(str(written))}")
        return
    more = f" --samples_per_plugin images={len(opened)}" if len(opened) > 10 else ""
    say(f"Written to {written}. Look at it with:\n  tensorboard --logdir {quote(str(output))}{more}")


def _check_installed(target: Target) -> None:
    """Raise ValueError, which is one line here, where an extra is missing."""
    from ..export import check_tensorboard, wandb_module

    try:
        if target is Target.wandb:
            wandb_module()
        else:
            check_tensorboard()
    except ImportError as error:
        raise ValueError(str(error)) from error


def _to_projector(
    run: "Run",
    folder: Path,
    *,
    layers: list[str] | None,
    sample: int | None,
    view: str,
    clusters: int,
    rows: int | None,
    overwrite: bool,
    random_state: int,
) -> None:
    from ..export import to_projector
    from ..report.content import choose_layers, part_lines, part_to_show

    if layers is None:  # of those named, their analysis says it
        say_left_out(part_lines(part_to_show(run)))
    for layer in layers or choose_layers(run):
        found = analyze_layer(
            run, layer, view=view, clusters=clusters, components=50, rows=rows, random_state=random_state
        )
        to_projector(
            found.scores, folder, clusters=found.clusters, layer=run[layer], sample=sample, overwrite=overwrite
        )
