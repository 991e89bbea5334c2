"""Story: the run in a sentence, from what the network started from to what became of it."""

import re
from typing import Any

from ...plot.drawing import metric_title, recorded_metrics
from ...store import Run


def story_line(run: Run) -> str:
    """Say in one sentence, from provenance and metrics, what was trained on what, how long, and with which result.

    What is said of start and data comes from the notes of the recording, ``notes={"model": ..., "start": ...,
    "data": ...}``; what is missing there is left out.
    """
    notes = last_session(run)["notes"]
    start, data = (str(notes.get(name) or "") for name in ("start", "data"))
    model = model_name(run)
    who = f"{model}, {start}," if start else model
    table = run.snapshots
    epochs, steps = int(table["epoch"].max()), int(table["step"].max())
    length = f"{epochs} epoch{'s' if epochs != 1 else ''}" if epochs else f"{steps} optimizer steps"
    trained = f"was trained on {data} for {length}" if data else f"was trained for {length}"
    if len(run) == 1:
        trained = f"was to be trained on {data}" if data else "was recorded once"
    return f"{who} {trained}{_result(run)}."


def model_name(run: Run) -> str:
    """Return what the notes call the model, or its class; torchvision's ResNets by their names in print."""
    session = last_session(run)
    return in_print(str(session["notes"].get("model") or session["model"].rpartition(".")[2]))


def in_print(model: str) -> str:
    """Write the name of a ResNet as papers do, where it is one of torchvision's functions.

    Examples
    --------
    >>> in_print("resnet18"), in_print("wide_resnet50_2"), in_print("resnext50_32x4d"), in_print("ToyNet")
    ('ResNet-18', 'Wide ResNet-50-2', 'ResNeXt-50 32x4d', 'ToyNet')
    """
    found = re.fullmatch(r"(wide_)?(resnet|resnext)(\d+)(?:_(.+))?", model)
    if found is None:
        return model
    wide, kind, depth, more = found.groups()
    name = f"{'Wide ' if wide else ''}{'ResNet' if kind == 'resnet' else 'ResNeXt'}-{depth}"
    return name if more is None else f"{name}{'-' if wide else ' '}{more}"


def last_session(run: Run) -> dict[str, Any]:
    """Return what the last recording session says of itself, and of what it does not say that this is not known."""
    unknown = dict.fromkeys(("model", "device", "dtype", "batch_size"), "unknown")
    said = run.provenance[-1] if run.provenance else {}
    return {"versions": {}, "notes": {}, **unknown, **said}


def _result(run: Run) -> str:
    metrics = run.metrics
    names = recorded_metrics(metrics)
    column = next((name for name in names if metric_title(name)[1]), names[0] if names else None)
    if column is None:
        return ""
    values = metrics[column].dropna()
    title, share = metric_title(column)
    first, last = (f"{value:.1%}" if share else f"{value:.4g}" for value in (values.iloc[0], values.iloc[-1]))
    return f": {title} {last}" if len(values) < 2 else f": {title} went from {first} to {last}"
