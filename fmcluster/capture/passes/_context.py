"""Snapshot context: what every forward pass of one snapshot knows."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...store import Quantity
from ..forward import Firing
from ..layers import PlannedLayer
from ..transfer import Copier, Copy
from ..writing import PendingSnapshot, Rows, Session, ShardBuffer


@dataclass(frozen=True, eq=False)
class SnapshotContext:
    """What every forward pass of one snapshot knows.

    Attributes
    ----------
    layers : mapping of Firing to PlannedLayer
        What is recorded.
    copier : Copier
        Takes what is kept of an output to the host's memory.
    session : Session
        Writes it.
    snapshot : PendingSnapshot
        The snapshot that it belongs to.
    buffer : ShardBuffer
        The snapshot's shards.
    first : int
        The slot of the first sample that this process records; not 0 for some ranks of a job.
    """

    layers: Mapping[Firing, PlannedLayer]
    copier: Copier
    session: Session
    snapshot: PendingSnapshot
    buffer: ShardBuffer
    first: int = 0

    def put(
        self, layer: PlannedLayer, quantity: Quantity, *, copy: Copy | None, slot: int, count: int, batch: int
    ) -> None:
        """Queue rows of a layer to be written; without a copy they are blank."""
        rows = Rows(self.snapshot, self.buffer, layer.spec.name, quantity, self.first + slot, count, copy, batch)
        self.session.put_rows(rows)
