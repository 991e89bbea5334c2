"""Shared options: what several commands take, and which layers a command was asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..vectors import VIEWS
from ._app import number_of_bytes

if TYPE_CHECKING:
    from ..store import Run

RunPath = Annotated[str, typer.Argument(help="The folder of a run, or its URL.")]
LAYERS_HELP = "A layer's name, or a pattern in which * and ? stop at dots; may be repeated. "
OneLayer = Annotated[list[str] | None, typer.Option("--layer", help=LAYERS_HELP + "It has to match one layer.")]
Layers = Annotated[list[str] | None, typer.Option("--layer", help=LAYERS_HELP)]
AllLayers = Annotated[list[str] | None, typer.Option("--layer", help=LAYERS_HELP + "All layers by default.")]
SomeLayers = Annotated[list[str] | None, typer.Option("--layer", help=LAYERS_HELP + "About five by default.")]
CapturedLayers = Annotated[
    list[str] | None,
    typer.Option("--layer", help=LAYERS_HELP + "Or children (the default) or leaves, for all of these modules."),
]
MaxSize = Annotated[
    int | None,
    typer.Option(help="Average-pool larger feature maps to this many pixels a side; statistics stay exact."),
]
MaxBytes = Annotated[
    int | None,
    typer.Option(parser=number_of_bytes, metavar="SIZE", help="Refuse a run that is larger, such as 500MB or 20GB."),
]
View = Annotated[str, typer.Option(help=f"What a row is: {', '.join(VIEWS)}, or a pattern as einops has them.")]
NumberOfClusters = Annotated[int, typer.Option("--clusters", help="Number of clusters (k-means).")]
RandomState = Annotated[
    int, typer.Option("--random-state", min=0, max=2**32 - 1, help="Seed of everything that is drawn at random.")
]
Rows = Annotated[
    int | None,
    typer.Option("--rows", min=1, help="How many rows to choose at random, the same in each snapshot; all by default."),
]


def local_output(path: Path | None) -> Path | None:
    """Return where results go, once it is known to be no URL, before any work is done."""
    from ..store import local_path

    return None if path is None else local_path(path)


def run_output(path: Path) -> Path:
    """Return where a run is to be recorded, once it is known to be a folder or in an object store."""
    from ..store import run_location

    run_location(path)
    return path


def matching_layers(run: "Run", patterns: list[str] | None) -> list[str] | None:
    """Return the layers that the patterns match, in the order of the run; None where there are no patterns."""
    return run.match(patterns) if patterns else None


def wanted_layers(run: "Run", patterns: list[str] | None, *, needed_by: str) -> list[str]:
    """Return the layers that the patterns match, in the order of the run; there has to be a pattern."""
    if not patterns:
        raise ValueError(f"{needed_by} needs a layer: pass --layer with one of {', '.join(run.layers)}")
    return run.match(patterns)


def one_layer(run: "Run", patterns: list[str] | None, *, needed_by: str) -> str:
    """Return the one layer that the patterns match."""
    found = wanted_layers(run, patterns, needed_by=needed_by)
    if len(found) > 1:
        raise ValueError(f"--layer matches {len(found)} layers ({', '.join(found)}); {needed_by} takes one of them")
    return found[0]


def captured_layers(patterns: list[str] | None) -> str | list[str]:
    """Return what a recorder takes as `layers`: "children", "leaves", or a list of names and patterns."""
    if not patterns:
        return "children"
    return patterns[0] if patterns in (["children"], ["leaves"]) else patterns
