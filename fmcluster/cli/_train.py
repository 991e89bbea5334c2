"""Commands that train: `demo` and `train`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal as size
from rich.table import Table

from ._analyze import report_progress
from ._app import bars, console, number_of_bytes, say, when

if TYPE_CHECKING:
    from ..recipes import Event
    from ..recipes import Progress as OnEvent

PHASES = {"pretrain": "training on digits 0 to 4", "finetune": "fine-tuning"}


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the run, the weights, the report.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the weights and the order of the images.")] = 0,
) -> None:
    """Fine-tune a ResNet-18 on real digits, capture it, analyze it, and write a report: the whole path, offline."""
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file; the demo writes into a folder")
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
    say(f"The run is in {result.run}; now it is analyzed.")
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
    max_size: Annotated[
        int | None, typer.Option(help="Average larger maps down to so many pixels a side; their statistics stay exact.")
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(parser=number_of_bytes, metavar="SIZE", help="Refuse a run larger than, say, 500MB or 20GB."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Training images a step.")] = 4,
    probe_size: Annotated[int | None, typer.Option(help="Validation images to record; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the head, the order and the crops.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 0,
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
            layers=_layers(layers),
            max_size=max_size,
            max_bytes=max_bytes,
            batch_size=batch_size,
            probe_size=probe_size,
            seed=seed,
            workers=workers,
            device=device,
            mode="w" if overwrite else "x",
            progress=on_event,
        )
    say(f"The run is in {output}. Next: fmcluster report {output} -o report.html")


def estimate(
    model: Annotated[str, typer.Option(help="A torchvision ResNet.")] = "resnet18",
    samples: Annotated[int, typer.Option(help="Images in the probe.")] = 244,
    epochs: Annotated[int, typer.Option(help="Epochs; one more snapshot is taken before the first.")] = 5,
    snapshots_per_epoch: Annotated[int, typer.Option(help="As for train.")] = 1,
    layers: Annotated[str, typer.Option(help="children, leaves, or names and patterns with commas.")] = "children",
    pixels: Annotated[int, typer.Option(help="Height and width of an image.")] = 224,
    max_size: Annotated[
        int | None, typer.Option(help="Average larger maps down to so many pixels a side; their statistics stay exact.")
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(parser=number_of_bytes, metavar="SIZE", help="Refuse a run larger than, say, 500MB or 20GB."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in the batch that is measured.")] = 8,
) -> None:
    """Say how many bytes and seconds a run will take, from one batch of random images through random weights."""
    if min(samples, epochs, snapshots_per_epoch, pixels, batch_size) < 1:
        raise ValueError("--samples, --epochs, --snapshots-per-epoch, --pixels and --batch-size are at least 1")
    with console.status("showing the model a batch"):
        import torch

        from ..capture import estimate as measure
        from ..recipes import load_resnet

        told = measure(
            load_resnet(model, weights="none", n_classes=1000),
            torch.rand(batch_size, 3, pixels, pixels, generator=torch.Generator().manual_seed(0)),
            n_samples=samples,
            n_snapshots=1 + epochs * snapshots_per_epoch,
            layers=_layers(layers),
            max_size=max_size,
            max_bytes=max_bytes,
        )
    table = Table(title=f"{model}, {told.n_samples} samples, {told.n_snapshots} snapshots", title_justify="left")
    for name in ("layer", "shape of a sample"):
        table.add_column(name, no_wrap=True)
    for name in ("activations", "compressed"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in told.layers.to_dict("records"):
        table.add_row(row["layer"], str(row["shape"]), size(row["bytes"]), size(row["bytes_stored"]))
    console.print(table)
    say(
        f"In all {size(told.nbytes)}, on disk about {size(told.nbytes_stored)}; showing the probe takes about "
        f"{told.seconds:.0f} s in all, training not counted. Measured on noise and random weights: maps of a trained "
        f"network compress otherwise (Recorder.estimate measures your own)."
    )


def _layers(text: str) -> str | list[str]:
    return text if text in ("children", "leaves") else [name.strip() for name in text.split(",")]


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
