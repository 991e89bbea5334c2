"""Comparison page: one HTML file about what `compare` found between runs."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..analysis import Comparison
from ..errors import StoreError
from ..plot.drawing import brief, metric_title, metrics_to_draw, scale_start
from ..store import Run, layer_title, open_run
from ._files import checked_target, environment, replace
from ._written_page import WrittenPage
from .content import GLOSSARY, find_learned, find_matched, mark_terms

MOST_METRICS, MOST_EPOCHS = 4, 12


def write_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> WrittenPage:
    """Write what was found between runs to one HTML file, which works offline.

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
    others = comparison.runs["run"].tolist()[1:]
    runs = _opened(comparison)
    templates = environment()
    templates.filters |= {"layer": layer_title, "terms": mark_terms}
    page = templates.get_template("comparison.html.j2").render(
        names=names,
        left_out=comparison.left_out,
        n_samples=len(comparison.samples),
        n_layers=len({row["layer"] for row in rows}),
        lines=[*_results(comparison, metric_names), *_extremes(comparison)],
        runs=[_run_row(comparison, number, metric_names) for number in comparison.runs["run"]],
        metric_names=[metric_title(name)[0] for name in metric_names],
        first=_title_of_all(comparison, at=0),
        last=_title_of_all(comparison, at=-1),
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
    """Return the rows of the table of layers: CKA at the first and last epoch shown, and the channels matched."""
    rows = []
    for other in comparison.runs["run"].tolist()[1:]:
        table = comparison.side_by_side(other)
        for layer, first, last in zip(table.index, table.iloc[:, 0], table.iloc[:, -1], strict=True):
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


def _pairs(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Return the pairs of epochs that are the columns of `Comparison.side_by_side`."""
    return [(int(pair[0]), int(pair[1])) for pair in table.columns]


def _title(pair: tuple[int, int]) -> str:
    """Return the name of a pair of epochs that are shown side by side."""
    return f"epoch {pair[0]}" if pair[0] == pair[1] else f"epochs {pair[0]} | {pair[1]}"


def _title_of_all(comparison: Comparison, *, at: int) -> str:
    """Return the name of the first or last pair of epochs, where it is the same of all runs."""
    others = comparison.runs["run"].tolist()[1:]
    titles = {_title(_pairs(comparison.side_by_side(other))[at]) for other in others}
    return titles.pop() if len(titles) == 1 else "last epoch" if at else "first epoch"


def _results(comparison: Comparison, metric_names: list[str]) -> list[str]:
    """Say to which result each run came, by the first metric, where all have it."""
    if not metric_names:
        return []
    name, said = metric_names[0], []
    for number in comparison.runs["run"]:
        known = comparison.metrics.loc[comparison.metrics["run"] == number, name].dropna()
        if known.empty:
            return []
        said.append(f"{_value(float(known.iloc[-1]), name)} in run {number}")
    return [f"The last {metric_title(name)[0]} is {', '.join(said[:-1])} and {said[-1]}."]


def _extremes(comparison: Comparison) -> list[str]:
    """Say of each pair of runs which layers are most and least similar, with the numbers."""
    lines = []
    for other in comparison.runs["run"].tolist()[1:]:
        table = comparison.side_by_side(other)
        here, there = _pairs(table)[-1]
        known = {str(layer): float(cka) for layer, cka in table.iloc[:, -1].dropna().items()}
        if len(known) < 2:
            continue
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        pair = f"Between run 0 and run {other} at epoch {here}"
        if here != there:
            pair = f"Between the last snapshots of run 0 (epoch {here}) and run {other} (epoch {there})"
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
    table = comparison.side_by_side(other)
    shown = brief(len(table.columns), at_most=MOST_EPOCHS) if table.shape[1] > 1 else [0]
    table = table.iloc[:, list(shown)]
    metrics = []
    for name in metric_names[:1]:
        for side, number in enumerate((0, other)):
            of_run = comparison.metrics[comparison.metrics["run"] == number]
            last = of_run.groupby("epoch")[name].last()
            metrics.append(
                (number, metric_title(name)[0], [_value(float(last.get(e[side], np.nan)), name) for e in _pairs(table)])
            )
    return {
        "other": other,
        "epochs": [_title(pair) for pair in _pairs(table)],
        "apart": comparison.apart(other),
        "layers": [(str(layer), [float(value) for value in table.loc[layer]]) for layer in table.index],
        "metrics": metrics,
        "start": scale_start(table.to_numpy(dtype=np.float64)),
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
