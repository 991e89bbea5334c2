"""Weights & Biases: a run written as one of its runs."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from ..analysis import MAX_BYTES, Reducer, ResultCache
from ..store import Run
from ._collect import Progress, choose, collect
from ._entries import Distribution, Entry, Picture, Scalar, Table, Text
from ._new_folder import new_folder
from ._tensorboard import check_folder

if TYPE_CHECKING:
    import pandas as pd
    import wandb

AXIS = "snapshot/step"
BINS = 64


def to_wandb(
    run: Run,
    target: "str | os.PathLike[str] | wandb.Run",
    *,
    project: str = "fmcluster",
    name: str | None = None,
    mode: Literal["offline", "online"] = "offline",
    layers: Sequence[str] | None = None,
    samples: Sequence[int] | None = None,
    view: str = "channel",
    n_clusters: int = 8,
    reducer: Reducer | None = None,
    diagnosis: bool = True,
    random_state: int = 0,
    max_bytes: int = MAX_BYTES,
    cache: ResultCache | Literal["beside"] | None = "beside",
    progress: Progress | None = None,
) -> Path:
    """Log what a run shows to Weights & Biases: without a network, unless `mode` says otherwise.

    What `to_tensorboard` writes as scalars, histograms, images and text; and as tables the embeddings (where every row
    is at each snapshot, with its cluster) and what `diagnose` advises. Everything is logged over an axis of its own,
    ``snapshot/step``, so that it neither needs nor disturbs wandb's own steps. What `diagnose` says is in the summary.

    Parameters
    ----------
    run : Run
        Made by `open_run`.
    target : path-like or wandb.Run
        A folder, in which wandb makes its folder ``wandb`` with a new run that is finished on return; or a run of
        yours, to which is added, and which goes on.
    project, name : str, optional
        Of a new run; by default it has the name of the run's folder.
    mode : {"offline", "online"}
        Of a new run. ``wandb sync`` sends an offline one to the server. It needs the tables, which wandb keeps in its
        data folder (``WANDB_DATA_DIR``), too.
    layers, samples, view, n_clusters, reducer, diagnosis, random_state, max_bytes, cache, progress
        As in `to_tensorboard`.

    Returns
    -------
    Path
        wandb's folder of the run.

    Raises
    ------
    ImportError
        Where wandb is not installed: it comes with ``fmcluster[wandb]``.
    NotADirectoryError
        Where `target` is a file.
    TypeError
        Where it is neither a folder nor a run of wandb; for what is not a run, and layers or samples that are not in a
        sequence.
    StoreError
        Where the run has no snapshot yet, or is damaged.
    KeyError
        Where it has no such layer.
    ValueError
        Where it has no such sample, the view or the mode is unknown, or a layer has too few rows for an embedding.
    """
    wandb = wandb_module()
    if not isinstance(target, str | os.PathLike | wandb.Run):
        raise TypeError(f"target is a {type(target).__name__}; expected a folder, or a run made by wandb.init")
    if mode not in ("offline", "online"):
        raise ValueError(f'mode is {mode!r}; expected "offline" or "online"')
    wanted = choose(
        run,
        layers=layers,
        samples=samples,
        view=view,
        n_clusters=n_clusters,
        reducer=reducer,
        random_state=random_state,
        max_bytes=max_bytes,
        diagnosis=diagnosis,
        cache=cache,
    )
    if not isinstance(target, str | os.PathLike):
        log(target, collect(wanted, progress=progress))
        return Path(target.dir).parent
    folder = check_folder(Path(target))
    settings = wandb.Settings(
        silent=mode == "offline",  # online, wandb says where the run is to be seen
        console="off",
        save_code=False,
        disable_git=True,
        x_disable_stats=True,
        x_disable_meta=True,
    )
    with new_folder(folder):  # in place of one that is not there, wandb takes one for temporary files
        made = wandb.init(
            dir=folder,
            project=project,
            name=name or Path(run.name).stem,
            mode=mode,
            config={"run": run.path, "layers": list(wanted.drawn), "view": view, "n_clusters": n_clusters},
            reinit="create_new",  # a run of the caller's goes on
            settings=settings,
        )
        written = Path(made.dir).parent
        try:
            log(made, collect(wanted, progress=progress))
        except BaseException:  # half an export would look like a run; as a context manager, wandb prints a traceback
            with suppress(Exception):  # of a disk that is full
                made.finish(exit_code=1, quiet=True)
            _remove(written)
            raise
        made.finish()
    return written


def _remove(written: Path) -> None:
    """Remove a run of wandb, the links that lead to it, and wandb's folder where nothing else is in it."""
    shutil.rmtree(written, ignore_errors=True)
    for each in written.parent.iterdir():
        if each.is_symlink() and not each.exists():
            each.unlink()
    with suppress(OSError):  # other runs are in it
        written.parent.rmdir()


def log(run: "wandb.Run", entries: Iterable[Entry]) -> None:
    """Give entries to a run of wandb: those of one snapshot that come together are one step of it."""
    run.define_metric(AXIS, hidden=True)
    defined = {AXIS}
    for row in _rows(run, entries):
        for key in sorted(row.keys() - defined):
            if "*" not in key:  # would be a pattern
                run.define_metric(key, step_metric=AXIS)
        defined |= row.keys()
        run.log(row)


def _rows(run: "wandb.Run", entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    """Yield what is logged in one step of wandb, and put prose into the summary."""
    wandb = wandb_module()
    for step, together in groupby(entries, key=lambda entry: entry.step):
        row: dict[str, Any] = {AXIS: step.at}
        for entry in together:
            if isinstance(entry, Text):
                run.summary[entry.name] = "\n".join(entry.lines)
                continue
            if entry.name in row:  # of a layer that is called like a group of ours
                yield row
                row = {AXIS: step.at}
            row[entry.name] = _value(entry, wandb)
        if len(row) > 1:
            yield row


def _value(entry: Entry, wandb: ModuleType) -> Any:
    """Return what wandb logs of an entry."""
    if isinstance(entry, Scalar):
        return entry.value
    if isinstance(entry, Distribution):
        return wandb.Histogram(np_histogram=np.histogram(entry.values, bins=BINS))
    if isinstance(entry, Picture):
        return wandb.Image(Image.fromarray(entry.pixels), caption=entry.caption)
    if isinstance(entry, Table):
        return wandb.Table(dataframe=_plain(entry.frame), allow_mixed_types=True)
    raise TypeError(f"received a {type(entry).__name__}; expected an entry to log")


def _plain(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table with Python's own None where a value is missing."""
    plain = frame.astype(object)
    return plain.where(plain.notna(), None)


def wandb_module() -> ModuleType:
    """Return wandb; ImportError that names the extra where it is not there."""
    try:
        import wandb
    except ImportError as error:
        raise ImportError(f"wandb is not installed ({error}): pip install 'fmcluster[wandb]'") from error
    return wandb
