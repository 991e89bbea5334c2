"""Predicted damage: what changes of a network would cost, from stored feature maps and gradients alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import rankdata

from ..analysis import MAX_BYTES, SIGMAS, Damage, Summarized
from ..store import Layer, NotFinite, Run
from ._finite_gradients import find_finite_gradients
from ._outcomes import mean_and_error
from ._predicted_changes import LayerReader, PredictedChange, patch_bytes, predicted_changes
from .interventions import Skipped

_BLOCK_BYTES = 32 << 20
_FEWEST_LAYERS = 4
_COPIES = 12  # of a block of feature maps, in float32 and float64, while it is changed


@dataclass(frozen=True, eq=False, repr=False)
class PredictedDamage(Summarized):
    """What `predict_damage` found.

    Attributes
    ----------
    frame : DataFrame
        One row per change: ``intervention``, ``layer``, ``what`` (the change in words), ``how``, ``amount``, as
        `ablate` has them; ``predicted`` and ``predicted_se``, the predicted damage and its standard error over images,
        in squared units of the recorded loss; ``null``, that of noise of the same norm in each image's feature maps,
        and ``below_null`` by how much the change does less, each with its standard error; ``relative``, the square of
        the change over the variance of the feature maps about their channels' means (of depth: what the identity leaves
        unexplained).
    skipped : DataFrame
        Layers that were not looked at: ``intervention, layer, reason``.
    n_samples : int
        Images that were looked at.
    snapshot, epoch : int
        Which snapshot.
    not_finite : NotFinite
        The snapshots, layers and samples that were left out, as values were NaN or infinite.
    passed_over : tuple of int
        Later snapshots, at which the gradients of every image are NaN or infinite.
    """

    frame: pd.DataFrame
    skipped: pd.DataFrame
    n_samples: int
    snapshot: int
    epoch: int
    not_finite: NotFinite = field(default_factory=NotFinite)
    passed_over: tuple[int, ...] = ()

    COLUMNS: ClassVar[list[str]] = [
        *["intervention", "layer", "what", "how", "amount", "predicted", "predicted_se"],
        *["null", "null_se", "below_null", "below_null_se", "relative"],
    ]

    def least(self, intervention: str, *, n: int = 5) -> pd.DataFrame:
        """Return the changes of an intervention that are predicted to do least harm.

        Parameters
        ----------
        intervention : str
            Its name.
        n : int
            How many.

        Raises
        ------
        ValueError
            For an intervention of which nothing was predicted.
        """
        known = self.frame["intervention"].unique()
        if intervention not in known:
            raise ValueError(f"nothing was predicted of {intervention!r}; expected one of {', '.join(known)}")
        return self.frame[self.frame["intervention"] == intervention].nsmallest(n, "predicted")

    def agreement(self, damage: Damage, *, n_resamples: int = 1000, random_state: int = 0) -> pd.DataFrame:
        """Compare with what was measured, where both have the same change of the same layer.

        Parameters
        ----------
        damage : Damage
            What `ablate` measured.
        n_resamples : int
            How often the layers are drawn again for the interval.
        random_state : int
            Seed of these draws.

        Returns
        -------
        DataFrame
            One row per intervention: ``intervention``, ``n`` (changes that both have), ``rank_correlation``
            (Spearman's, of what was predicted with the measured divergence), ``low, high`` (its 95 % interval, by
            drawing layers with replacement), ``of_relative`` (that of the relative size of the change with the
            divergence), ``factor`` (by what factor measured divergences typically are off a power law of what was
            predicted, fitted to all of them), ``factor_left_out`` (the same where each layer's are told by a power law
            that was fitted to the other layers: what to expect of a layer that is not measured). NaN for fewer than
            four changes, or fewer than four layers.
        """
        keys = ["intervention", "layer", "what"]
        measured = damage.frame.drop_duplicates(keys)[[*keys, "kl"]]
        both = self.frame.merge(measured, on=keys)
        rng = np.random.default_rng(random_state)
        rows = []
        for intervention in self.frame["intervention"].unique():
            part = both[both["intervention"] == intervention]
            found, low, high = _rank_correlation(part, "predicted", n_resamples, rng)
            relative, _, _ = _rank_correlation(part, "relative", 0, rng)
            rows.append((intervention, len(part), found, low, high, relative, *_factors_off(part)))
        columns = ["intervention", "n", "rank_correlation", "low", "high", "of_relative", "factor", "factor_left_out"]
        return pd.DataFrame(rows, columns=columns)

    def __str__(self) -> str:
        lines = [
            *self.not_finite.lines,
            *(f"Left out: snapshot {each}, where no layer has finite gradients." for each in self.passed_over[-5:]),
            f"{self.n_samples} samples of epoch {self.epoch}; predicted from feature maps and gradients, not measured",
        ]
        for intervention in self.frame["intervention"].unique():
            of = self.frame["intervention"] == intervention
            lines.append(f"{intervention}: {of.sum()} changes; those that would do least:")
            for _, row in self.least(intervention).iterrows():
                how = f" ({row['how']})" if row["how"] else ""
                error = SIGMAS * row["predicted_se"]
                lines.append(
                    f"  {row['layer']}, {row['what']}{how}: {row['predicted']:.3g} (± {error:.2g}); noise of the same "
                    f"norm {row['null']:.3g}"
                )
        lines.append(
            "What is refitted was fitted on the samples that it is predicted of: of few, it is too small. How far off "
            "what is measured is, of layers left out too, is what .agreement(damage) says."
        )
        if len(self.skipped):
            lines.append(f"{self.skipped['layer'].nunique()} layers were left out by some; .skipped says why.")
        return "\n".join(lines)


def predict_damage(
    run: Run,
    *,
    epoch: int | None = None,
    snapshot: int | None = None,
    layers: Sequence[str] | None = None,
    samples: Sequence[int] | npt.NDArray[np.int64] | None = None,
    max_bytes: int = MAX_BYTES,
) -> PredictedDamage:
    """Predict how much changes of a network would raise its loss, from the feature maps and gradients that a run holds.

    Of a change that an intervention makes in a layer's feature maps, and the gradient of the loss there, the product is
    taken element by element, squared, summed over channels and positions; the mean over images is the predicted damage.
    Where a layer is left out (``depth``), the parts of the change add up, and it is large: there it is the geometric
    mean of the squared sum of the products, by which the loss changes in the first order, and of what noise as large as
    the change does. It ranks changes of one intervention, and its size means little; how well its ranks agree with
    those measured is what `PredictedDamage.agreement` tells. The gradient of the margin of the best score ranks better
    than that of the loss, which nearly vanishes where the network is sure. Measure the most promising changes by
    ``ablate(predicted=...)``. What is fitted is fitted on the same images: on few images, the prediction is too small.

    - ``depth``: a layer's output becomes what the layer was given. Needs the layer before, recorded, of equal shape.
    - ``width``: channels of a convolution, as the next layer reads them, become what the others predict of them
      linearly; those first whose unpredicted part times the gradient's energy is least. What the network returns, such
      as scores of classes, keeps its channels. Whether a channel is tied to those of other layers, as in a residual
      stream, is not known without the network.
    - ``kernel size``: a convolution's output becomes the least-squares fit of an inner part of its kernel. Needs the
      layer before.
    - ``separable``, ``groups``: the weights that explain best what a convolution returned are replaced, as by
      `Separable` and `Groups`. Need the layer before.
    - ``resolution``: a convolution's feature maps are averaged 2 and 4 times, and brought back.

    Parameters
    ----------
    run : Run
        A run with gradients and whole feature maps: no crop, no averaging down, all channels. A loss that sums over the
        samples gives units that do not depend on the size of the batches.
    epoch, snapshot : int, optional
        Which snapshot; by default the last at which layers and their gradients are finite.
    layers : sequence of str, optional
        Names of layers; all by default, but for those whose gradients are not finite of most samples.
    samples : sequence of int, optional
        Dataset indices; by default all that the snapshot holds, but for those of which feature maps or gradients are
        not finite.
    max_bytes : int
        Memory that may be taken. Kernels of so many weights that their moments do not fit are ``skipped``: six matrices
        of weights by weights, 972 MiB at 4,608, the most that are fitted.

    Returns
    -------
    PredictedDamage
        ``.frame`` has a row per change.

    Raises
    ------
    TypeError
        For what is not a run.
    ValueError
        For layers, samples or snapshots that do not exist, a run without gradients, or fewer than two images.
    MemoryError
        Where one image's feature maps do not fit, or what a kernel sees for one row of its outputs.

    References
    ----------
    Y. LeCun, J. Denker, S. Solla, Optimal brain damage, NIPS 1989 (damage from derivatives of the loss); P. Molchanov,
    A. Mallya, S. Tyree, I. Frosio, J. Kautz, Importance estimation for neural network pruning, CVPR 2019 (its square).
    """
    if not isinstance(run, Run):
        raise TypeError(f"predict_damage received a {type(run).__name__}; expected Run, made by open_run(path)")
    if isinstance(layers, str):
        raise TypeError(f"layers is the string {layers!r}; expected a sequence of names: [{layers!r}]")
    names = list(run.layers) if layers is None else [run[name].name for name in layers]
    left_out, by_hand = NotFinite(), samples is not None
    if epoch is None and snapshot is None:
        part = run.finite_part(layers=None if layers is None else names)
        names, numbers, left_out = part.layers, part.snapshots, part.left_out
        samples = part.samples if samples is None else samples
    else:
        numbers = [run.resolve(epoch=epoch, snapshot=snapshot)]
    known = [name for name in names if "gradient" in run[name].quantities]
    if not known:
        raise ValueError(
            f"{run.path} holds no gradients of {', '.join(names[:5])}; expected some: record them with "
            f'Recorder(..., record=("activation", "gradient")) and recorder.snapshot(..., loss=loss)'
        )
    rows: list[tuple[object, ...]] = []
    skipped: list[Skipped] = []
    number = numbers[-1]
    passed_over: tuple[int, ...] = ()
    chosen = run[known[0]].vectors("sample", snapshots=[number], samples=samples).samples
    without = chosen[:0]
    if not by_hand:
        finite = find_finite_gradients(run, known, snapshots=numbers, samples=chosen)
        number, known, chosen, without = finite.snapshot, list(finite.layers), finite.samples, finite.without
        skipped, passed_over = [*finite.skipped], finite.passed_over
    if len(chosen) < 2:
        raise ValueError("there is one image; expected at least two, for means and standard errors")
    for name in known:
        size = _images_at_once(run, run[name], max_bytes)
        blocks = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        reader = LayerReader(
            run, snapshot=number, blocks=blocks, patch_bytes=_block_bytes(max_bytes), fit_bytes=max_bytes
        )
        found = list(predicted_changes(reader, name))
        skipped += [each for each in found if isinstance(each, Skipped)]
        changes = [each for each in found if isinstance(each, PredictedChange)]
        rows += [_row(change, *scores) for change, scores in zip(changes, _scores(reader, changes), strict=True)]
    return PredictedDamage(
        frame=pd.DataFrame(rows, columns=PredictedDamage.COLUMNS),
        skipped=pd.DataFrame([asdict(each) for each in skipped], columns=["intervention", "layer", "reason"]),
        n_samples=len(chosen),
        snapshot=number,
        epoch=int(run.snapshots["epoch"].iloc[number]),
        not_finite=replace(left_out, samples=np.union1d(left_out.samples, without)),
        passed_over=passed_over,
    )


def _row(change: PredictedChange, scores: torch.Tensor, variance: float) -> tuple[object, ...]:
    """Return a row of `PredictedDamage.frame`, of the scores of all images."""
    found, null, square = scores
    if change.leaves_out:
        found = _geometric_mean(found, null)
    values = [part for each in (found, null, null - found) for part in mean_and_error(each)]
    relative = float(square.mean()) / variance if variance > 0 else float("nan")
    return (change.intervention, change.layer, change.what, change.how, change.amount, *values, relative)


def _geometric_mean(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return values whose mean is the geometric mean of two means, with its standard error (the delta method)."""
    means = first.mean(), second.mean()
    if min(means) <= 0:
        return torch.zeros_like(first)
    return (means[0] * means[1]).sqrt() * (first / means[0] + second / means[1]) / 2


