"""Findings: what `diagnose` returns, with its advice."""

from dataclasses import dataclass, field

import pandas as pd

from ...store import NotFinite
from .._layer_name import NamedLayer, layer_name
from .._summarized import Summarized
from ..representation import Similarity
from ._thresholds import Thresholds


@dataclass(frozen=True, eq=False)
class Advice:
    """What follows from the findings, in plain words with the numbers in them.

    Attributes
    ----------
    layer : str
        The layer it is about.
    action : {"tune", "freeze", "shorten", "narrow", "kernel", "separable", "groups", "resolution", \
            "unchanged", "dead", "dead_here", "duplicate", "noise", "permuted"}
        What is advised, or found; ``"dead_here"`` of channels that live on in a residual stream.
    text : str
        One sentence.
    evidence : DataFrame
        The rows of `Findings.frame` that it rests on; of what was measured by `ablate`, those of `Damage.frame`.
    epoch : int, optional
        Of freezing: from which epoch on.
    until : str, optional
        Of tuning: the normalization up to which the network is to be tuned, beside its head; empty for the head alone,
        None for all of it.
    step : int, optional
        Of freezing within an epoch: from how many optimizer steps on.
    """

    layer: str
    action: str
    text: str
    evidence: pd.DataFrame
    epoch: int | None = None
    until: str | None = None
    step: int | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False, repr=False)
class Findings(Summarized):
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
        measured), ``of_positions`` (how many there are: where these are more, those were drawn), ``counts`` (whether it
        has parameters of its own and is not the head), ``noise_floor``, ``level`` (of the
        CKA, from which on it has converged), ``converged, converged_epoch, separated, separated_epoch`` (snapshot and
        epoch; missing where it has not, or this is not known).
    advice : tuple of Advice
        What follows; empty where nothing does.
    thresholds : Thresholds
        What it was judged by.
    not_finite : NotFinite
        The snapshots, layers and samples that were left out, as values were NaN or infinite.
    not_finite_at_rest : NotFinite
        The same of the run at learning rate 0, where there was one: of layers that are left out there, nothing is known
        of how they move at rest, and samples that are left out there are not compared in either run.
    caveat : str
        Why nothing is advised from `damage`, where the network does not know its task; empty where it does.
    similarity : Similarity or None
        Debiased linear CKA of all layers and snapshots, over the images that were compared: what `similarity` returns,
        but of 2,000 images at most.
    """

    frame: pd.DataFrame
    channels: pd.DataFrame
    layers: pd.DataFrame
    advice: tuple[Advice, ...]
    thresholds: Thresholds
    not_finite: NotFinite = field(default_factory=NotFinite)
    similarity: Similarity | None = None
    not_finite_at_rest: NotFinite = field(default_factory=NotFinite)
    caveat: str = ""

    @property
    def lines_left_out(self) -> list[str]:
        """What was left out, in sentences; of the run at rest, they begin with that."""
        return [*self.not_finite.lines, *(f"Run at rest: {line}" for line in self.not_finite_at_rest.lines)]

    @property
    def left_out(self) -> pd.DataFrame:
        """The snapshots that were left out, as some layer gave NaN or infinite values there: see `Run.diverged`."""
        return self.not_finite.snapshots

    def __str__(self) -> str:
        nothing = "There is nothing to say of single layers: no measure passes its threshold."
        return "\n".join(
            [
                *self.lines_left_out,
                *filter(None, [self.caveat]),
                *(map(str, self.advice) if self.advice else (nothing,)),
            ]
        )

    def rows(self, measure: str, *, layer: NamedLayer | str | None = None) -> pd.DataFrame:
        """Return the rows of `frame` of one measure, of all layers or of one."""
        known = self.frame["measure"].unique()
        if measure not in known:
            raise ValueError(f"there is no measure {measure!r}; expected one of {', '.join(known)}")
        found = self.frame[self.frame["measure"] == measure]
        if layer is None:
            return found
        return found[found["layer"] == layer_name(layer)]
