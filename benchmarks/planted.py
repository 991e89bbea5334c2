"""Faults that are planted into the channels and blocks of a network, and how many of them `fm.diagnose` names."""

import copy
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm


def leaves_before(model: nn.Module, names: list[str], probe: TensorDataset) -> dict[str, np.ndarray]:
    """Return what each named module returns, one row per channel in float64, by hooks of its own."""
    kept: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _m, _i, out: kept.__setitem__(name, out.movedim(1, 0).flatten(1).double().numpy())

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        model(probe.tensors[0])
    for handle in handles:
        handle.remove()
    return kept


def planted(model: nn.Module, probe: TensorDataset, seeds: range) -> list[dict[str, Any]]:
    """Plant a fault of each kind into three convolutions of a network, one at a time, and count who is found.

    And freeze three blocks in mid-network, one at a time.
    """
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        draw = np.random.default_rng(seed)
        for layer in sorted(draw.choice(convolutions, 3, replace=False).tolist()):
            rows += _planted(model, probe, layer, seed, draw)
        rows += _frozen(model, probe, seed=seed)
    return rows


def _frozen(model: nn.Module, probe: TensorDataset, *, seed: int) -> Iterator[dict[str, Any]]:
    """Freeze blocks between others that are trained, and count whose convolutions are said to be unchanged."""
    blocks = [name for name in dict(model.named_modules()) if re.fullmatch(r"layer\d\.\d", name)][1:-1]
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    for block in sorted(np.random.default_rng(1000 + seed).choice(blocks, 3, replace=False).tolist()):
        true = {name for name in convolutions if name.startswith(f"{block}.")}
        named = name_frozen(model, probe, block, seed=seed)
        yield {
            "seed": seed,
            "layer": block,
            "fault": "frozen block in mid-network",
            "planted": 1,
            "found": int(true <= named),
            "sound": len(convolutions) - len(true),
            "false": len(named - true),
        }


def name_frozen(model: nn.Module, probe: TensorDataset, block: str, *, seed: int) -> set[str]:
    """Freeze a block over four snapshots, while all else moves, and return the convolutions that did not change."""
    shown, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    convolutions = [name for name, module in shown.named_modules() if isinstance(module, nn.Conv2d)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        record = ("activation", "weight")
        with fm.Recorder(shown, path, layers=convolutions, probe=probe, max_size=8, record=record) as recorder:
            for epoch in range(4):
                recorder.snapshot(epoch=epoch)
                move(shown, but=block, generator=generator)
        advice = fm.diagnose(fm.open_run(path)).advice
    return {each.layer for each in advice if each.action == "unchanged"}


def move(model: nn.Module, *, but: str, generator: torch.Generator) -> None:
    """Move all parameters but a block's by 2 % of their spread, and the statistics of normalizations by 2 %."""
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{but}."):
            parameter.data += 0.02 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and not name.startswith(f"{but}."):
            buffer *= 1 + 0.02 * torch.randn(buffer.shape, generator=generator)


FAULTY = ("dead", "copied", "source", "noise", "first", "second", "scaled")


Said = dict[str, tuple[set[int], set[int], set[int]]]  # by fault: channels that have it, those named, those excused


def _planted(
    model: nn.Module, probe: TensorDataset, layer: str, seed: int, draw: np.random.Generator
) -> Iterator[dict[str, Any]]:
    for fault, (true, named, excused) in name_planted(model, probe, layer, seed=seed, draw=draw).items():
        yield {
            "seed": seed,
            "layer": layer,
            "fault": fault,
            "planted": 1,
            "found": int(true <= named),
            "sound": model.get_submodule(layer).out_channels - len(true),
            "false": len(named - true - excused),
        }


def name_planted(model: nn.Module, probe: TensorDataset, layer: str, *, seed: int, draw: np.random.Generator) -> Said:
    """Plant a fault of each kind into a convolution, over four snapshots, and return which channels are named."""
    after = layer.replace("conv", "bn")
    drawn = draw.permutation(model.get_submodule(layer).out_channels)[: len(FAULTY)]
    at = dict(zip(FAULTY, drawn.tolist(), strict=True))
    shown = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        with fm.Recorder(shown, path, layers=[layer, after], probe=probe) as recorder:
            for epoch in range(4):
                shown.load_state_dict(model.state_dict())
                generator = torch.Generator().manual_seed(100 * seed + epoch)
                plant(shown, layer, after, at, epoch=epoch, generator=generator)
                recorder.snapshot(epoch=epoch)
        channels = fm.diagnose(fm.open_run(path)).channels
    own = leaves_before(model, [layer], probe)
    last = channels[(channels["snapshot"] == 3) & (channels["layer"] == layer)].set_index("channel")
    normalized = channels[(channels["snapshot"] == 3) & (channels["layer"] == after)].set_index("channel")
    every = channels[channels["layer"] == layer]
    correlation = np.corrcoef(own[layer]) - np.eye(len(own[layer]))
    twins = set(np.flatnonzero((correlation > 0.93).any(axis=1)).tolist())
    return {
        "dead": ({at["dead"]}, set(last.index[last["dead"]]), set()),
        "twin": ({at["copied"], at["source"]}, set(last.index[last["duplicate_group"].notna()]), twins),
        "noise": ({at["noise"]}, set(last.index[last["noise"]]), set()),
        "swapped": (
            {at["first"], at["second"]},
            set(every.loc[every["permuted_from"].notna(), "channel"]),
            twins | {at["copied"], at["source"]},
        ),
        "dead by its normalization": (
            {at["scaled"]},
            set(normalized.index[normalized["dead"]]),
            {at["dead"]},
        ),
    }


def plant(
    model: nn.Module, layer: str, after: str, at: dict[str, int], *, epoch: int, generator: torch.Generator
) -> None:
    """Change a convolution and the normalization after it; all other channels move by 2 % of their own weights."""
    weight, normalization = model.get_submodule(layer).weight.data, model.get_submodule(after)

    def drawn() -> torch.Tensor:
        return torch.randn(weight[0].shape, generator=generator)

    for channel in weight:
        channel += 0.02 * channel.std() * drawn()
    weight[at["dead"]] = 0
    weight[at["copied"]] = weight[at["source"]] + 0.1 * weight[at["source"]].std() * drawn()
    weight[at["noise"]] = weight.std() * drawn()
    if epoch >= 2:
        weight[[at["first"], at["second"]]] = weight[[at["second"], at["first"]]]
    normalization.weight.data[at["scaled"]] = 0
    normalization.bias.data[at["scaled"]] = 0
