"""What a snapshot's forward passes know, and the rows that they make of it."""

from dataclasses import FrozenInstanceError

import pytest

from fmcluster.capture.forward._hooks import Firing
from fmcluster.capture.layers._layers import PlannedLayer
from fmcluster.capture.options._options import Reduction
from fmcluster.capture.passes._context import SnapshotContext
from fmcluster.capture.writing import PendingSnapshot, Rows, ShardBuffer
from fmcluster.store import LayerSpec


class ListSession:
    """A session that only lists what is put into it."""

    def __init__(self) -> None:
        self.rows: list[Rows] = []

    def put_rows(self, rows: Rows) -> None:
        self.rows.append(rows)


def test_rows_say_where_they_belong() -> None:
    layer = PlannedLayer(LayerSpec("fc", (3,), "float16", "Linear", gradient=True), (3,), Reduction("float16"), 1)
    session, snapshot = ListSession(), PendingSnapshot(epoch=2, step=5, metrics={})
    buffer = ShardBuffer(lambda *_args, **_named: None, specs={"fc": layer.spec}, n_samples=8, shard_samples=4)
    context = SnapshotContext({Firing("fc", 0, ""): layer}, None, session, snapshot, buffer)
    context.put(layer, "gradient", copy=None, slot=4, count=2, batch=1)
    (rows,) = session.rows
    assert (rows.layer, rows.quantity, rows.slot, rows.count, rows.batch) == ("fc", "gradient", 4, 2, 1)
    assert rows.snapshot is snapshot
    assert rows.buffer is buffer
    assert rows.copy is None
    assert rows.what == "the gradient of layer 'fc'"
    for frozen, name in ((context, "snapshot"), (rows, "slot")):
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, name, None)
