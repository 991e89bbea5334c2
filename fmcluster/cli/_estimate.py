"""The `estimate` command: bytes and seconds of a run, before it is recorded."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal as size

from ._app import add_row, console, new_table, say, status
from ._options import CapturedLayers, MaxBytes, MaxSize, captured_layers, run_output


def estimate(
    model: Annotated[str, typer.Option(help="A torchvision ResNet.")] = "resnet18",
    samples: Annotated[int, typer.Option(help="Images in the probe.")] = 244,
    epochs: Annotated[int, typer.Option(help="Epochs; one more snapshot is taken before the first.")] = 5,
    snapshots_per_epoch: Annotated[int, typer.Option(help="Snapshots in each epoch, as for train.")] = 1,
    layers: CapturedLayers = None,
    pixels: Annotated[int, typer.Option(help="Height and width of an image.")] = 224,
    max_size: MaxSize = None,
    max_bytes: MaxBytes = None,
    with_weights: Annotated[bool, typer.Option("--with-weights", help="Count the model's weights, too.")] = False,
    batch_size: Annotated[int, typer.Option(help="Images in the batch that is measured.")] = 8,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            callback=run_output,
            help="Where the run will lie, a folder or a URL; the speed of its disk or object store is measured.",
        ),
    ] = Path("run.zarr"),
) -> None:
    """Estimate what recording will take.

    Says the bytes and seconds, from one batch of random images and random weights.
    """
    if min(samples, epochs, snapshots_per_epoch, pixels, batch_size) < 1:
        raise ValueError("--samples, --epochs, --snapshots-per-epoch, --pixels and --batch-size are at least 1")
    with status("measuring one batch"):
        import torch

        from ..capture import estimate as measure
        from ..recipes import load_resnet

        estimated = measure(
            load_resnet(model, weights="none", n_classes=1000),
            torch.rand(batch_size, 3, pixels, pixels, generator=torch.Generator().manual_seed(0)),
            n_samples=samples,
            n_snapshots=1 + epochs * snapshots_per_epoch,
            layers=captured_layers(layers),
            record=("activation", "weight") if with_weights else ("activation",),
            max_size=max_size,
            max_bytes=max_bytes,
            path=output,
        )
    table = new_table(f"{model}, {estimated.n_samples} samples, {estimated.n_snapshots} snapshots")
    for name in ("layer", "shape of a sample"):
        table.add_column(name, no_wrap=True)
    for name in ("activations", "compressed"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in estimated.layers.to_dict("records"):
        add_row(table, row["layer"], str(row["shape"]), size(row["bytes"]), size(row["bytes_stored"]))
    console.print(table)
    if with_weights:
        say(f"Weights take {size(estimated.nbytes_weights)} of the total; they hardly compress.")
    say(
        f"In total {size(estimated.nbytes)}, on disk about {size(estimated.nbytes_stored)}; "
        f"recording the probe takes about {estimated.seconds:.3g} s, without training. {estimated.parts}"
    )
    if len(estimated.averaged):
        averaged = new_table("Averaged down with --max-size")
        for name in ("size", "activations", "compressed", "seconds", "bound by"):
            averaged.add_column(name, justify="left" if name == "bound by" else "right", no_wrap=True)
        for row in estimated.averaged.to_dict("records"):
            amounts = size(row["bytes"]), size(row["bytes_stored"]), f"{row['seconds']:.3g}"
            add_row(averaged, str(row["max_size"]), *amounts, row["bound"])
        console.print(averaged)
    say(
        "Measured once, with this machine as busy as it is now, on noise and random weights: feature maps of a trained "
        "network compress differently (Recorder.estimate measures your own)."
    )
