"""Findings: what `diagnose` returns, with its advice, and the thresholds that it applies."""

from dataclasses import dataclass, field, fields

import pandas as pd

from ...store import describe_diverged

LEFT_OUT = ["snapshot", "epoch", "step", "layers", "first"]


@dataclass(frozen=True)
class Thresholds:
    """What counts as what in `diagnose`.

    Attributes
    ----------
    dead : float
        A channel is constant where its range over the probe is at most this share of its largest magnitude. The default
        is the resolution of float16.
    duplicate : float
        Two channels are duplicates where the cosine of their centered responses is over this.
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
        interval.
    energy : float
        The share of the energy of the channels' correlations that a narrower layer is to hold.
    separated : float
        Classes have separated at the first snapshot at which the accuracy of nearest neighbors is within this of its
        best over all snapshots, if that best is over chance by more than this and three standard deviations.
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
    n_neighbors: int = 10

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "n_neighbors":
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise ValueError(f"n_neighbors is {value!r}; expected an integer of at least 1")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"the threshold {each.name} is {value!r}; expected a number from 0 to 1")


@dataclass(frozen=True, eq=False)
class Advice:
    """What follows from the findings, in plain words with the numbers in them.

    Attributes
    ----------
    layer : str
        The layer it is about.
    action : {"freeze", "shorten", "narrow", "kernel", "separable", "groups", "resolution", \
            "unchanged", "dead", "dead_here", "duplicate", "noise", "permuted"}
        What is advised, or found; ``"dead_here"`` of channels that live on in a residual stream.
    text : str
        One sentence.
    evidence : DataFrame
        The rows of `Findings.frame` that it rests on; of what was measured by `ablate`, those of `Damage.frame`.
    epoch : int, optional
        Of freezing: from which epoch on.
    """

    layer: str
    action: str
    text: str
    evidence: pd.DataFrame
    epoch: int | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Findings:
    """What `diagnose` found, with the evidence.

    Attributes
    ----------
    frame : DataFrame
        One row per layer, snapshot and measure: ``layer, snapshot, epoch, step, measure, value``; ``threshold``, what
        the value is judged by; ``noise_floor``, what no change looks like, and ``null``, what chance looks like (each
        NaN where there is none); and ``evidence``, in words. The measures:

        - ``dead``, ``revived``: channels constant over the probe; and alive now, but dead at the snapshot before.
        - ``duplicates``: groups of channels that respond the same way.
        - ``effective_rank``: of the covariance of the channels.
        - ``energy_width``: how many of the largest eigenvalues of the channels' correlations hold 90 % of their sum;
          after an activation, a width to aim at (principal filter analysis).
        - ``drift``, ``drift_step``: median over channels of the distance to their own response at the first snapshot,
          and to the one before, over the larger of the two norms: 0 to 2.
        - ``converged_channels``: share of the channels that have converged.
        - ``permuted``: channels that took another's position since the snapshot before, and have no twin that could be
          meant instead.
        - ``noise``: channels that are unrelated to themselves at every step.
        - ``cka_to_last``: debiased CKA to the last snapshot; its noise floor is that of two random halves of the
          channels.
        - ``cka_to_next``: debiased CKA to the next layer that counts, at the same snapshot.
        - ``change_to_end``: how far the layer would still move, in 1 - debiased CKA, at the rate of the steps since the
          snapshot before; its noise floor is the same at learning rate 0.
        - ``knn_accuracy``: leave-one-out accuracy of nearest neighbors; its null is chance.
    channels : DataFrame
        One row per layer, snapshot and channel: ``layer, snapshot, channel, dead, duplicate_group`` (the lowest channel
        of its group, missing where it is in none), ``drift, drift_step, converged`` (at this snapshot or before),
        ``noise``, ``permuted_from`` (the channel whose position it took, missing where it is its own).
    layers : DataFrame
        One row per layer: ``layer, module, channels`` (how many), ``positions`` (of all images, at which they are
        seen), ``counts`` (whether it has parameters of its own and is not the head), ``noise_floor``, ``level`` (of the
        CKA, from which on it has converged), ``converged, converged_epoch, separated, separated_epoch`` (snapshot and
        epoch; missing where it has not, or this is not known).
    advice : tuple of Advice
        What follows; empty where nothing does.
    thresholds : Thresholds
        What it was judged by.
    left_out : DataFrame
        The snapshots that were left out, as some layer gave NaN or infinite values there: see `Run.diverged`.
    """

    frame: pd.DataFrame
    channels: pd.DataFrame
    layers: pd.DataFrame
    advice: tuple[Advice, ...]
    thresholds: Thresholds
    left_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LEFT_OUT))

    def __str__(self) -> str:
        nothing = "There is nothing to say of single layers: no measure passes its threshold."
        left_out = describe_diverged(self.left_out, n_layers=len(self.layers))
        return "\n".join([*left_out, *(map(str, self.advice) if self.advice else (nothing,))])

    def rows(self, measure: str, *, layer: str | None = None) -> pd.DataFrame:
        """Return the rows of `frame` of one measure, of all layers or of one."""
        known = self.frame["measure"].unique()
        if measure not in known:
            raise ValueError(f"there is no measure {measure!r}; expected one of {', '.join(known)}")
        found = self.frame[self.frame["measure"] == measure]
        return found if layer is None else found[found["layer"] == layer]
