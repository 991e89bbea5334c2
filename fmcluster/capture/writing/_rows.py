"""Rows: what is stored of a layer for some samples, on its way from a copy to a shard."""

from dataclasses import dataclass

from ...store import Quantity
from ..transfer import Copy
from ._pending import PendingSnapshot
from ._shard_buffer import ShardBuffer


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a layer to write.

    Attributes
    ----------
    snapshot : PendingSnapshot
        The snapshot that they belong to.
    buffer : ShardBuffer
        Puts them together to shards.
    layer, quantity : str
        What they are of.
    slot, count : int
        Slot of the first, and how many there are.
    copy : Copy, or None
        Holds them; None where they are blank, as a gradient that did not come back.
    batch : int
        Number of the batch in its snapshot.
    """

    snapshot: PendingSnapshot
    buffer: ShardBuffer
    layer: str
    quantity: Quantity
    slot: int
    count: int
    copy: Copy | None
    batch: int

    @property
    def what(self) -> str:
        """What they are, for an error."""
        return f"the {self.quantity} of layer {self.layer!r}"

    def add_moments(self) -> None:
        """Add what they sum up to, to the snapshot: once, when the copy has arrived."""
        if self.copy is None:
            return
        _, moments = self.copy.result()
        self.snapshot.add(self.layer, self.quantity, slot=self.slot, moments=moments, batch=self.batch)

    def run(self) -> None:
        """Write them, as soon as the copy has arrived."""
        values = None if self.copy is None else self.copy.result()[0]
        self.buffer.put(self.layer, self.quantity, slot=self.slot, count=self.count, values=values)

    def release(self) -> None:
        """Give the copy's memory back."""
        if self.copy is not None:
            self.copy.release()
