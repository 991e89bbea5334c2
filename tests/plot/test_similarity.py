"""What the heat maps draw is what they were handed."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from fmcluster.analysis.diagnosis._findings import Findings, Thresholds
from fmcluster.analysis.representation._similarity import Similarity
from fmcluster.plot import drift, similarity


def alike(layers: list[str], epochs: list[int], *, seed: int = 0) -> Similarity:
    labels = pd.DataFrame(
        [(layer, k, epoch, 10 * k) for layer in layers for k, epoch in enumerate(epochs)],
        columns=["layer", "snapshot", "epoch", "step"],
    )
    values = np.random.default_rng(seed).random((len(labels), len(labels)))
    return Similarity(
        values=values,
        rows=labels,
        columns=labels,
        metric="cka",
        debiased=True,
        n_samples=20,
        left_out=np.empty(0, np.int64),
    )


def found(drifts: dict[str, np.ndarray], *, dead: list[tuple[str, int, int]] | None = None) -> Findings:
    """Findings of drifts (n_channels, n_snapshots); channels are numbered 3, 5, 7, ..."""
    rows = [
        {
            "layer": layer,
            "snapshot": k,
            "channel": 2 * place + 3,
            "dead": (layer, 2 * place + 3, k) in (dead or []),
            "drift": value,
        }
        for layer, values in drifts.items()
        for (place, k), value in np.ndenumerate(values)
    ]
    moments = [
        {"layer": layer, "snapshot": k, "epoch": k, "step": 10 * k, "measure": "dead", "value": 0.0}
        for layer, values in drifts.items()
        for k in range(values.shape[1])
    ]
    return Findings(
        frame=pd.DataFrame(moments),
        channels=pd.DataFrame(rows),
        layers=pd.DataFrame(),
        advice=(),
        thresholds=Thresholds(),
    )


def mesh_of(ax: Axes) -> np.ndarray:
    meshes = [each for each in ax.collections if isinstance(each, QuadMesh)]
    assert len(meshes) == 1
    return np.asarray(np.ma.filled(meshes[0].get_array().astype(float), np.nan))


def tick_names(ax: Axes) -> tuple[list[str], list[str]]:
    return [t.get_text() for t in ax.get_yticklabels()], [t.get_text() for t in ax.get_xticklabels()]


def test_layers_stand_against_layers_at_the_last_snapshot_or_another():
    given = alike(["conv1", "layer1", "fc"], [0, 1, 2, 2])
    ax = similarity(given)
    np.testing.assert_allclose(mesh_of(ax), given.between_layers(3).to_numpy())
    assert tick_names(ax) == (["conv1", "layer1", "fc"], ["conv1", "layer1", "fc"])
    assert ax.get_title(loc="left") == "CKA between layers, epoch 2, step 30"
    np.testing.assert_allclose(mesh_of(similarity(given, snapshot=1)), given.between_layers(1).to_numpy())
    np.testing.assert_allclose(mesh_of(similarity(given, epoch=2)), given.between_layers(3).to_numpy())
    np.testing.assert_allclose(mesh_of(similarity(given, epoch=0)), given.between_layers(0).to_numpy())
    assert ax.yaxis_inverted()


def test_snapshots_stand_against_snapshots_of_a_layer():
    given = alike(["conv1", "layer1"], [0, 1, 5])
    ax = similarity(given, layer="layer1")
    np.testing.assert_array_equal(mesh_of(similarity(given, layer=SimpleNamespace(name="layer1"))), mesh_of(ax))
    np.testing.assert_allclose(mesh_of(ax), given.between_snapshots("layer1").to_numpy())
    assert tick_names(ax)[0] == ["epoch 0", "epoch 1", "epoch 5"]
    written = [text.get_text() for text in ax.texts]
    assert written == [f"{value:.2f}" for value in given.between_snapshots("layer1").to_numpy().ravel()]


def test_what_is_not_defined_is_left_grey_and_unwritten():
    given = alike(["a", "b"], [0])
    given.values[0, 1] = np.nan
    given.values[1, 0] = -0.2
    ax = similarity(given)
    np.testing.assert_allclose(mesh_of(ax), given.values)
    assert len(ax.texts) == 3
    assert ax.collections[0].norm.vmin == -0.2


@pytest.mark.parametrize(("least", "start"), [(0.3, 0.0), (0.72, 0.7), (0.999, 0.9), (-0.25, -0.25), (1.0, 0.9)])
def test_the_scale_begins_below_the_least_value_where_all_are_much_alike(least, start):
    given = alike(["a", "b"], [0])
    given.values[:] = 1.0
    given.values[0, 1] = least
    assert similarity(given).collections[0].norm.vmin == pytest.approx(start)


def test_many_snapshots_are_named_in_part_and_their_values_are_left_to_color():
    ax = similarity(alike(["a"], [*range(60)]), layer="a")
    assert not ax.texts
    rows, columns = tick_names(ax)
    assert 2 < len(columns) <= 14
    assert len(rows) <= 40
    assert rows[0] == "epoch 0"
    assert rows[-1] == "epoch 59"


def test_what_there_is_not_is_refused():
    given = alike(["conv1"], [0, 1])
    with pytest.raises(ValueError, match="received layer='conv1' and snapshot=1; expected one of them"):
        similarity(given, layer="conv1", snapshot=1)
    with pytest.raises(ValueError, match="received epoch=1 and snapshot=1; expected one of them"):
        similarity(given, epoch=1, snapshot=1)
    with pytest.raises(ValueError, match="there is no layer 'fc'; expected one of conv1"):
        similarity(given, layer="fc")
    with pytest.raises(ValueError, match="received snapshot=7; expected one of 0, 1: choose one of these"):
        similarity(given, snapshot=7)
    with pytest.raises(ValueError, match="received layer='fc'; expected one of conv1: choose one of these"):
        drift(found({"conv1": np.zeros((2, 2))}), "fc")
    with pytest.raises(ValueError, match="received order='size'; expected 'drift' or 'index'"):
        drift(found({"conv1": np.zeros((2, 2))}), "conv1", order="size")


def test_layers_of_long_names_leave_room_for_the_picture() -> None:
    names = [f"{'stage_with_a_long_name.' * 9}{number}" for number in range(5)]
    ax = similarity(alike(names, [0, 1]), epoch=1)
    figure = ax.get_figure()
    figure.draw_without_rendering()  # what has no room is a warning
    inches = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    assert min(inches.width, inches.height) > 2
