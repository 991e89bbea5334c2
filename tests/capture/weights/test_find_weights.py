"""Checkpoints that people have: weights under keys and prefixes of all kinds."""

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import fmcluster as fm
from fmcluster.capture import choose_weights, find_weights


def make(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


MODEL, OTHER = make(0), make(1)
OWN, EMA = MODEL.state_dict(), OTHER.state_dict()


def behind(prefix: str, state: Any = OWN) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("key", ["ema", "model_ema", "net", "weights", "params", "params_ema", "module", "teacher"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "net.", "encoder_q.", "_orig_mod."])
def test_one_state_dict_is_found_under_any_key_and_prefix(key: str, prefix: str) -> None:
    optimizer = torch.optim.Adam(MODEL.parameters()).state_dict()
    for content in ({key: behind(prefix)}, {"run": {key: behind(prefix), "epoch": 3}, "optimizer": optimizer}):
        found, others = choose_weights(content, like=EMA)
        assert found.weights == OWN
        assert others == []


@pytest.mark.parametrize(
    "content",
    [
        OWN,
        behind("module."),
        behind("module._orig_mod."),
        {"state_dict": behind("model.") | {"criterion.weight": torch.ones(2)}},
        {"model_state_dict": {"model": OWN}},
        AveragedModel(MODEL).state_dict(),
        {name.replace("0.", "0._fsdp_wrapped_module.", 1): value for name, value in OWN.items()},
        {"model": {name: value for name, value in OWN.items() if "num_batches" not in name}},
        {"model": OWN, "model_ema": {name: value.clone() for name, value in OWN.items()}},
        {"a": behind("x."), "b": behind("y.")},
    ],
    ids=["bare", "ddp", "compiled", "lightning", "nested", "averaged", "part", "old", "same", "twice"],
)
def test_what_names_match_is_loaded_without_a_warning(content: Any) -> None:
    found, others = choose_weights(content, like=EMA)
    assert others == []
    model = make(2)
    model.load_state_dict(found.weights)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, OWN[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (behind("student.") | behind("teacher.", EMA), r"'student\.'; names that begin with 'teacher\.'"),
        ({"student": OWN, "teacher": EMA}, "'student'; 'teacher'"),
        ({"state_dict": behind("net.") | behind("ema.", EMA)}, "'state_dict', names that begin with 'net.'"),
        ({"model": OWN, "state_dict": EMA}, "'model'; 'state_dict'"),
    ],
)
def test_of_several_that_differ_none_is_taken(content: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"holds several that fit this model: .*{named}.*pass the state dict"):
        choose_weights(content, like=OWN)


@pytest.mark.slow
def test_the_trained_weights_are_taken_before_their_averages_with_one_warning(tmp_path: Path) -> None:
    probe = [(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(i)), 0) for i in range(4)]
    both = {epoch: {"model": behind("module."), "model_ema": EMA} for epoch in (0, 1)}
    model = copy.deepcopy(OTHER)
    with pytest.warns(
        UserWarning, match=r"epoch 0 holds 'model', names .* which were taken, and 'model_ema'"
    ) as caught:
        fm.replay(model, tmp_path / "both.zarr", checkpoints=both, probe=probe, layers="leaves")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = {epoch: each["model_ema"] for epoch, each in both.items()}
        fm.replay(model, tmp_path / "ema.zarr", checkpoints=chosen, probe=probe, layers="leaves")
    for name, net in (("both", MODEL), ("ema", OTHER)):
        run, images = fm.open_run(tmp_path / f"{name}.zarr"), torch.stack([image for image, _ in probe])
        with torch.no_grad():
            expected = net.eval()(images).half().numpy()
        np.testing.assert_array_equal(run["3"].read(epoch=1), expected)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"epoch": 3, "lr": 0.1}, "its 2 keys are epoch, lr; none of the model's 9 names"),
        (
            {"state_dict": {name: value for name, value in behind("model.").items() if "3." not in name}},
            r"its 1 keys are state_dict; of the model's 9 names 7 are 'state_dict' behind 'model\.', and it lacks 3\.",
        ),
        ([OWN], "it holds a list; expected a state dict"),
        ({}, "it is empty"),
    ],
)
def test_what_does_not_fit_is_said_with_what_there_is(content: Any, told: str) -> None:
    with pytest.raises(ValueError, match=f"does not hold this model's weights: {told}"):
        choose_weights(content, like=OWN)


def test_shapes_tell_where_names_do_not() -> None:
    wide = {name: torch.zeros(2, *value.shape) for name, value in OWN.items()}
    found, others = choose_weights({"head": wide, "net": OWN}, like=EMA)
    assert (found.where, others) == ("'net'", [])
    assert [each.where for each in find_weights({"head": wide}, like=OWN)] == ["'head'"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda value: value.to("meta"), "a tensor without values"),
        (lambda value: value.to_sparse(), "a sparse tensor"),
        (lambda value: value.to(torch.complex64), "complex numbers"),
        (lambda value: value.to(torch.int8), "integers"),
    ],
)
def test_weights_of_another_kind_are_refused_and_not_taken_for_numbers(change: Any, kind: str) -> None:
    own = nn.Linear(2, 3).state_dict()
    with pytest.raises(ValueError, match=f"holds 'weight' as {kind}, where the model has numbers"):
        choose_weights({**own, "weight": change(own["weight"])}, like=own)
    assert choose_weights({**own, "weight": own["weight"].double()}, like=own)[0].weights.keys() == own.keys()
