"""Thresholds: the numbers that `diagnose` judges by, and what each means."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Thresholds:
    """What counts as what in `diagnose`.

    Attributes
    ----------
    dead : float
        A channel is constant where its range over the probe is at most this share of its largest magnitude. The default
        is the resolution of float16.
    duplicate : float
        Two channels are duplicates where the lower end of the 95 % interval (over images) of the correlation of their
        responses is over this.
    drift : float
        A channel has converged at the first snapshot after which every step to the next is shorter than this share of
        its norm.
    unchanged : float
        A layer did not change where no channel drifts farther than this. The default is the resolution of float16.
    permuted : float
        A channel stands in another's position where its response correlates at least so with what another gave at the
        snapshot before, and less with what it gave itself. That has to be distinctive: where either has a duplicate
        in its own snapshot, or a third channel is more than half as near (1 - correlation), it says nothing.
    noise : float
        A channel is noise where at every step (there must be two) it correlates less than this with itself, and takes
        no other's position.
    cka : float
        A layer has converged at the first snapshot after which its debiased CKA to the last snapshot stays at or above
        this, and at or above the layer's noise floor (or 0.999, where that is higher)
    damage : float
        What may be frozen or built smaller costs at most so much loss on the probe, in nats: the upper end of the 95 %
        interval, that of all changes of one intervention at once.
    energy : float
        The share of the energy of the channels' correlations that a narrower layer is to hold.
    separated : float
        Classes have separated at the first snapshot at which the accuracy of nearest neighbors is within this of its
        best over all snapshots, if that best is over chance by more than this and three standard deviations. The head
        alone is to be tuned where training all improved it by no more than this.
    shift : float
        What is new in the data entered before the normalization whose inputs are farthest from its running statistics,
        if they are at least so many times as far as those of data that the network knows.
    n_neighbors : int
        How many nearest images are asked for an image's class.
    """

    dead: float = 1e-3
    duplicate: float = 0.95
    drift: float = 0.1
    unchanged: float = 1e-3
    permuted: float = 0.95
    noise: float = 0.3
    cka: float = 0.95
    damage: float = 0.02
    energy: float = 0.9
    separated: float = 0.02
    shift: float = 3.0
    n_neighbors: int = 10

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "n_neighbors":
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise ValueError(f"n_neighbors is {value!r}; expected an integer of at least 1")
            elif each.name == "shift":
                if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < float("inf"):
                    raise ValueError(f"the threshold shift is {value!r}; expected a number of at least 1")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"the threshold {each.name} is {value!r}; expected a number from 0 to 1")
