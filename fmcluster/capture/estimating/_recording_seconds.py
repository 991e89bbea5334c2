"""Recording seconds: what the forward pass, the copy, the encoder and the disk each take, and which bounds a run."""

from dataclasses import dataclass

PARTS = ("forward", "copy", "encode", "disk")
_TITLES = {"forward": "the forward pass", "copy": "the copy", "encode": "the encoder", "disk": "the disk"}
_BOUND = "bounds the run"


@dataclass(frozen=True)
class RecordingSeconds:
    """Seconds that each part of recording takes, and the part that bounds the run.

    Attributes
    ----------
    forward : float
        The model's forward passes; on a CUDA device also the cast and the sums, which it does in turn with them.
    copy : float
        From a CUDA device, the copies to the host's memory; else also the cast and the sums.
    encode : float
        Compression and checksums, by as many threads as write.
    disk : float
        Writing what is compressed, and flushing it.
    in_turn : tuple of str
        Parts that wait for one another, since they need the same processor or the same thread. The others go on
        beside them and beside each other.
    """

    forward: float
    copy: float
    encode: float
    disk: float
    in_turn: tuple[str, ...]

    @property
    def total(self) -> float:
        """Seconds of all: of what goes on side by side, the longest; the parts in turn are added up for that."""
        return max(self._of(parts) for parts in self._side_by_side())

    @property
    def bound(self) -> str:
        """Name of the part that bounds the run; of those in turn, where their sum does, the longest."""
        longest = max(self._side_by_side(), key=self._of)
        return max(longest, key=lambda name: getattr(self, name))

    def times(self, factor: float) -> "RecordingSeconds":
        """Return as many seconds of each."""
        forward, copy, encode, disk = (factor * float(getattr(self, name)) for name in PARTS)
        return RecordingSeconds(forward, copy, encode, disk, self.in_turn)

    def __str__(self) -> str:
        """Say which part bounds the run, and by how much."""
        bound = self.bound
        if bound in self.in_turn:
            parts = ", ".join(f"{_TITLES[name]} {_seconds(getattr(self, name))}" for name in self.in_turn)
            text = f"{_upper(_TITLES[bound])} {_BOUND}. What takes turns ({parts}) adds up to {_seconds(self.total)}"
            rest = [name for name in PARTS if name not in self.in_turn]
        else:
            text = f"{_upper(_TITLES[bound])} {_BOUND}: it takes {_seconds(self.total)}"
            turns = [f"{_TITLES[name]} {_seconds(getattr(self, name))}" for name in self.in_turn]
            if turns:
                text += f"; what takes turns ({', '.join(turns)}) adds up to {_seconds(self._of(self.in_turn))}"
            rest = [name for name in PARTS if name not in self.in_turn and name != bound]
        beside = ", ".join(f"{_TITLES[name]} {_seconds(getattr(self, name))}" for name in rest)
        return f"{text}; beside it: {beside}." if beside else f"{text}."

    def _side_by_side(self) -> list[tuple[str, ...]]:
        alone: list[tuple[str, ...]] = [(name,) for name in PARTS if name not in self.in_turn]
        return [self.in_turn, *alone] if self.in_turn else alone

    def _of(self, parts: tuple[str, ...]) -> float:
        return float(sum(getattr(self, name) for name in parts))


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
