"""Verification: every chunk read and compared with its checksum."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product

from ...errors import StoreError
from .._compat import list_files, read_bytes
from ..format import CHECKSUMS, LARGEST, Files, StoredArray, chunk_key, shard_shape
from ._misdescribed import find_misdescribed
from ._run import Run


def verify(run: Run, *, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Decode every chunk of a run, and compare it with what was committed; the nodes' own metadata, too.

    Parameters
    ----------
    run : Run
        The run.
    progress : callable, optional
        Called with the number of pieces done and the number of all, after each.

    Returns
    -------
    list of str
        One line per damaged part; empty where the run is whole.
    """
    arrays = [run.stored(path) for path in run.array_paths]
    boxes = [(array, box) for array in arrays for box in _boxes(array)]
    damage = [*_other_stamps(run), *_misleading(run), *find_misdescribed(run)]
    for done, (array, box) in enumerate(boxes, start=1):
        try:
            array.read(*box)
        except StoreError as error:
            damage.append(str(error))
        if progress is not None:
            progress(done, len(boxes))
    damage = [each.replace(" `fmcluster verify` lists all damage.", "") for each in damage]
    return list(dict.fromkeys(damage))  # a snapshot without its checksums is one line, not one for each of its files


def _other_stamps(run: Run) -> list[str]:
    """Return a line where what other programs read as epochs and steps is not what was committed."""
    damage = []
    for name in ("epoch", "step"):
        with suppress(StoreError):  # of a file that cannot be read there is a line already
            if run.stored(name).read().tolist() != run.snapshots[name].tolist():
                damage.append(f"{run.path} is damaged: the array {name} is not what the commits say.")
    return damage


def _misleading(run: Run) -> list[str]:
    """Return a line for each node whose own metadata, which other programs may read, is not what was committed."""
    damage, store = [], run.stored("epoch").array.store
    for path, node in run.nodes.items():
        content: bytes | None = b"unread"
        try:
            content = read_bytes(store, f"{path}/zarr.json", at_most=LARGEST)
            found = json.loads((content or b"").decode())
            if node.get("dimension_names", [""])[0] == "snapshot" and found["shape"][0] <= node["shape"][0]:
                found["shape"][0] = node["shape"][0]  # it follows; in a bucket, at the end of the recording
        except (StoreError, OSError, ValueError, LookupError, TypeError, RecursionError):
            found = None
        if found != node:
            what = "is not what was committed" if content else "is missing"
            damage.append(f"{run.path} is damaged: {path}/zarr.json {what}.")
    return damage


def missing_files(run: Run) -> list[str]:
    """Return the run's files that are not as they were committed: gone, empty, or there though no commit names them.

    Nothing is decoded: one listing of the run is compared with the record of each commit.
    """
    there = list_files(run.stored("epoch").array.store)
    arrays = {path: run.nodes[path] for path in run.array_paths}
    changing = {path for path, node in arrays.items() if node["dimension_names"][0] == "snapshot"}
    known, lost = set(), []
    expected = _names(run.committed_files())
    for snapshot in range(len(run)):
        try:
            expected |= _names(run.committed_files(snapshot))
            known.add(snapshot)
        except StoreError:  # what the commit vouches for is not known, so that nothing else of it can be missing
            expected.add(f"{CHECKSUMS}/{chunk_key(snapshot)}")
    lost += [name for name in expected if not there.get(name)]
    lost += [name for path in run.nodes if not there.get(name := f"{path}/zarr.json")]
    for name in there.keys() - expected:
        path, _, key = name.rpartition("/")
        if there[name] and path in arrays and key.startswith("c."):
            first = key.split(".")[1]
            if path not in changing or (first.isdecimal() and int(first) in known):
                lost.append(name)
    return sorted(lost)


def _names(files: Files) -> set[str]:
    return {f"{path}/{key}" for path, keys in files.items() for key in keys}


def _boxes(array: StoredArray) -> Iterator[tuple[slice, ...]]:
    steps = shard_shape(array.array)
    ranges = [range(0, n, step) for n, step in zip(array.shape, steps, strict=True)]
    for corner in product(*ranges):
        yield tuple(slice(at, min(at + step, n)) for at, step, n in zip(corner, steps, array.shape, strict=True))
