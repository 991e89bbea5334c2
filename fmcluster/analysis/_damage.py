"""Damage: what changes of a network do to its outputs, beside what they would save."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from ._summarized import Summarized

SIGMAS = 1.96
_FEWEST_LAYERS = 3


def sigmas_at_once(count: int) -> float:
    """Return how many standard errors 95 % intervals of so many numbers reach to hold for all of them at once.

    By Bonferroni's inequality, whatever the numbers have to do with one another.

    Parameters
    ----------
    count : int
        How many; of one, it is that of an ordinary 95 % interval.

    References
    ----------
    O. J. Dunn, Multiple comparisons among means, Journal of the American Statistical Association 56, 1961.

    Examples
    --------
    >>> round(sigmas_at_once(1), 2), round(sigmas_at_once(20), 2)
    (1.96, 3.02)
    """
    return NormalDist().inv_cdf(1 - 0.025 / count)


@dataclass(frozen=True, eq=False, repr=False)
class Damage(Summarized):
    """What `ablate` measured.

    Attributes
    ----------
    frame : DataFrame
        One row per change: ``intervention``, ``layer`` (several are separated by commas), ``what`` (the change in
        words), ``how`` (how what is changed was chosen), ``epoch`` (to which something is put back), ``step`` (within
        that epoch, where it has several snapshots), ``amount``,
        ``channels`` (a tuple of those that are removed), ``setting`` (the amount as an integer: how many channels are
        left, the side of a kernel, kernels for each input channel, groups, factor), ``consumer`` (of channels that are
        removed, the module that reads them), ``fitted_on`` (where weights were fitted: each image's are those that were
        fitted on the half of the probe that it is not in, of at least so many images), ``unknowns`` (how many numbers
        that fit solves for, of each output);
        ``loss`` and ``accuracy``, the mean change of each over the samples of the probe (NaN without labels), ``kl``,
        the mean Kullback-Leibler divergence of the changed outputs from those of the network as it is, in nats; of
        each, its standard error over samples, paired: ``loss_se``, ``accuracy_se``, ``kl_se``. ``null_kl, null_loss``
        are those of random changes of the same size, ``below_null`` by how much the change does less (paired), each
        with its standard error. ``forward_share, backward_share, parameters_share, kept_share``: what a network that is
        built so would save, as shares of the whole network's multiply-adds of the forward and the backward pass,
        parameters, and bytes kept for the backward pass.
    skipped : DataFrame
        Layers that an intervention did not change: ``intervention, layer, reason``.
    loss, accuracy : float
        Of the network as it is; NaN without labels.
    n_samples : int
        Samples of the probe.
    costs : mapping of str to float
        Of the network as it is, of one sample: ``forward, backward`` (multiply-adds), ``parameters``, ``kept`` (bytes).
    majority : float
        Share of the samples that have the most frequent class: the accuracy of a network that always names it. NaN
        where there are no classes.
    shown : object, optional
        The probe, and how it was shown: what a plan's weights are fitted on.
    choices : DataFrame
        Whether choosing is better than chance: one row per intervention and way of choosing, ``intervention``, ``how``,
        ``layers`` (how many), and by how much less than random changes its changes do, as a share of what both do
        together, in the mean over a layer's amounts and over layers: ``below_null``, and its standard error
        ``below_null_se``, of the samples and of the layers, which add up.
    agreement : DataFrame, optional
        Where changes were chosen by a prediction: how it agrees with what was measured of them, as
        `PredictedDamage.agreement` has it.
    """

    frame: pd.DataFrame
    skipped: pd.DataFrame
    loss: float
    accuracy: float
    n_samples: int
    costs: Mapping[str, float]
    majority: float = float("nan")
    shown: object | None = field(default=None, repr=False)
    choices: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=Damage.CHOICES))
    agreement: pd.DataFrame | None = None

    CHOICES: ClassVar[list[str]] = ["intervention", "how", "layers", "below_null", "below_null_se"]
    COLUMNS: ClassVar[list[str]] = [
        *["intervention", "layer", "what", "how", "epoch", "step", "amount", "channels"],
        *["setting", "consumer", "fitted_on", "unknowns"],
        *["loss", "loss_se", "accuracy", "accuracy_se", "kl", "kl_se"],
        *["null_kl", "null_kl_se", "null_loss", "null_loss_se", "below_null", "below_null_se"],
        *["forward_share", "backward_share", "parameters_share", "kept_share"],
    ]

    def least(self, intervention: str, *, n: int = 5) -> pd.DataFrame:
        """Return the changes of an intervention that do least harm, by divergence.

        Parameters
        ----------
        intervention : str
            Its name.
        n : int
            How many.

        Raises
        ------
        ValueError
            For an intervention that was not tried.
        """
        known = self.frame["intervention"].unique()
        if intervention not in known:
            raise ValueError(f"there is no intervention {intervention!r}; expected one of {', '.join(known)}")
        return self.frame[self.frame["intervention"] == intervention].nsmallest(n, "kl")

    def is_clear(self, sigmas: "float | pd.Series[float]" = SIGMAS) -> "pd.Series[bool]":
        """Return whether each change does clearly less than a random one of its size, or nothing at all.

        Parameters
        ----------
        sigmas : float or Series
            By how many standard errors, of all changes or of each; by default those of 95 %.
        """
        frame = self.frame
        return (frame["below_null"] > sigmas * frame["below_null_se"]) | (frame["kl"] == 0)

    def is_chosen_clearly(self) -> "pd.Series[bool]":
        """Return of each change whether how it was chosen is clearly (95 %) better than chance, in the mean of layers.

        That is, whether changes of its intervention that were chosen in one way (``how``) do less than random ones, as
        `choices` has it; of at least three layers.
        """
        choices = self.choices
        clear = (choices["below_null"] > SIGMAS * choices["below_null_se"]) & (choices["layers"] >= _FEWEST_LAYERS)
        known = set(zip(choices["intervention"][clear], choices["how"][clear], strict=True))
        rows = zip(self.frame["intervention"], self.frame["how"], strict=True)
        return pd.Series([row in known for row in rows], self.frame.index, dtype=bool)

    def knows_its_task(self) -> bool:
        """Whether the network is clearly (95 %) more often right than the most frequent class alone would be.

        What may be put back or removed of one that is not says nothing of what the task needs. True where there are no
        classes.
        """
        if np.isnan(self.accuracy) or np.isnan(self.majority):
            return True
        error = np.sqrt(self.accuracy * (1 - self.accuracy) / self.n_samples)
        return bool(self.accuracy - SIGMAS * error > self.majority)

    @property
    def caveat(self) -> str:
        """What has to be said of all changes, where the network does not know its task; empty where it does."""
        if self.knows_its_task():
            return ""
        return (
            f"The network is right on {self.accuracy:.3f} of {self.n_samples} samples. That is not clearly better than "
            f"always naming the most frequent class ({self.majority:.3f}): what can be put back or removed says "
            f"nothing of what the task needs."
        )

    def __str__(self) -> str:
        lines = [f"{self.n_samples} samples; " + self._as_it_is(), *filter(None, [self.caveat])]
        for intervention in self.frame["intervention"].unique():
            of = self.frame["intervention"] == intervention
            lines.append(f"{intervention}: {of.sum()} changes; those that do least:")
            lines += [f"  {_line(row)}" for _, row in self.least(intervention).iterrows()]
            chosen = self.choices[self.choices["intervention"] == intervention]
            lines += [f"  {_choice(row)}" for _, row in chosen[chosen["layers"] >= _FEWEST_LAYERS].iterrows()]
            lines += [f"  {_agreement(row)}" for _, row in self._agreement_of(intervention).iterrows()]
        fitted = self.frame[self.frame["fitted_on"].notna()]
        if len(fitted):
            images = fitted["fitted_on"].min()
            lines.append(
                f"Weights are fitted on one half of the samples ({images} at least) and measured on the other."
            )
            if few := int((fitted["unknowns"] > images).sum()):
                lines.append(
                    f"{few} of {len(fitted)} fits have more unknowns for each output than that: on more samples, they "
                    f"may do less."
                )
        if len(self.skipped):
            lines.append(f"{self.skipped['layer'].nunique()} layers were left out by some; .skipped says why.")
        return "\n".join(lines)

    def _agreement_of(self, intervention: str) -> pd.DataFrame:
        table = self.agreement
        return pd.DataFrame() if table is None else table[(table["intervention"] == intervention) & (table["n"] > 0)]

    def _as_it_is(self) -> str:
        if np.isnan(self.loss):
            return "without labels, so that only divergences are known"
        accuracy = "" if np.isnan(self.accuracy) else f", accuracy {self.accuracy:.3f}"
        return f"as it is, loss {self.loss:.3f}{accuracy}"


def _choice(values: "pd.Series[Any]") -> str:
    """Say whether less or more than chance is done, or neither clearly, and by how much, with its interval."""
    of = f"over {values['layers']} layers{', ' if values['how'] else ''}{values['how']}"
    low, high = (values["below_null"] + sign * SIGMAS * values["below_null_se"] for sign in (-1, 1))
    side = "less than" if low > 0 else "more than" if high < 0 else "not clearly less or more than"
    share = _interval(values["below_null"], values["below_null_se"], 2, sign="+")
    return f"{of}: {side} random changes do, {share} of what both do together"


def _agreement(values: "pd.Series[Any]") -> str:
    """Say how the ranks of what was predicted agree with those measured, with its interval, or that it is not known."""
    if np.isnan(values["rank_correlation"]):
        return f"how well the prediction ranks them is not known of {values['n']} changes of so few layers"
    low, high = (f"{values[end]:.2f}" for end in ("low", "high"))
    return (
        f"the prediction ranks them with a rank correlation of {values['rank_correlation']:.2f} ({low} to {high}, of "
        f"{values['n']} changes)"
    )


def _line(values: "pd.Series[Any]") -> str:
    how = f" ({values['how']})" if values["how"] else ""
    text = f"{values['layer']}, {values['what']}{how}: divergence {_interval(values['kl'], values['kl_se'], 4)}"
    if not np.isnan(values["accuracy"]):
        text += f", accuracy {_interval(100 * values['accuracy'], 100 * values['accuracy_se'], 1, sign='+')} points"
    null = "" if np.isnan(values["null_kl"]) else f"; at random {values['null_kl']:.4f}"
    return f"{text}{null}; saves {100 * values['forward_share']:.1f} % of the multiply-adds"


def _interval(value: float, error: float, digits: int, *, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f} (± {SIGMAS * error:.{digits}f})"
