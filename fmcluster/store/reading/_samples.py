"""Samples of a run: a table of what is known of each."""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...errors import StoreError
from ._slots import Numbers

if TYPE_CHECKING:
    from ._run import Run


def sample_table(run: "Run") -> pd.DataFrame:
    """Return what is known of each sample, by its index in the data set; see `Run.samples`."""
    columns: dict[str, Any] = {
        name.rsplit("/", 1)[-1]: run.stored(name).read()
        for name in ("samples/sample", "samples/label", "samples/path", "samples/digest")
        if run.holds(name)
    }
    if not columns:  # the data set was not passed: the samples that were seen
        seen = np.unique(np.concatenate([np.empty(0, np.int64), *map(run.sample_ids, range(len(run)))]))
        columns = {"sample": seen, "label": np.full(len(seen), -1)}
    if "digest" in columns:
        columns["digest"] = [bytes(row).hex() for row in columns["digest"]]
    if "sample" not in columns:
        raise StoreError(f"{run.path} is damaged: it says something of samples, and not which they are.")
    frame = pd.DataFrame(columns).set_index("sample")
    if not frame.index.is_unique or (frame.index < 0).any():
        wrong = frame.index[frame.index.duplicated() | (frame.index < 0)][0]
        raise StoreError(
            f"{run.path} is damaged: it describes the sample {wrong}, which is negative or there twice. Restore it "
            f"from a copy."
        )
    if run.classes and "label" in frame:
        names = [run.classes[k] if 0 <= k < len(run.classes) else "" for k in frame["label"]]
        frame.insert(1, "class_name", names)
    return frame


def check_index(run: "Run", index: Numbers) -> Numbers:
    """Return a snapshot's row of `index`, once it is known to be of samples that the run describes, if it does.

    Raises
    ------
    StoreError
        Where it is not, and where a probe has an empty slot or a sample twice.
    """
    filled = index[index >= 0]
    if run.kind == "probe" and len(np.unique(filled)) < len(index):
        raise StoreError(f"{run.path} is damaged: a snapshot's index has a slot without a sample, or a sample twice.")
    if run.holds("samples/sample") and len(unknown := np.setdiff1d(filled, run.stored("samples/sample").read())):
        raise StoreError(
            f"{run.path} is damaged: a snapshot holds the sample {unknown[0]}, of which the run says nothing. Restore "
            f"it from a copy."
        )
    return index


def samples_in_common(run: "Run", snapshots: Sequence[int]) -> Numbers:
    """Return the dataset indices that all of the snapshots hold, ascending.

    Raises
    ------
    ValueError
        Where they have none in common.
    """
    held = [run.sample_ids(snapshot) for snapshot in snapshots]
    common = reduce(np.intersect1d, held)
    if not len(common):
        said = [f"snapshot {number} {extent(known)}" for number, known in zip(snapshots[:4], held, strict=False)]
        raise ValueError(
            f"the snapshots have no sample in common: {'; '.join(said)}{'; ...' if len(snapshots) > 4 else ''}. "
            f"Choose snapshots that have"
        )
    return np.unique(common)


def extent(samples: Numbers) -> str:
    """Say how many samples are held, and from which to which."""
    known = np.unique(samples)
    return f"holds {len(known)} samples{f' from {known[0]} to {known[-1]}' if len(known) else ''}"
