"""The `train` command: fine-tuning as in PyTorch's tutorial, with capture; and the progress of a training."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._app import bars, say, status, when
from ._options import CapturedLayers, MaxBytes, MaxSize, captured_layers, run_output

if TYPE_CHECKING:
    from ..recipes import Event
    from ..recipes import Progress as OnEvent

PHASES = {"pretrain": "training on digits 0 to 4", "finetune": "fine-tuning"}


def train(
    data: Annotated[Path, typer.Argument(help="Folder with train/<class>/ and val/<class>/ images.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            callback=run_output,
            help="Where to write the run: a folder, or a URL such as s3://bucket/run.zarr.",
        ),
    ] = Path("run.zarr"),
    model: Annotated[str, typer.Option(help="A torchvision ResNet.")] = "resnet18",
    weights: Annotated[str, typer.Option(help="DEFAULT (downloaded), none, or the path of a state dict.")] = "DEFAULT",
    epochs: Annotated[int, typer.Option(help="Number of epochs; 0 records the network as it is.")] = 5,
    freeze_backbone: Annotated[bool, typer.Option("--freeze-backbone", help="Train the head only.")] = False,
    snapshots_per_epoch: Annotated[
        int, typer.Option(help="Snapshots in each epoch, evenly spaced; the last at its end.")
    ] = 1,
    layers: CapturedLayers = None,
    max_size: MaxSize = None,
    max_bytes: MaxBytes = None,
    batch_size: Annotated[int, typer.Option(help="Training images in each step.")] = 4,
    probe_size: Annotated[int | None, typer.Option(help="Validation images to record; all by default.")] = None,
    random_state: Annotated[
        int,
        typer.Option(
            "--seed",
            min=0,
            max=2**32 - 1,
            help="Random seed of the head, of the order of the images and of their crops.",
        ),
    ] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; CUDA where there is one.")] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out files that cannot be read as images; they are counted.")
    ] = False,
    with_weights: Annotated[
        bool, typer.Option("--with-weights", help="Record the network's weights, too, for fmcluster plan.")
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(help="A plan, as fmcluster plan writes it; the network is built by it before training."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
) -> None:
    """Fine-tune a ResNet, and record it. It is trained as in PyTorch's transfer-learning tutorial."""
    if output.is_file():
        raise FileExistsError(f"{output} is a file, and a run is a folder: choose another path with -o")
    if output.exists() and not overwrite:
        raise _exists_already(output)
    if plan is not None and not plan.is_file():
        raise FileNotFoundError(f"{plan}: there is no such file; expected a plan, as fmcluster plan -o writes it")
    with status("loading torch"):
        from ..recipes import finetune
        from ..store import run_location
    where = run_location(output)
    with training_progress(in_lines=True) as on_event, _says_overwrite(where, overwrite=overwrite):
        finetune(
            data,
            output=output,
            model=model,
            weights=weights,
            epochs=epochs,
            freeze=freeze_backbone,
            snapshots_per_epoch=snapshots_per_epoch,
            layers=captured_layers(layers),
            max_size=max_size,
            max_bytes=max_bytes,
            batch_size=batch_size,
            probe_size=probe_size,
            random_state=random_state,
            workers=workers,
            skip_broken=skip_broken,
            device=device,
            mode="w" if overwrite else "x",
            with_weights=with_weights,
            plan=plan,
            progress=on_event,
        )
    say(f"The run is in {where}. Next: fmcluster report {where} -o report.html")


@contextmanager
def _says_overwrite(where: str, *, overwrite: bool) -> Iterator[None]:
    """Say of a run at a URL, which only its recorder finds, what the command line has for it."""
    try:
        yield
    except FileExistsError as error:
        if overwrite or "://" not in where:
            raise
        raise _exists_already(where) from error


def _exists_already(where: str | Path) -> FileExistsError:
    return FileExistsError(f"{where} exists already; pass --overwrite to replace a run, or choose another path with -o")


@contextmanager
def training_progress(*, in_lines: bool = False) -> Iterator["OnEvent"]:
    """Show the events of a recipe: a progress bar for each phase (see `bars`), a line for each snapshot."""
    from ..recipes import FilesSkipped, PhaseStarted, SnapshotTaken, StepDone

    with bars(in_lines=in_lines) as progress:
        tasks = {}

        def on_event(event: "Event") -> None:
            if isinstance(event, PhaseStarted):
                tasks[event.phase] = progress.add_task(PHASES[event.phase], total=event.steps)
            elif isinstance(event, FilesSkipped):
                count, more = len(event.paths), ", ..." if len(event.paths) > 3 else ""
                files = "file that cannot be read" if count == 1 else "files that cannot be read"
                say(f"Skipped {count} {files} as images: {', '.join(event.paths[:3])}{more}")
            elif isinstance(event, StepDone):
                progress.update(tasks[event.phase], completed=event.step)
            elif isinstance(event, SnapshotTaken):
                where = f"{when(event.epoch, event.step)}:"
                say(f"  {where:20s} validation accuracy {event.accuracy:6.1%}")

        yield on_event