def _scores(reader: LayerReader, changes: Sequence[PredictedChange]) -> list[tuple[torch.Tensor, float]]:
    """Return for each change scores of each image, and the variance of the feature maps.

    The scores, a Tensor of (3, n_samples), are the squares of what the loss changes by in the first order: by the
    change (by each of its elements, added up, where it is what an approximation leaves over) and by noise of its norm;
    and the norm's square.
    """
    found: list[list[torch.Tensor]] = [[] for _ in changes]
    variances: dict[str, float] = {}  # sums of an image's squared deviations from the channels' means
    for at in dict.fromkeys(change.at for change in changes):
        layer = reader.run[at]
        channel_axis = layer.dimensions.index("channel") - 1
        total = squares = torch.zeros((), dtype=torch.float64)
        images = positions = 0
        for values, slope, *before in reader.blocks(layer, gradient=True, given=True):
            by_channel = values.transpose(0, channel_axis).flatten(1).double()
            total, squares = total + by_channel.sum(1), squares + by_channel.square().sum()
            images, positions = images + len(values), positions + by_channel.shape[1]
            del by_channel
            energy = _squared(slope)
            for change, scores in zip(changes, found, strict=True):
                if change.at == at:
                    away = change.difference(values, before[0] if before else None)
                    square = _squared(away)
                    null = square / away[0].numel() * energy
                    products = away.mul_(slope)
                    if change.leaves_out:
                        score = products.flatten(1).sum(1, dtype=torch.float64).square()
                    else:
                        score = _squared(products)
                    scores.append(torch.stack([score, null, square]))
        variances[at] = float(squares - total.square().sum() / positions) / images
    return [(torch.cat(scores, dim=1), variances[change.at]) for change, scores in zip(changes, found, strict=True)]


