"""Rewinding: each layer by itself gets earlier weights, or earlier statistics."""

import copy

import pytest
import torch

import fmcluster as fm
from fmcluster.decide import Rewind


def test_each_layer_alone_is_put_back(residual, probe) -> None:
    state = copy.deepcopy(residual.state_dict())
    state["block1.conv1.weight"] += 0.2
    state["bn.running_mean"] += 0.3
    frame = fm.ablate(residual, probe, interventions=[Rewind({3: state})], n_null=0).frame
    frame = frame[~frame["layer"].str.contains(", ")]
    moved = frame[frame["kl"] > 0]
    assert moved[["layer", "what"]].values.tolist() == [
        ["bn", "statistics of epoch 3"],
        ["block1.conv1", "weights of epoch 3"],
    ]
    other = copy.deepcopy(residual)
    other.load_state_dict({**residual.state_dict(), "block1.conv1.weight": state["block1.conv1.weight"]})
    other.eval()
    residual.eval()
    with torch.no_grad():
        p, q = (model(probe.tensors[0]).double().log_softmax(1) for model in (residual, other))
    found = frame.set_index("layer").loc["block1.conv1", "kl"]
    assert found == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-4)


def test_the_least_harmful_are_put_back_together(residual, probe) -> None:
    state = {
        name: value + 0.05 if value.is_floating_point() else value for name, value in residual.state_dict().items()
    }
    layers = ["stem", "block1", "head"]
    frame = fm.ablate(residual, probe, interventions=[Rewind({3: state})], layers=layers, n_null=0).frame
    single = frame[frame["layer"].isin(layers) & frame["what"].str.startswith("weights")].sort_values("kl")
    ordered = single["layer"].tolist()
    assert frame["layer"].tolist()[-3:] == [", ".join(ordered[:2]), ", ".join(ordered), "stem, block1"]
    assert frame["how"].tolist()[-3:] == ["", "", "from the first layer up"]
    together, lowest = frame.iloc[-2], frame.iloc[-1]
    alone = single.set_index("layer")["backward_share"]
    assert lowest["backward_share"] == pytest.approx(2 * alone[["stem", "block1"]].sum())  # of the inputs, too
    assert together["backward_share"] == pytest.approx(alone.sum())
    other = copy.deepcopy(residual)
    names = [name for name, _ in residual.named_parameters() if name.split(".")[0] in layers]
    other.load_state_dict({**residual.state_dict(), **{name: state[name] for name in names}})
    with torch.no_grad():
        p, q = (model.eval()(probe.tensors[0]).double().log_softmax(1) for model in (residual, other))
    assert together["kl"] == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-4)


def test_a_module_that_is_named_is_put_back_with_all_that_it_holds(residual, probe) -> None:
    now = copy.deepcopy(residual.state_dict())
    before = {name: value + 0.1 if value.is_floating_point() else value for name, value in now.items()}
    frame = fm.ablate(residual, probe, interventions=[Rewind({0: before})], layers=["block2"], n_null=0).frame
    assert frame["layer"].tolist() == ["block2", "block2"]  # weights and statistics
    assert frame["epoch"].tolist() == [0, 0]
    other = copy.deepcopy(residual)
    weights = {name: before[name] for name, _ in residual.named_parameters() if name.startswith("block2.")}
    other.load_state_dict({**now, **weights})
    with torch.no_grad():
        p, q = (model.eval()(probe.tensors[0]).double().log_softmax(1) for model in (residual, other))
    assert frame["kl"].iloc[0] == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-4)


@pytest.mark.slow
def test_states_of_a_run_are_those_that_were_recorded(residual, probe, tmp_path) -> None:
    with fm.Recorder(
        residual, tmp_path / "run.zarr", layers=["stem"], probe=probe, record=("activation", "weight")
    ) as recorder:
        state = copy.deepcopy(residual.state_dict())
        recorder.snapshot(epoch=0)
        with torch.no_grad():
            for parameter in residual.parameters():
                parameter += 0.05
        recorder.snapshot(epoch=1)
    run = fm.open_run(tmp_path / "run.zarr")
    found, expected = (
        fm.ablate(residual, probe, interventions=[rewind], n_null=0)
        for rewind in (Rewind.of(run, epochs=[0]), Rewind({0: state}))
    )
    assert found.frame.equals(expected.frame)
    assert found.skipped.empty
    with pytest.raises(ValueError, match="no snapshot was taken in epoch 3"):
        Rewind.of(run, epochs=[3])
    states = Rewind.of(run, epochs=[1]).states[1]
    assert len(states) == len(list(states)) == len(run.weight_names)
    with pytest.raises(KeyError):
        states["unknown"]


