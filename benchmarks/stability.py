"""Do two disjoint probes of 100 images name the same channels and layers?

Of planted faults it is compared which channels are named; of fine-tunings to two tasks, what is advised after five
snapshots, with the damage of changes measured on the same probe.
"""

import copy
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from planted import name_planted
from torch import nn
from torch.utils.data import TensorDataset
from tuned import images, noisy, tune

import fmcluster as fm
from fmcluster.decide import Depth, KernelSize, Resolution, Rewind, Width

HALVES = (slice(0, 100), slice(100, 200))
TASKS = ("labels shifted by one", "noise", "animal or vehicle")
VEHICLES = torch.tensor([0, 1, 8, 9])
QUESTIONS = (Width(shares=(0.25, 0.5)), KernelSize(), Resolution(factors=(2,)), Depth())
PLANTED_IN = ("conv1", "layer1.1.conv1", "layer2.0.conv2", "layer3.1.conv1")
Named = set[tuple[str, Any]]


def stability(model: nn.Module, seeds: range) -> list[dict[str, Any]]:
    """Return a row for each kind of finding: how many each probe names, and how many of these both."""
    counts: Counter[tuple[str, str]] = Counter()
    for seed in seeds:
        for layer in PLANTED_IN:
            _count(counts, *_named_faults(model, layer, seed))
        for task in TASKS[:2]:
            _count(counts, *_advised(model, task, seed))
    kinds = sorted({kind for kind, _ in counts})
    return [
        {"what": kind, **{name: counts[kind, name] for name in ("first", "second", "both")}}
        | {"jaccard": counts[kind, "both"] / counts[kind, "either"]}
        for kind in kinds
    ]


def on_task(data: TensorDataset, task: str, *, seed: int) -> TensorDataset:
    """Return images and labels as a task has them; the seed is of the noise."""
    if task == "noise":
        return noisy(data, 0.7, seed=seed)
    pictures, labels = data.tensors
    return TensorDataset(pictures, (labels + 1) % 10 if "shifted" in task else torch.isin(labels, VEHICLES).long())


def _count(counts: Counter[tuple[str, str]], first: Named, second: Named) -> None:
    for name, found in (("first", first), ("second", second), ("both", first & second), ("either", first | second)):
        counts.update((kind, name) for kind, _ in found)


def _named_faults(model: nn.Module, layer: str, seed: int) -> list[Named]:
    out = []
    for part in HALVES:
        probe = TensorDataset(*(tensor[part] for tensor in images(200, part="val").tensors))
        said = name_planted(model, probe, layer, seed=seed, draw=np.random.default_rng(seed))
        out.append({(f"channel: {fault}", at) for fault, (_, named, _) in said.items() for at in named})
    return out


def _advised(model: nn.Module, task: str, seed: int) -> list[Named]:
    """Fine-tune, and return what is advised from each probe."""
    tuned, data = copy.deepcopy(model), on_task(images(640, part="train", seed=1), task, seed=1)
    seen = on_task(images(200, part="val"), task, seed=0)
    probes = [TensorDataset(*(tensor[part] for tensor in seen.tensors)) for part in HALVES]
    generator, start = torch.Generator().manual_seed(seed), copy.deepcopy(tuned.state_dict())
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = [Path(folder) / f"run{number}.zarr" for number in range(2)]
        recorders = [
            stack.enter_context(fm.Recorder(tuned, path, layers="leaves", probe=probe))
            for path, probe in zip(paths, probes, strict=True)
        ]
        for epoch in range(5):
            for recorder in recorders:
                recorder.snapshot(epoch=epoch)
            if epoch < 4:
                tune(tuned, data, steps=10, rate=0.01, generator=generator)
        for recorder in recorders:
            recorder.flush()
        out = []
        for path, probe in zip(paths, probes, strict=True):
            damage = fm.ablate(tuned, probe, interventions=[Rewind({0: start}), *QUESTIONS], n_null=1)
            advice = fm.diagnose(fm.open_run(path), damage=damage).advice
            out.append({(f"layer: {each.action}", each.layer) for each in advice})
        return out
