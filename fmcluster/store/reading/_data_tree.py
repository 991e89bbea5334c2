"""Data tree: a run as xarray's groups of named arrays, of which nothing is read that the run would not read itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from ..format import StoredArray

if TYPE_CHECKING:
    from ._run import Run


class LazyArray(BackendArray):
    """A stored array for xarray: what is asked for is read then, and compared with what was committed.

    Parameters
    ----------
    stored : StoredArray
        The array.
    """

    def __init__(self, stored: StoredArray) -> None:
        self._stored = stored
        self.shape = stored.shape
        self.dtype = np.dtype(stored.array.dtype)

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Read integers, slices, and lists of integers, each of its axis; one snapshot after the other."""
        single = tuple(0 if isinstance(each, int | np.integer) else slice(None) for each in key)
        wanted = [np.atleast_1d(np.arange(n)[each]) for n, each in zip(self.shape, key, strict=True)]
        out = np.empty([len(each) for each in wanted], self.dtype)
        first = 1 if self._stored.over_time else len(wanted[0])
        if out.size:
            for at in range(0, len(wanted[0]), first):
                out[at : at + first] = self._read_box([wanted[0][at : at + first], *wanted[1:]])
        return out[single]

    def _read_box(self, wanted: list[npt.NDArray[np.int64]]) -> npt.NDArray[Any]:
        """Read the smallest box that holds what is wanted, and take that of it."""
        starts = [int(each.min()) for each in wanted]
        boxes = [slice(start, int(each.max()) + 1) for start, each in zip(starts, wanted, strict=True)]
        values = self._stored.read(*boxes)
        return values[np.ix_(*(each - start for each, start in zip(wanted, starts, strict=True)))]


def data_tree(run: "Run") -> "xarray.DataTree":
    """Return a run as a `xarray.DataTree`, as `xarray.open_datatree` makes one; see `Run.to_xarray`."""
    groups = ["", *(path for path, node in run.nodes.items() if node["node_type"] == "group")]
    return xarray.DataTree.from_dict({f"/{path}": _dataset(run, path) for path in groups})


def _dataset(run: "Run", path: str) -> xarray.Dataset:
    """Return the arrays that lie in a group, and what is said of it."""
    above = f"{path}/" if path else ""
    names = [name.removeprefix(above) for name in run.array_paths if name.startswith(above)]
    variables = {name: _variable(run.stored(above + name)) for name in names if "/" not in name}
    dataset = xarray.Dataset(variables, attrs=run.group_attributes(path))
    return xarray.decode_cf(dataset, decode_times=False)


def _variable(stored: StoredArray) -> xarray.Variable:
    """Return an array with the names of its axes; what was read of it as a whole stays in memory."""
    array = stored.array
    names: tuple[str, ...] = array.metadata.dimension_names  # type: ignore[union-attr, assignment]
    lazy: Any = indexing.LazilyIndexedArray(LazyArray(stored))
    encoding: Mapping[str, Any] = {
        "chunks": array.chunks,
        "preferred_chunks": dict(zip(names, array.chunks, strict=True)),
        "shards": array.shards,
        "fill_value": array.fill_value,
    }
    cached = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazy))  # type: ignore[no-untyped-call]
    return xarray.Variable(names, cached, attrs=array.attrs.asdict(), encoding=dict(encoding))
