"""Commands that train: `demo` and `train`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import bars, console, say, when
from .studying import report_progress

if TYPE_CHECKING:
    from ..recipes import Event
    from ..recipes import Progress as OnEvent

PHASES = {"pretrain": "training on digits 0 to 4", "finetune": "fine-tuning"}


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the run, the weights, the report.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the weights and the order of the images.")] = 0,
) -> None:
    """Fine-tune a ResNet-18 on real digits, capture it, analyse it, and write a report: the whole path, offline."""
    with console.status("loading torch"):
        from ..recipes import run_demo
        from ..report import write_report
        from ..store import open_run
    say(
        "A ResNet-18 learns the handwritten digits 0 to 4, then is fine-tuned on 400 scans of 5 to 9.\n"
        "Its ten children are captured on 100 validation scans. What it gets right of those it did not train on:"
    )
    with _training() as on_event:
        result = run_demo(output, seed=seed, progress=on_event)
    say(f"The run is in {result.run}; now it is analysed.")
    with report_progress() as on_stage:
        page = write_report(open_run(result.run), output / "report.html", progress=on_stage)
    say(f"\nThe report is in {page.resolve()}: open it in a browser.")
    say(f"Next: fmcluster info {result.run}; fmcluster plot {result.run} grid --layer conv1 -o conv1.png")


def train(
    data: Annotated[Path, typer.Argument(help="Folder with train/<class>/ and val/<class>/ images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the run goes.")] = Path("run.zarr"),
    model: Annotated[str, typer.Option(help="A torchvision ResNet.")] = "resnet18",
    weights: Annotated[str, typer.Option(help="DEFAULT (downloaded), none, or the path of a state dict.")] = "DEFAULT",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 5,
    freeze_backbone: Annotated[bool, typer.Option("--freeze-backbone", help="Train the head only.")] = False,
    snapshots_per_epoch: Annotated[int, typer.Option(help="Evenly spaced; the last at the epoch's end.")] = 1,
    layers: Annotated[str, typer.Option(help="children, leaves, or names and patterns with commas.")] = "children",
    batch_size: Annotated[int, typer.Option(help="Training images a step.")] = 4,
    probe_size: Annotated[int | None, typer.Option(help="Validation images to record; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the head, the order and the crops.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that load images.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; CUDA where there is one.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
) -> None:
    """Fine-tune a ResNet as PyTorch's transfer-learning tutorial does, and capture it as it learns."""
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists already; pass --overwrite to replace a run, or another place with -o")
    with console.status("loading torch"):
        from ..recipes import finetune
    with _training() as on_event:
        finetune(
            data,
            output=output,
            model=model,
            weights=weights,
            epochs=epochs,
            freeze=freeze_backbone,
            snapshots_per_epoch=snapshots_per_epoch,
            layers=layers if layers in ("children", "leaves") else [name.strip() for name in layers.split(",")],
            batch_size=batch_size,
            probe_size=probe_size,
            seed=seed,
            workers=workers,
            device=device,
            mode="w" if overwrite else "x",
            progress=on_event,
        )
    say(f"The run is in {output}. Next: fmcluster report {output} -o report.html")


@contextmanager
def _training() -> Iterator["OnEvent"]:
    """Draw what a recipe tells: a bar per phase, a line per snapshot."""
    from ..recipes import PhaseStarted, SnapshotTaken, StepDone

    with bars() as progress:
        tasks = {}

        def on_event(event: "Event") -> None:
            if isinstance(event, PhaseStarted):
                tasks[event.phase] = progress.add_task(PHASES[event.phase], total=event.steps)
            elif isinstance(event, StepDone):
                progress.update(tasks[event.phase], completed=event.step)
            elif isinstance(event, SnapshotTaken):
                where = f"{when(event.epoch, event.step)}:"
                say(f"  {where:20s} validation accuracy {event.accuracy:6.1%}")

        yield on_event
