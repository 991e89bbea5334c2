"""Recording the training batches themselves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import Dataset

from ..errors import CaptureError
from ..store import LayerSpec, open_run
from ._batch import Batch
from ._datasets import check_numbered, classes, labels, paths
from ._hooks import CallCounts, Firing, hooked
from ._layout import Planned, plan
from ._options import Keep
from .transfer import Copier
from .writing import Filling, Session, Taken

Index = npt.NDArray[np.int64]
_BATCHES_A_SUM = 8  # sums of so many batches are kept apart, before they are added up in the order of their slots


class LiveCapture:
    """Snapshots of what a model makes of an epoch's training batches.

    Each sample gets a slot, in the order of arrival. What the layers return shows in the first batch; the run is laid
    out when that has ended.

    Parameters
    ----------
    model : Module
        The model.
    modules : mapping of str to Module
        Those of its modules that are recorded.
    keep : Keep
        What is kept of the layers.
    n_samples : int
        How many slots an epoch has.
    written_at_once : int
        About how many samples lie in a shard: a whole number of batches as long as the first.
    dataset : Dataset, optional
        What the samples' indices number.
    check : callable
        Called with the layers' specs before the run is laid out; it may refuse.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        *,
        keep: Keep,
        n_samples: int,
        written_at_once: int,
        dataset: Dataset[Any] | None,
        check: Callable[[Sequence[LayerSpec]], None],
    ) -> None:
        self.model = model
        self.modules = modules
        self.keep = keep
        self.n_samples = n_samples
        self.layers: dict[Firing, Planned] = {}
        self._written_at_once = written_at_once
        self._dataset = dataset
        self._check = check
        self._filling: Filling | None = None
        self._tells_samples = False
        self._in_batch = False
        self.taken: Taken | None = None
        self.count = 0

    def start(self, session: Session, copier: Copier) -> None:
        """Note where to write; the layout follows with the first batch."""
        self.session = session
        self.copier = copier
        self._tells_samples = session.writer.n_snapshots == 0

    def after_failure(self) -> None:
        """Bring the samples' table along again, if it was lost."""
        self._tells_samples = self.session.writer.n_snapshots == 0

    def begin(self, taken: Taken) -> None:
        """Begin an epoch."""
        self.taken = taken
        self.count = 0
        self._index = np.full(self.n_samples, -1, np.int64)
        self._filling = None
        self._takes_back = False
        self._n_batches = 0

    def end(self) -> None:
        """Commit the epoch."""
        taken, self.taken = self._now(), None
        if not self.count:
            raise CaptureError(f"epoch {taken.epoch} ended without a batch, so there is nothing to record of it")
        filling, count, session = self.filling(), self.count, self.session
        if self._takes_back:
            session.wait()  # or what was taken back would be judged
        session.check_overflow(taken)
        session.put_alone(taken, lambda: filling.finish(count), what="the last samples")
        if self._tells_samples and self._dataset is not None and not taken.failed:
            self._tells_samples = False
            for name, values in self._tables().items():
                work = partial(session.writer.add_static, f"samples/{name}", values, dimensions=("item",))
                session.put_alone(taken, work, what=f"samples/{name}")
        session.commit(taken, self._index)

    def filling(self) -> Filling:
        """Return where the epoch's rows are put together."""
        if self._filling is None:
            self._filling = Filling(
                self.session.writer.write,
                specs={layer.spec.name: layer.spec for layer in self.layers.values()},
                n_samples=self.n_samples,
                shard_samples=self._shard_samples,
            )
        return self._filling

    @contextmanager
    def batch(self, indices: Any) -> Iterator[None]:
        """Record what the model makes of a batch."""
        numbers = as_indices(indices)
        if self._dataset is not None:
            check_in(self._dataset, numbers)
        if self._in_batch:
            raise RuntimeError("a batch is being recorded already, inside another; leave its block first")
        if self.count + len(numbers) > self.n_samples:
            raise ValueError(
                f"this batch of {len(numbers)} is more than the epoch has room for: n_samples={self.n_samples}, and "
                f"{self.count} have been recorded. Pass n_samples of at least what an epoch shows"
            )
        batch = Batch(self, slot=self.count, length=len(numbers))
        counts = CallCounts(self.modules)
        root = self.model.register_forward_pre_hook(
            lambda *_: counts.start_pass(repeats=not batch.is_complete)  # the rest of the samples, or all of them anew
        )
        self._in_batch = True
        try:
            with (
                hooked(self.modules, batch.on_output, counts=counts, on_recomputed=batch.on_recomputed),
                torch.compiler.set_stance("force_eager"),
            ):
                yield
            batch.finish()
            if not self.layers:
                self._lay_out(batch)
            batch.deliver_held()
        except BaseException:
            batch.abandon()
            raise
        finally:
            self._in_batch = False
            root.remove()
            batch.remove_hooks()
        self._index[self.count : self.count + len(numbers)] = numbers
        self.count += len(numbers)
        settle = partial(self.filling().settle, self.count)
        self.session.put(self._now(), settle, what="a batch")  # in turn: an earlier batch may still be taken back
        self._n_batches += 1
        if self._n_batches % _BATCHES_A_SUM == 0:
            self.session.put_alone(self._now(), partial(self._now().add_up, self.count), what="the statistics")

    def rewind(self) -> None:
        """Take back what was delivered since the last whole batch."""
        taken, count, filling = self._now(), self.count, self._filling

        def work() -> None:
            taken.forget(count)
            if filling is not None:
                filling.rewind(count)

        self._takes_back = True
        self.session.put_alone(taken, work, what="taking back a batch")

    def _now(self) -> Taken:
        assert self.taken is not None  # batches are recorded within an epoch only
        return self.taken

    def _lay_out(self, batch: Batch) -> None:
        layers = plan(batch.seen, modules=self.modules, keep=self.keep, shown="the first batch")
        specs = [layer.spec for layer in layers.values()]
        self._check(specs)
        is_new = self.session.writer.is_new
        several = batch.length * max(1, self._written_at_once // batch.length)
        self._shard_samples = min(several, self.n_samples) if is_new else open_run(self.session.path).shard_samples
        named = classes(self._dataset) if self._dataset is not None else ()
        self.session.lay_out(
            specs, kind="live", n_samples=self.n_samples, shard_samples=self._shard_samples, classes=named
        )
        self.layers = layers

    def _tables(self) -> dict[str, npt.NDArray[Any]]:
        count = len(self._dataset)  # type: ignore[arg-type]
        tables: dict[str, npt.NDArray[Any]] = {"sample": np.arange(count), "label": labels(self._dataset)}
        if (found := paths(self._dataset)) is not None:
            tables["path"] = np.array(found)
        return tables


def as_indices(indices: Any) -> Index:
    """Return a batch's dataset indices, ndarray of shape (n,), int64.

    Raises
    ------
    TypeError, ValueError
        Where they are not integers from 0 on, in one row.
    """
    numbers = np.asarray(indices.cpu() if isinstance(indices, torch.Tensor) else indices)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
        raise TypeError(
            f"indices is of dtype {numbers.dtype} and shape {numbers.shape}; expected the batch's dataset indices, "
            f"integers in one row, such as with_index(dataset) puts first in each item"
        )
    if numbers.min() < 0:
        raise ValueError(f"indices holds {numbers.min()}; expected dataset indices, from 0 on")
    return numbers.astype(np.int64)


def check_in(dataset: Dataset[Any], numbers: Index) -> None:
    """Raise `ValueError` where an index is of none of a data set's items."""
    count = len(dataset)  # type: ignore[arg-type]
    if numbers.max() >= count:
        raise ValueError(
            f"indices holds {numbers.max()}, and dataset has {count} items; pass as dataset what with_index was given, "
            f"whose items the indices number"
        )


def count_slots(n_samples: int | None, *, dataset: Dataset[Any] | None) -> int:
    """Return how many slots an epoch has: as many as are asked for, or as the data set has items."""
    if dataset is not None:
        check_numbered(dataset, what="dataset")
        n_samples = len(dataset) if n_samples is None else n_samples  # type: ignore[arg-type]
    if n_samples is None or n_samples < 1:
        raise ValueError(
            f"probe is None and n_samples is {n_samples}; pass a probe set, or how many samples an epoch shows"
        )
    return n_samples
