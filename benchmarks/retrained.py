"""Do damage and its prediction say what a network loses that is really built so, and retrained?

A network is fine-tuned to noisy images. Each change of `fm.ablate` is built by itself and trained on as before, for so
many steps; the ranks of the measured and of the predicted damage are compared with those of the loss on other images.
"""

import copy
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from tuned import images, loss_of, noisy, tune

import fmcluster as fm
from fmcluster.decide import Depth, Intervention, KernelSize, Plan, PredictedDamage, Resolution, Separable, Width
from fmcluster.decide._candidates import action_of
from fmcluster.decide._costs import Costs

QUESTIONS = (
    Width(shares=(0.5,), rankings=("redundancy",)),
    KernelSize(sizes=(1,)),
    Separable(ranks=(1,)),
    Resolution(factors=(2,)),
    Depth(),
)
NOISE = 0.5  # of the images' own spread
KEYS = ["intervention", "layer", "what"]


def retrained(
    model: nn.Module,
    seeds: range,
    *,
    steps: int = 40,
    layers: list[str] | None = None,
    questions: Sequence[Intervention] = QUESTIONS,
    pictures: Callable[..., TensorDataset] = images,
) -> list[dict[str, Any]]:
    """Return a row for each change: damage measured and predicted, and the loss after retraining, of each seed."""
    model = copy.deepcopy(model)
    probe, train, unseen = (
        noisy(pictures(count, part=part, seed=seed), NOISE, seed=seed)
        for count, part, seed in ((100, "val", 0), (1280, "train", 1), (700, "val", 0))
    )
    unseen = TensorDataset(*(tensor[len(probe) :] for tensor in unseen.tensors))
    tune(model, train, steps=3 * steps, rate=0.01, generator=torch.Generator().manual_seed(0))
    damage = fm.ablate(model, probe, interventions=questions, layers=layers, n_null=0)
    measured = damage.frame[~damage.frame["layer"].str.contains(", ")]
    predicted = predict(model, probe, margin).frame.drop_duplicates(KEYS)[[*KEYS, "predicted"]]
    before = Costs(**damage.costs)
    rows = []
    for row in measured.merge(predicted, on=KEYS, how="left").to_dict("records"):
        losses = []
        for seed in seeds:
            plan = Plan((action_of(row, costs=before),), "forward", None, None, before, before)
            built = plan.apply(model, probe=probe)
            tune(built, train, steps=steps, rate=0.01, generator=torch.Generator().manual_seed(1 + seed))
            losses.append(loss_of(built, unseen))
        rows.append({**{key: row[key] for key in (*KEYS, "kl", "predicted", "forward_share")}, "losses": losses})
    return rows


def agreement(rows: list[dict[str, Any]], *, n_resamples: int = 1000) -> pd.DataFrame:
    """Return rank correlations with the loss after retraining, with 95 % intervals by drawing the changes again.

    `seeds` is that of the loss with the loss after training on batches in another order: what chance leaves to be
    predicted.
    """
    frame, draw, out = pd.DataFrame(rows), np.random.default_rng(0), []
    losses = np.array(frame["losses"].tolist())
    for name, part in frame.groupby("intervention", sort=False):
        here = losses[part.index]
        row: dict[str, Any] = {"intervention": name, "changes": len(part)}
        for what in ("kl", "predicted"):
            known = part[what].notna().to_numpy()
            pairs = np.column_stack([part[what], here.mean(axis=1)])[known]
            row[{"kl": "measured"}.get(what, what)], low, high = _rank_correlation(pairs, n_resamples, draw)
            row[f"low of {what}"], row[f"high of {what}"] = low, high
        row["seeds"] = float(spearmanr(here[:, 0], here[:, 1]).statistic) if here.shape[1] > 1 else None
        out.append(row)
    return pd.DataFrame(out).rename(columns=lambda name: name.replace("of kl", "of measured"))


def _rank_correlation(
    pairs: np.ndarray, n_resamples: int, draw: np.random.Generator
) -> tuple[float | None, float | None, float | None]:
    if len(pairs) < 4:
        return None, None, None
    drawn = [pairs[draw.integers(len(pairs), size=len(pairs))] for _ in range(n_resamples)]
    values = [spearmanr(*each.T).statistic for each in drawn if len(np.unique(each[:, 0])) > 1]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(spearmanr(*pairs.T).statistic), float(low), float(high)


def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy, summed over samples."""
    return functional.cross_entropy(outputs, targets, reduction="sum")


def margin(outputs: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
    """Return by how much the best score is ahead of the next, summed over samples."""
    best = outputs.topk(2, dim=1).values
    return (best[:, 0] - best[:, 1]).sum()


def predict(
    model: nn.Module, probe: TensorDataset, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> PredictedDamage:
    """Predict damage from all feature maps and the gradients of a function of outputs and labels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        how = {"layers": re.compile(".*"), "record": ("activation", "gradient"), "batch_size": 100}
        with fm.Recorder(model, path, probe=probe, **how) as recorder:
            recorder.snapshot(epoch=0, loss=function)
        return fm.predict_damage(fm.open_run(path))