@pytest.fixture
def within(residual, probe, tmp_path):
    """A run of three snapshots in epoch 0, at steps 0, 10 and 20, and one in epoch 1; and the states."""
    states = []
    with fm.Recorder(
        residual, tmp_path / "run.zarr", layers=["stem"], probe=probe, record=("activation", "weight")
    ) as recorder:
        for epoch, step in ((0, 0), (0, 10), (0, 20), (1, 30)):
            recorder.snapshot(epoch=epoch, step=step)
            states.append(copy.deepcopy(residual.state_dict()))
            with torch.no_grad():
                for parameter in residual.parameters():
                    parameter += 0.02 * torch.randn_like(parameter)
    return fm.open_run(tmp_path / "run.zarr"), states


def test_snapshots_within_an_epoch_are_put_back(residual, probe, within) -> None:
    run, states = within
    asked = {"layers": ["stem", "head"], "n_null": 0}
    frame = fm.ablate(residual, probe, interventions=[Rewind.of(run, snapshots=[0, 1, 3])], **asked).frame
    weights = frame[frame["what"].str.startswith("weights") & ~frame["layer"].str.contains(", ")]
    assert weights[["layer", "what"]].values.tolist() == [
        [layer, f"weights of epoch {when}"] for layer in ("stem", "head") for when in ("0 (step 0)", "0 (step 10)", "1")
    ]
    assert weights["epoch"].tolist() == [0, 0, 1] * 2
    assert weights["step"].fillna(-1).tolist() == [0, 10, -1] * 2
    together = frame[frame["layer"].str.contains(", ")]
    assert together["what"].tolist() == [
        f"weights of epoch {when}, 2 layers together" for when in ("0 (step 0)", "0 (step 10)", "1")
    ]
    by_hand = Rewind({(0, 0): states[0], (0, 10): states[1], 1: states[3]})
    assert fm.ablate(residual, probe, interventions=[by_hand], **asked).frame.equals(frame)
    assert frame.loc[frame["layer"] == "stem", "kl"].nunique() == 3


def test_the_last_snapshot_of_an_epoch_of_several_is_named_by_its_step(within) -> None:
    run, _ = within
    assert list(Rewind.of(run, epochs=[0, 1]).states) == [(0, 20), 1]
    assert Rewind.of(run, epochs=[0]).states[0, 20]["stem.bias"].tolist() == within[1][2]["stem.bias"].tolist()
    assert list(Rewind.of(run, snapshots=[2]).states) == [(0, 20)]


def test_the_end_of_a_later_epoch_is_the_epoch_whatever_lies_within_it(residual, probe, tmp_path) -> None:
    how = {"probe": probe, "layers": ["head"], "record": ("activation", "weight")}
    with fm.Recorder(residual, tmp_path / "run.zarr", **how) as recorder:
        for epoch, step in ((0, 0), (1, 5), (1, 10)):
            recorder.snapshot(epoch=epoch, step=step)
    run = fm.open_run(tmp_path / "run.zarr")
    assert list(Rewind.of(run, epochs=[0, 1]).states) == [0, 1]
    assert list(Rewind.of(run, snapshots=[0, 1, 2]).states) == [0, (1, 5), 1]


@pytest.mark.parametrize("asked", [{}, {"epochs": [0], "snapshots": [0]}])
def test_epochs_or_snapshots_are_put_back(within, asked) -> None:
    with pytest.raises(ValueError, match="pass either epochs or snapshots; received epochs="):
        Rewind.of(within[0], **asked)


def test_a_snapshot_that_is_not_in_the_run_is_refused(within) -> None:
    with pytest.raises(ValueError, match="snapshot 4 is not in the run; it has 0 to 3"):
        Rewind.of(within[0], snapshots=[4])


def test_a_run_without_weights_is_refused(residual, probe, tmp_path) -> None:
    with fm.Recorder(residual, tmp_path / "run.zarr", layers=["stem"], probe=probe) as recorder:
        recorder.snapshot(epoch=0)
    with pytest.raises(ValueError, match="holds no weights; record them"):
        Rewind.of(fm.open_run(tmp_path / "run.zarr"), epochs=[0])


def test_a_state_of_another_network_is_named(residual, probe) -> None:
    state = {name: value for name, value in residual.state_dict().items() if not name.startswith("head")}
    damage = fm.ablate(residual, probe, interventions=[Rewind({0: state})], n_null=0)
    assert damage.skipped.values.tolist() == [
        ["rewind", "head", "the state of epoch 0 has no head.weight of its shape"]
    ]
