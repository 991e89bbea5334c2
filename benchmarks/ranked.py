"""In which order should a plan take changes, by measured damage or by what is predicted?

Of changes that were built one by one and retrained (retrained.py): do measured damage, predicted damage, and the damage
that `fm.plan` weighs them by, rank the loss that retraining leaves? Asked of the network on which it was decided which
kinds are ranked by prediction, and of others on which nothing was decided.
"""

from typing import Any

import numpy as np
import pandas as pd
from retrained import QUESTIONS, retrained
from scipy.stats import rankdata, spearmanr
from small_networks import NETWORKS, digits, trained

from fmcluster.decide import Depth
from fmcluster.decide._weigh import BY_PREDICTION

BY_KIND = {"kernel size": "kernel", "separable": "separable", "resolution": "resolution", "width": "narrow"}
OTHERS = "mean of the others"
ORDERS = ("kl", "predicted", "weighed", "position")


def elsewhere(seeds: range) -> dict[str, list[dict[str, Any]]]:
    """Return, by network, a row for each change; depth is not asked for: plans go by its measured damage."""
    asked = [each for each in QUESTIONS if not isinstance(each, Depth)]
    return {name: retrained(trained(name), seeds, questions=asked, pictures=digits) for name in NETWORKS}


def in_order(changes: dict[str, list[dict[str, Any]]], *, n_resamples: int = 1000) -> pd.DataFrame:
    """Return rank correlations with the loss after retraining, by network and kind of change, and of three together.

    Intervals come from drawing the layers again: the changes of one layer stay together. `more` is by how much the
    order of a plan correlates better than measured damage does. `position` is the order of the layers in the network,
    which asks for no measurement. The kinds were chosen by the first network; last come the means of the others, of
    which each is drawn from by itself.
    """
    out: list[dict[str, Any]] = []
    drawn: dict[str, list[np.ndarray]] = {}
    for network, rows in changes.items():
        frame = _known(rows)
        parts = dict(iter(frame.groupby("intervention", sort=False)))
        parts["all three"] = frame[frame["intervention"].map(BY_KIND).isin(BY_PREDICTION)]
        for name, part in parts.items():
            found = _correlations(part)
            again = [_correlations(each) for each in _drawn(part, n_resamples, seed=len(out))]
            more = np.array([each["weighed"] - each["kl"] for each in again])
            drawn.setdefault(name, []).append(more)
            row = {"network": network, "changes": name, "layers": part["layer"].nunique(), **found}
            out.append(row | {"more": found["weighed"] - found["kl"], **_interval(more)})
    if len(changes) > 1:
        _, *others = changes
        for name, more in drawn.items():
            rows = pd.DataFrame([each for each in out if each["changes"] == name and each["network"] in others])
            row = {"network": OTHERS, "changes": name, "layers": int(rows["layers"].sum())}
            means = rows[[*ORDERS, "more"]].mean().to_dict()
            out.append(row | means | _interval(np.mean(more[1:], axis=0)))
    return pd.DataFrame(out).rename(columns={"kl": "measured", "weighed": "as a plan ranks"})


def _interval(values: np.ndarray) -> dict[str, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return {"low of more": float(low), "high of more": float(high)}


def _known(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the changes of which something is predicted, but not of depth; of each kind weighed as a plan does."""
    frame = pd.DataFrame(rows)
    layers = frame.loc[frame["intervention"] == "kernel size", "layer"]  # of all convolutions, as they are called
    order = {name: number for number, name in enumerate(layers)}
    frame["position"], frame["after"] = frame["layer"].map(order), [float(np.mean(each)) for each in frame["losses"]]
    frame = frame[frame["predicted"].notna() & frame["intervention"].isin(list(BY_KIND))].reset_index(drop=True)
    frame["weighed"] = 0.0
    for _, kind in frame.groupby("intervention"):
        at = rankdata(kind["predicted"], method="ordinal") - 1
        frame.loc[kind.index, "weighed"] = np.sort(kind["kl"].to_numpy())[at]
    return frame


def _correlations(part: pd.DataFrame) -> dict[str, float]:
    return {name: float(spearmanr(part[name], part["after"]).statistic) for name in ORDERS}


def _drawn(part: pd.DataFrame, n_resamples: int, *, seed: int) -> list[pd.DataFrame]:
    draw, by_layer = np.random.default_rng(seed), list(part.groupby("layer").indices.values())
    out = []
    for _ in range(n_resamples):
        chosen = np.concatenate([by_layer[k] for k in draw.integers(len(by_layer), size=len(by_layer))])
        out.append(part.iloc[chosen].reset_index(drop=True))
    return out