def _squared(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of each image's squares."""
    return values.flatten(1).square().sum(1).double()


def _images_at_once(run: Run, layer: Layer, max_bytes: int) -> int:
    """Return how many images are read at a time."""
    inputs = run[layer.input.layer] if layer.input is not None and layer.input.layer in run.layers else None
    image = 8 * max(int(np.prod(each.shape[2:])) for each in (layer, inputs) if each is not None)
    row = 0 if inputs is None or layer.kernel is None else patch_bytes(layer, inputs.n_channels)
    if (least := max(_COPIES * image, row)) > max_bytes:
        raise MemoryError(
            f"one image of layer {layer.name!r} takes {least / 2**20:,.0f} MiB while it is changed, the budget is "
            f"{max_bytes / 2**20:,.0f} MiB; raise max_bytes, or leave the layer out"
        )
    return max(1, _block_bytes(max_bytes) // image)


def _block_bytes(max_bytes: int) -> int:
    return min(_BLOCK_BYTES, max_bytes // _COPIES)


def _is_enough(part: pd.DataFrame) -> bool:
    """Return whether something can be said of changes: of layers that are drawn again, too."""
    return part["layer"].nunique() >= _FEWEST_LAYERS


def _rank_correlation(
    part: pd.DataFrame, column: str, n_resamples: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return Spearman's correlation of a column with the divergence measured, and its interval over layers."""
    values = part[[column, "kl"]].to_numpy(np.float64)
    if not _is_enough(part) or (values == values[:1]).all(axis=0).any():  # what is all the same has no ranks
        return float("nan"), float("nan"), float("nan")
    found = float(np.corrcoef(rankdata(values, axis=0).T)[0, 1])
    by_layer = list(part.groupby("layer").indices.values())
    drawn = []
    for _ in range(n_resamples):
        chosen = np.concatenate([by_layer[k] for k in rng.integers(len(by_layer), size=len(by_layer))])
        again = rankdata(values[chosen], axis=0)
        if (again.std(axis=0) > 0).all():
            drawn.append(float(np.corrcoef(again.T)[0, 1]))
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (np.nan, np.nan)
    return found, float(low), float(high)


def _factors_off(part: pd.DataFrame) -> tuple[float, float]:
    """Return by what factor divergences are off a power law of what was predicted, of all layers, and of one left out.

    Changes that do nothing, or of which nothing is predicted, have no logarithm, and do not count.
    """
    part = part[(part["predicted"] > 0) & (part["kl"] > 0)]
    if not _is_enough(part):
        return float("nan"), float("nan")
    x, y = (np.log(part[name].to_numpy(np.float64)) for name in ("predicted", "kl"))
    left_out = np.empty(len(part))
    for rows in part.groupby("layer").indices.values():
        others = np.delete(np.arange(len(part)), rows)
        left_out[rows] = y[rows] - _line(x[others], y[others], at=x[rows])
    inside = y - _line(x, y, at=x)
    return float(np.exp(np.sqrt(np.mean(inside**2)))), float(np.exp(np.sqrt(np.mean(left_out**2))))


def _line(x: np.ndarray, y: np.ndarray, *, at: np.ndarray) -> np.ndarray:
    """Return the values of the least-squares line through points; of equal ones, their mean."""
    away = x - x.mean()
    slope = away @ (y - y.mean()) / max(float(away @ away), 1e-30)
    found: np.ndarray = y.mean() + slope * (at - x.mean())
    return found
