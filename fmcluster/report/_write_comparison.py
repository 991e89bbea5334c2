"""Comparison page: one HTML file about what `compare` found between runs."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis import Comparison
from ..errors import StoreError
from ..plot.drawing import brief, metric_title, metrics_to_draw, scale_start
from ..store import Run, layer_title, open_run
from ._files import checked_target, environment, replace
from ._written_page import WrittenPage
from .content import GLOSSARY, find_learned, find_matched, mark_terms

MOST_METRICS, MOST_EPOCHS = 4, 12


def write_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> WrittenPage:
    """Write what was found between runs to one HTML file, which needs no network.

    Images of matched channels, and those that one run alone tells, are read from the runs where they still lie at their
    paths; elsewhere the page says that they do not.

    Parameters
    ----------
    comparison : Comparison
        Made by `fmcluster.compare`.
    path : path-like
        The file to write; it is replaced once the new one is whole. Its folder has to exist.

    Returns
    -------
    WrittenPage
        The path of the file, which a notebook shows as the page.

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
    by = "name" if comparison.runs["name"].is_unique else "path"
    names = comparison.runs[by].tolist()
    metric_names = metrics_to_draw(comparison.metrics, at_most=MOST_METRICS)
    rows = layer_rows(comparison)
    epochs = _common_epochs(comparison)
    others = comparison.runs["run"].tolist()[1:]
    runs = _opened(comparison)
    templates = environment()
    templates.filters |= {"layer": layer_title, "terms": mark_terms}
    page = templates.get_template("comparison.html.j2").render(
        names=names,
        left_out=comparison.left_out,
        n_samples=len(comparison.samples),
        n_layers=len({row["layer"] for row in rows}),
        lines=[f"At epoch {epochs[-1]}, {line}" for line in _extremes(comparison, epoch=epochs[-1])],
        runs=[_run_row(comparison, number, metric_names) for number in comparison.runs["run"]],
        metric_names=[metric_title(name)[0] for name in metric_names],
        first=epochs[0],
        last=epochs[-1],
        layers=rows,
        by_epoch=[_by_epoch(comparison, other, metric_names) for other in others],
        across=[_across(comparison, other) for other in others],
        matched=[find_matched(comparison, runs, other=other) for other in others] if runs else None,
        learned=[find_learned(comparison, runs, other=other) for other in others] if runs else None,
        glossary=GLOSSARY,
    )  # fmt: skip
    replace(target, page)
    return WrittenPage(target)


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
        lines.append(
            f"{pair}, {layer_title(most)} is most similar (CKA {known[most]:.3f}) and {layer_title(least)} least "
            f"({known[least]:.3f})."
        )
    return lines


def _run_row(comparison: Comparison, number: int, metric_names: list[str]) -> dict[str, Any]:
    about = comparison.runs[comparison.runs["run"] == number].iloc[0]
    metrics = comparison.metrics[comparison.metrics["run"] == number]
    ends = []
    for name in metric_names:
        known = metrics[name].dropna()
        ends.append(_value(np.nan if known.empty else float(known.iloc[-1]), name))
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


def _opened(comparison: Comparison) -> list[Run] | None:
    """Return the runs, where they still are what was compared."""
    try:
        return [open_run(path) for path in comparison.runs["path"]]
    except (StoreError, OSError):
        return None


def _by_epoch(comparison: Comparison, other: int, metric_names: list[str]) -> dict[str, Any]:
    """Return CKA and the first metric of both runs, epoch by epoch (up to 12 of them)."""
    table = comparison.by_epoch(other)
    epochs = (
        [int(table.columns[index]) for index in brief(len(table.columns), at_most=MOST_EPOCHS)]
        if len(table.columns) > 1
        else [int(table.columns[0])]
    )
    metrics = []
    for name in metric_names[:1]:
        for number in (0, other):
            of_run = comparison.metrics[comparison.metrics["run"] == number]
            last = of_run.groupby("epoch")[name].last()
            metrics.append((number, metric_title(name)[0], [_value(float(last.get(e, np.nan)), name) for e in epochs]))
    return {
        "other": other,
        "epochs": epochs,
        "layers": [(str(layer), [float(value) for value in table.loc[layer, epochs]]) for layer in table.index],
        "metrics": metrics,
        "start": scale_start(table[epochs].to_numpy(dtype=np.float64)),
    }


def _across(comparison: Comparison, other: int) -> dict[str, Any]:
    """Return the table of layers against layers at the ends of both runs."""
    of_other = comparison.across[comparison.across["other_run"] == other]
    names = list(dict.fromkeys(of_other["layer"]))
    table = of_other.pivot_table(index="layer", columns="other_layer", values="cka", dropna=False, sort=False)
    columns = list(dict.fromkeys(of_other["other_layer"]))
    return {
        "other": other,
        "columns": columns,
        "layers": [(name, [float(table.loc[name, column]) for column in columns]) for name in names],
        "start": scale_start(table.to_numpy(dtype=np.float64)),
    }


def _value(value: float, name: str) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}" if metric_title(name)[1] else f"{value:.4g}"
