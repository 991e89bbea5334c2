"""The `info` command: what is in a run, and what is missing."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal as size
from rich.text import Text

from ._app import add_row, cell, console, new_table, printable, say_line
from ._options import RunPath

if TYPE_CHECKING:
    from rich.table import Table

    from ..store import Layer, Run

_WIDEST = 32  # characters of a metric's name


def info(
    run: RunPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")] = False,
) -> None:
    """Show what is in a run. Lists layers, shapes, snapshots, samples, bytes, and what is missing."""
    from ..plot.drawing import list_classes
    from ..store import layers_left_out, missing_files, missing_snapshots, open_run, varying_layers

    opened = open_run(run)
    missing = missing_files(opened)
    if as_json:
        typer.echo(json.dumps(_as_dict(opened, missing), indent=2, allow_nan=False))
        return
    reduced = [layer for layer in map(opened.__getitem__, opened.layers) if _kept(layer)]
    guessed = [n for n in opened if opened[n].channel_axis_source == "shape" and len(opened[n].shape) > 3]
    classes = f" of {len(opened.classes)} classes ({list_classes(opened.classes)})" if opened.classes else ""
    held = "the same" if opened.kind == "probe" else "up to"
    say_line(f"{opened.path}: {opened.kind} run, {held} {opened.n_samples} samples{classes} in every snapshot")
    console.print(_layer_table(opened))
    if reduced:
        console.print(_kept_table(reduced))
    if len(opened):
        console.print(_snapshot_table(opened))
    else:
        say_line("No whole snapshot yet" + ("; its recording goes on." if opened.is_being_written else "."))
    stored = size(opened.nbytes_stored) if opened.is_local else "unknown, as it is remote"
    say_line(f"{size(opened.nbytes)} of feature maps; on disk {stored}{_why(opened)}.")
    if opened.weight_names:
        say_line(
            f"{size(opened.nbytes_weights)} of weights: {len(opened.weight_names)} parameters and buffers a snapshot."
        )
    if guessed:
        say_line(
            f"Which axis holds the channels is not known of {', '.join(guessed)}; record with channel_axis= to say it."
        )
    for each in missing_snapshots(opened):
        say_line(f"not recorded: epoch {each['epoch']}, step {each['step']}: {each['reason']}", style="red")
    for name, why in layers_left_out(opened).items():
        say_line(f"left out: layer {name}: {why}")
    if varying := varying_layers(opened):
        say_line(
            f"not repeatable: {', '.join(varying)}: the same batch gave other values when it was shown again",
            style="red",
        )
    for line in missing[:10]:
        say_line(f"missing: {line}", style="red")
    whole = "No file is missing." if missing_snapshots(opened) else "Nothing is missing."
    say_line(f"{len(missing)} files are missing." if missing else whole)


def _why(run: "Run") -> str:
    """Say why the bytes of values and those on the disk differ, with what is known of it."""
    if not run.is_local or not len(run):
        return ""
    rest, parts = run.nbytes_stored, []
    for name, what in (("layers", "feature maps and their statistics"), ("weights", "weights"), ("inputs", "images")):
        held = run.bytes_below(f"{name}/")
        rest -= held
        if held:
            parts.append(f"{size(held)} {what}, compressed" if name != "inputs" else f"{size(held)} {what}")
    parts.append(f"{size(rest)} everything else (the index of samples, metrics, checksums)")
    return f" ({', '.join(parts)}; feature maps without zeros hardly compress)"


def _layer_table(run: "Run") -> "Table":
    layers = [run[name] for name in run.layers]
    graded = any("gradient" in layer.quantities for layer in layers)
    table = new_table("Layers")
    for name in ("layer", "module", "shape of a sample", "dtype"):
        table.add_column(name, no_wrap=True)
    for name in ("activations", *(["gradients"] if graded else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in layers:
        sizes = [size(layer.nbytes), *([size(layer.gradient.nbytes)] if "gradient" in layer.quantities else [])]
        add_row(table, layer.name, layer.module, str(layer.shape[2:]), str(layer.dtype), *sizes)
    return table


def _kept_table(layers: "list[Layer]") -> "Table":
    table = new_table("Kept of the outputs")
    for name in ("layer", "output", "kept"):
        table.add_column(name, no_wrap=name != "kept")
    for layer in layers:
        add_row(table, layer.name, str(layer.output_shape), _kept(layer))
    return table


def _kept(layer: "Layer") -> str:
    """Say what is kept of a layer's outputs; nothing where all is."""
    said = []
    whole = layer.n_output_channels
    if layer.n_channels < whole:
        said.append(f"{layer.n_channels} of {whole} channels")
    if layer.crop is not None:
        (top, bottom), (left, right) = layer.crop
        said.append(f"rows {top}:{bottom}, columns {left}:{right}")
    if layer.average_pooled:
        said.append(f"averaged to {layer.shape[-2]} x {layer.shape[-1]}")
    return "; ".join(said)


def _snapshot_table(run: "Run") -> "Table":
    table = new_table("Snapshots")
    for name in run.metrics.columns:
        title = Text(printable(str(name).replace("\n", "\\n")))
        least = len(title) if name in run.snapshots else None  # which snapshot it is, is seen beside any metric
        table.add_column(title, justify="right", no_wrap=True, min_width=least, max_width=least or _WIDEST)
    for row in run.metrics.itertuples(index=False):
        add_row(table, *map(cell, row))
    return table


def _as_dict(run: "Run", missing: list[str]) -> dict[str, Any]:
    metrics = run.metrics.astype(object).where(run.metrics.notna(), None)
    metrics = metrics.replace({float("inf"): "inf", float("-inf"): "-inf"})  # JSON has no such numbers
    return {
        "path": run.path,
        "kind": run.kind,
        "layers": [_layer_as_dict(run[name]) for name in run.layers],
        "snapshots": metrics.to_dict(orient="records"),
        "samples": run.n_samples,
        "classes": list(run.classes),
        "bytes": run.nbytes,
        "bytes_stored": run.nbytes_stored if run.is_local else None,
        "weights": {"count": len(run.weight_names), "bytes": run.nbytes_weights} if run.weight_names else None,
        "missing": missing,
        "provenance": run.provenance,
    }


def _layer_as_dict(layer: "Layer") -> dict[str, Any]:
    gradient = layer.gradient if "gradient" in layer.quantities else None
    return {
        "name": layer.name,
        "module": layer.module,
        "shape": list(layer.shape),
        "dimensions": list(layer.dimensions),
        "dtype": str(layer.dtype),
        "bytes": layer.nbytes,
        "gradient": None if gradient is None else {"dtype": str(gradient.dtype), "bytes": gradient.nbytes},
        "output": list(layer.output_shape),
        "channels": layer.channels.tolist(),
        "crop": layer.crop,
        "average_pooled": layer.average_pooled,
        "channel_axis_source": layer.channel_axis_source,
    }
