"""Comparison page: one HTML file about what `compare` found between runs."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import plot
from ..analysis import Comparison
from ..plot.drawing import metric_title, recorded_metrics
from ._files import checked_target, environment, replace

MOST_METRICS = 4


def write_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> Path:
    """Write what was found between runs to one HTML file, which needs no network.

    Parameters
    ----------
    comparison : Comparison
        Made by `fmcluster.compare`.
    path : path-like
        The file to write; it is replaced once the new one is whole. Its folder has to exist.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TypeError
        For what is not a comparison.
    ValueError
        If two runs have no epoch in common.
    FileNotFoundError, IsADirectoryError
        Where the file cannot be written.
    """
    if not isinstance(comparison, Comparison):
        raise TypeError(f"received a {type(comparison).__name__}; expected a Comparison, made by compare(run, other)")
    target = checked_target(Path(path))
    figure = plot.compare(comparison)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    names = [_name(path) for path in comparison.runs["path"]]
    metric_names = recorded_metrics(comparison.metrics)[:MOST_METRICS]
    rows = layer_rows(comparison)
    epochs = _common_epochs(comparison)
    page = environment().get_template("comparison.html.j2").render(
        names=names,
        n_samples=len(comparison.samples),
        n_layers=len({row["layer"] for row in rows}),
        lines=[f"At epoch {epochs[-1]}, {line}" for line in _extremes(comparison, epoch=epochs[-1])],
        runs=[_run_row(comparison, number, metric_names) for number in comparison.runs["run"]],
        metric_names=[metric_title(name)[0] for name in metric_names],
        picture="data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii"),
        first=epochs[0],
        last=epochs[-1],
        layers=rows,
    )  # fmt: skip
    replace(target, page)
    return target


def layer_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the rows of the table of layers: CKA at the first and last common epoch, and the channels matched."""
    epochs = _common_epochs(comparison)
    rows = []
    for other in comparison.runs["run"].tolist()[1:]:
        first, last = (_cka_at(comparison, other, epoch=epoch) for epoch in (epochs[0], epochs[-1]))
        for layer in dict.fromkeys(comparison.frame["layer"]):
            of_layer = comparison.matches
            of_layer = of_layer[(of_layer["layer"] == layer) & (of_layer["other_run"] == other)]
            known = of_layer["correlation"].dropna()
            rows.append(
                {
                    "layer": layer,
                    "run": other,
                    "first": _number(first.get(layer, np.nan)),
                    "last": _number(last.get(layer, np.nan)),
                    "matched": f"{len(known)} of {len(of_layer)}" if len(of_layer) else "of unlike shape",
                    "correlation": _number(known.median() if len(known) else np.nan),
                }
            )
    return rows


def _cka_at(comparison: Comparison, other: int, *, epoch: int) -> dict[str, float]:
    """Return the CKA of each layer at the last snapshots of an epoch; NaN where it is not defined."""
    frame = comparison.frame
    at = frame[(frame["other_run"] == other) & (frame["epoch"] == epoch) & (frame["other_epoch"] == epoch)]
    at = at[(at["snapshot"] == at["snapshot"].max()) & (at["other_snapshot"] == at["other_snapshot"].max())]
    return {str(layer): float(cka) for layer, cka in zip(at["layer"], at["cka"], strict=True)}


def _common_epochs(comparison: Comparison) -> list[int]:
    """Return the epochs that run 0 and each other run have."""
    common: set[int] | None = None
    for _, frame in comparison.frame.groupby("other_run"):
        both = set(frame["epoch"]) & set(frame["other_epoch"])
        common = both if common is None else common & both
    if not common:
        raise ValueError("the runs have no epoch in common: compare them two by two, or record them at the same epochs")
    return sorted(int(epoch) for epoch in common)


def _extremes(comparison: Comparison, *, epoch: int) -> list[str]:
    """Say of each pair of runs which layers are most and least similar, with the numbers."""
    lines = []
    for other in comparison.runs["run"].tolist()[1:]:
        known = {layer: cka for layer, cka in _cka_at(comparison, other, epoch=epoch).items() if not np.isnan(cka)}
        if len(known) < 2:
            continue
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        lines.append(
            f"of run 0 and run {other}, {most} is most similar (CKA {known[most]:.2f}) and {least} least "
            f"({known[least]:.2f})."
        )
    return lines


def _run_row(comparison: Comparison, number: int, metric_names: list[str]) -> dict[str, Any]:
    about = comparison.runs[comparison.runs["run"] == number].iloc[0]
    metrics = comparison.metrics[comparison.metrics["run"] == number]
    ends = []
    for name in metric_names:
        known = metrics[name].dropna()
        share = metric_title(name)[1]
        ends.append("–" if known.empty else f"{known.iloc[-1]:.1%}" if share else f"{known.iloc[-1]:.4g}")
    first, last = int(metrics["epoch"].min()), int(metrics["epoch"].max())
    epochs = str(first) if first == last else f"{first} to {last}"
    return {
        "number": number,
        "path": about["path"],
        "snapshots": int(about["snapshots"]),
        "epochs": epochs,
        "metrics": ends,
    }


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
