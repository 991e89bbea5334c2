"""The `demo` command: from training to report on real images, offline."""

from pathlib import Path
from typing import Annotated

import typer

from ._app import say, step_progress
from ._options import local_output
from ._train import training_progress


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=local_output, help="Folder for the run, the weights, the report.")
    ] = Path("demo"),
    random_state: Annotated[
        int,
        typer.Option("--seed", min=0, max=2**32 - 1, help="Random seed of the weights and of the order of the images."),
    ] = 0,
) -> None:
    """Train, record and report, offline.

    Fine-tunes a ResNet-18 on real digits, records and analyzes it, and writes a report.
    """
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file; the demo writes into a folder")
    say(
        "A ResNet-18 learns the handwritten digits 0 to 4, then is fine-tuned on 400 scans of 5 to 9.\n"
        "Its ten children are captured on 100 validation scans. Validation accuracy at each snapshot:"
    )
    with step_progress("loading torch", in_lines=True):
        from ..recipes import run_demo
        from ..report import write_report
        from ..store import open_run
    with training_progress(in_lines=True) as on_event:
        result = run_demo(output, random_state=random_state, progress=on_event)
    say(f"The run is in {result.run}; it is analyzed now.")
    with step_progress("report", in_lines=True) as on_stage:
        page = write_report(open_run(result.run), output / "report.html", progress=on_stage)
    say(f"\nThe report is in {page.resolve()}: open it in a browser.")
    say(f"Next: fmcluster info {result.run}; fmcluster plot {result.run} channel_grid --layer conv1 -o conv1.png")
