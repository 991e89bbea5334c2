"""Whether choosing is better than chance, over layers: by hand, and in draws where it is not."""

import numpy as np
import pandas as pd
import pytest

from fmcluster.analysis import Damage
from fmcluster.decide._compare_with_chance import compare_with_chance


def changes(below: np.ndarray, *, how: str = "", layers: list[str] | None = None) -> tuple[pd.DataFrame, list]:
    """Changes whose damage and that of random ones add up to 2, of `below`: (n_layers, n_amounts, n_samples)."""
    n_layers, n_amounts, _ = below.shape
    names = [f"l{number}" for number in range(n_layers)] if layers is None else layers
    mean = below.mean(axis=2).ravel()
    frame = pd.DataFrame({"intervention": "width", "how": how, "layer": np.repeat(names, n_amounts)})
    return frame.assign(kl=1 - mean / 2, null_kl=1 + mean / 2), list(below.reshape(-1, below.shape[2]))


def test_means_and_errors_are_those_computed_by_hand() -> None:
    """Two layers of two amounts, four samples. Shares of 2: layers 0.25 and 0.35; samples 0.15, 0.25, 0.35, 0.45."""
    spread = np.array([-0.3, -0.1, 0.1, 0.3])
    below = np.stack([[0.4 + spread, 0.6 + spread], [0.7 + spread, 0.7 + spread]])
    (row,) = compare_with_chance(*changes(below)).to_dict("records")
    layer_error, sample_error = 0.1 / np.sqrt(2) / np.sqrt(2), np.std([0.15, 0.25, 0.35, 0.45], ddof=1) / 2
    assert row["layers"] == 2
    assert row["below_null"] == pytest.approx(0.3)
    assert row["below_null_se"] == pytest.approx(np.hypot(layer_error, sample_error))


def test_each_way_of_choosing_has_a_row_and_what_is_no_single_change_counts_in_none() -> None:
    one, other = np.full((3, 1, 4), 0.5), np.full((3, 1, 4), -0.5)
    frames, values = zip(changes(one, how="l1"), changes(other, how="taylor"), strict=True)
    several, known = changes(one, how="l1", layers=["a, b", "c", "d"])
    nothing = changes(np.zeros((1, 1, 4)), how="taylor")[0].assign(kl=0.0, null_kl=0.0)
    frame = pd.concat([*frames, several, nothing], ignore_index=True)
    found = compare_with_chance(frame, [*values[0], *values[1], known[0], None, None, np.zeros(4)])
    assert found["how"].tolist() == ["l1", "taylor"]
    assert found["layers"].tolist() == [3, 3]
    assert found["below_null"].tolist() == [0.25, -0.25]
    assert compare_with_chance(frame.iloc[:0], []).columns.tolist() == Damage.CHOICES
    assert compare_with_chance(frame, [None] * len(frame)).empty


def test_of_one_layer_no_error_is_known() -> None:
    (row,) = compare_with_chance(*changes(np.full((1, 2, 4), 0.5))).to_dict("records")
    assert np.isnan(row["below_null_se"])


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_where_choosing_is_chance_it_is_seldom_clear(shared: float) -> None:
    """Six layers and 40 samples, whose noise is each layer's own or common to all: at most 2.5 % of draws, and luck."""
    rng = np.random.default_rng(0)
    clear = []
    for _ in range(300):
        layer = rng.normal(0, 0.2, (6, 1, 1))
        sample = np.sqrt(1 - shared) * rng.normal(0, 1, (6, 1, 40)) + np.sqrt(shared) * rng.normal(0, 1, (1, 1, 40))
        (row,) = compare_with_chance(*changes(layer + sample)).to_dict("records")
        clear.append(row["below_null"] > 1.96 * row["below_null_se"])
    assert np.mean(clear) < 0.05
    (row,) = compare_with_chance(*changes(layer + sample + 1.5)).to_dict("records")
    assert row["below_null"] > 1.96 * row["below_null_se"]
