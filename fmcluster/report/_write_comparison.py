"""Comparison page: one HTML file about what `compare` found between runs."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import plot
from ..analysis import Comparison
from ..plot.drawing import metric_title, recorded_metrics
from ._files import checked_target, environment, replace
from .content import figure_picture

MOST_METRICS = 4
PICTURE_ALT = "CKA of each layer between the runs by epoch; correlations of matched channels; metrics of all runs"


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
    picture = figure_picture(plot.compare(comparison), PICTURE_ALT, dpi=150, lossless=True)
    by = "name" if comparison.runs["name"].is_unique else "path"
    names = comparison.runs[by].tolist()
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
        picture=picture,
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
        table = comparison.by_epoch(other)
        for layer, first, last in zip(table.index, table[epochs[0]], table[epochs[-1]], strict=True):
            of_layer = comparison.matches
            of_layer = of_layer[(of_layer["layer"] == layer) & (of_layer["other_run"] == other)]
            known = of_layer["correlation"].dropna()
            rows.append(
                {
                    "layer": layer,
                    "run": other,
                    "first": _number(first),
                    "last": _number(last),
                    "matched": f"{len(known)} of {len(of_layer)}" if len(of_layer) else "of unlike shape",
                    "correlation": _number(known.median() if len(known) else np.nan),
                }
            )
    return rows


def _common_epochs(comparison: Comparison) -> list[int]:
    """Return the epochs that run 0 and each other run have."""
    tables = [comparison.by_epoch(other) for other in comparison.runs["run"].tolist()[1:]]
    common = set.intersection(*(set(table.columns) for table in tables))
    if not common:
        raise ValueError("the runs have no epoch in common: compare them two by two, or record them at the same epochs")
    return sorted(int(epoch) for epoch in common)


def _extremes(comparison: Comparison, *, epoch: int) -> list[str]:
    """Say of each pair of runs which layers are most and least similar, with the numbers."""
    lines = []
    for other in comparison.runs["run"].tolist()[1:]:
        at_epoch = comparison.by_epoch(other)[epoch].dropna()
        known = {str(layer): float(cka) for layer, cka in at_epoch.items()}
        if len(known) < 2:
            continue
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        pair = f"of run 0 and run {other}"
        if f"{known[most]:.3f}" == f"{known[least]:.3f}":
            lines.append(f"{pair}, all layers have a CKA of {known[most]:.3f}.")
            continue
        lines.append(f"{pair}, {most} is most similar (CKA {known[most]:.3f}) and {least} least ({known[least]:.3f}).")
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


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
