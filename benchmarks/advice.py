"""Is what `fm.diagnose` and `fm.ablate` say true? Planted faults, a network that was not trained, and rankings.

    python benchmarks/advice.py        needs FMCLUSTER_DATA: a ResNet-20 of CIFAR-10, and images that it has seen

planted    dead, duplicate and noise channels are planted in convolutions, five seeds: found, missed, false.
control    a network at learning rate 0, whose normalization statistics alone move: which layers are to be frozen?
width      channels removed from each inner convolution by three rankings and at random: divergence of the answers.
cheaper    convolutions whose kernels may be smaller, separable or grouped, or whose maps may be coarser, at no more
           than one point of accuracy and 0.02 nats of loss.
predicted  how the ranks of `fm.predict_damage` agree with those of `fm.ablate`, on images that the network knows by
           heart and on the same with noise; of the gradients of the loss, and of the margin of the best score.
stability  what two disjoint probes of 100 images say: dead and duplicate channels, and layers that may be put back.

Prints tables, writes results/advice.json, and from it docs/evidence.md.
"""

import argparse
import copy
import os
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from decide import ResNet20
from results import FOLDER, machine, write
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

import fmcluster as fm
from fmcluster.decide import Depth, Groups, KernelSize, Resolution, Rewind, Separable, Width


def network() -> nn.Module:
    model = ResNet20(10)
    path = Path(os.environ["FMCLUSTER_DATA"]) / "weights" / "resnet20-12fca82f.th"
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return model.eval()


def images(count: int, *, part: str, seed: int = 0) -> TensorDataset:
    shown = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    folder = ImageFolder(Path(os.environ["FMCLUSTER_DATA"]) / "cifar10_4000" / part, shown)
    chosen = np.random.default_rng(seed).permutation(len(folder))[:count]
    items = [folder[int(number)] for number in chosen]
    return TensorDataset(torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items]))


def planted(model: nn.Module, probe: TensorDataset, seeds: range) -> list[dict[str, Any]]:
    """Plant a fault of each kind into channels of one convolution, and count who is found, missed and wrongly named."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    rows = []
    for seed in seeds:
        draw = np.random.default_rng(seed)
        layer = str(draw.choice(names))
        width = model.get_submodule(layer).out_channels
        dead, copied, source, noise = draw.permutation(width)[:4].tolist()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.zarr"
            shown = copy.deepcopy(model)
            with fm.Recorder(shown, path, layers=[layer], probe=probe) as recorder:
                for epoch in range(4):
                    generator = torch.Generator().manual_seed(100 * seed + epoch)
                    shown.load_state_dict(model.state_dict())
                    weight = shown.get_submodule(layer).weight.data
                    weight += 0.02 * weight.std() * torch.randn(weight.shape, generator=generator)
                    weight[dead] = 0
                    other = weight[source] + 0.1 * weight[source].std() * torch.randn(
                        weight[0].shape, generator=generator
                    )
                    weight[copied] = other
                    weight[noise] = weight.std() * torch.randn(weight[0].shape, generator=generator)
                    recorder.snapshot(epoch=epoch)
            channels = fm.diagnose(fm.open_run(path)).channels
        last = channels[channels["snapshot"] == 3].set_index("channel")
        own = channels_before(model, layer, probe)
        found = {
            "dead": set(last.index[last["dead"]]),
            "noise": set(last.index[last["noise"]]),
            "duplicate": set(last.index[last["duplicate_group"].notna()]),
        }
        true = {"dead": {dead}, "noise": {noise}, "duplicate": {copied, source}}
        for fault, expected in true.items():
            wrong = found[fault] - expected - own[fault]
            rows.append(
                {
                    "seed": seed,
                    "layer": layer,
                    "fault": fault,
                    "planted": 1,
                    "found": int(expected <= found[fault]),
                    "sound": width - len(expected),
                    "false": len(wrong),
                }
            )
    return rows


def channels_before(model: nn.Module, layer: str, probe: TensorDataset) -> dict[str, set[int]]:
    """Return which channels are dead or have a twin before anything is planted, by NumPy."""
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out.detach()))
    with torch.no_grad():
        model(probe.tensors[0])
    handle.remove()
    rows = kept[0].movedim(1, 0).flatten(1).double().numpy()
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    twins = set(np.flatnonzero((correlation > 0.93).any(axis=1)).tolist())
    return {"dead": set(np.flatnonzero(np.ptp(rows, axis=1) < 1e-3).tolist()), "duplicate": twins, "noise": set()}


def control(model: nn.Module, probe: TensorDataset, *, name: str) -> dict[str, Any]:
    """Show a network training images at learning rate 0: its statistics move, and nothing was learned."""
    shown, states = copy.deepcopy(model), {}
    data = images(640, part="train")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        with fm.Recorder(shown, path, layers="leaves", probe=probe) as recorder:
            for epoch in range(4):
                recorder.snapshot(epoch=epoch)
                states[epoch] = copy.deepcopy(shown.state_dict())
                shown.train()
                with torch.no_grad():
                    for batch in data.tensors[0].split(64):
                        shown(batch)
                shown.eval()
        run = fm.open_run(path)
        rewound = fm.ablate(shown, probe, interventions=[Rewind({0: states[0]})], n_null=1)
        findings, alone = fm.diagnose(run, damage=rewound), fm.diagnose(run)
        counts = findings.layers[findings.layers["counts"]]
    return {
        "network": name,
        "layers": len(counts),
        "converged_by_cka": int(counts["converged"].notna().sum()),
        "advised_to_freeze": sum(each.action == "freeze" for each in findings.advice),
        "said_of_feature_maps_alone": sorted({each.action for each in alone.advice}),
    }


def widths(model: nn.Module, probe: TensorDataset) -> list[dict[str, Any]]:
    asked = Width(shares=(0.25, 0.5), rankings=("redundancy", "taylor", "l1"))
    frame = fm.ablate(model, probe, interventions=[asked], n_null=2).frame
    frame["share"] = frame["amount"].round(2)
    by = frame.groupby(["share", "how"])["kl"].agg(["mean", "min", "max", "count"]).reset_index()
    null = frame.groupby("share")["null_kl"].agg(["mean", "min", "max", "count"]).reset_index().assign(how="at random")
    return pd.concat([by, null]).to_dict("records")


def cheaper(model: nn.Module, probe: TensorDataset) -> list[dict[str, Any]]:
    asked = [KernelSize(), Separable(), Groups(), Resolution()]
    frame = fm.ablate(model, probe, interventions=asked, n_null=0).frame
    good = (frame["accuracy"] >= -0.01) & (frame["loss"] + 1.96 * frame["loss_se"] <= 0.02)
    rows = []
    for name, part in frame.assign(good=good).groupby("intervention", sort=False):
        rows.append(
            {
                "intervention": name,
                "layers": int(part["layer"].nunique()),
                "at no more than a point": int(part[part["good"]]["layer"].nunique()),
                "worst layer": part.loc[part["accuracy"].idxmin(), "layer"],
                "its points": 100 * float(part["accuracy"].min()),
            }
        )
    return rows


def margin(outputs: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
    best = outputs.topk(2, dim=1).values
    return (best[:, 0] - best[:, 1]).sum()


def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, reduction="sum")


def predicted(model: nn.Module, probe: TensorDataset) -> list[dict[str, Any]]:
    """Compare the ranks of what is predicted with those of what is measured."""
    noise = torch.randn(probe.tensors[0].shape, generator=torch.Generator().manual_seed(0))
    probes = {"known by heart": probe, "with noise": TensorDataset(probe.tensors[0] + 0.35 * noise, probe.tensors[1])}
    rows = []
    for name, shown in probes.items():
        asked = [Width(), KernelSize(), Resolution(), Depth()]
        damage = fm.ablate(model, shown, interventions=asked, n_null=0)
        for of, function in (("loss", loss), ("margin", margin)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "run.zarr"
                how = {"layers": re.compile(".*"), "record": ("activation", "gradient"), "batch_size": 100}
                with fm.Recorder(model, path, probe=shown, **how) as recorder:
                    recorder.snapshot(epoch=0, loss=function)
                agreement = fm.predict_damage(fm.open_run(path)).agreement(damage)
            rows += [{"images": name, "gradient of": of, **row} for row in agreement.to_dict("records")]
    return rows


def stability(model: nn.Module) -> list[dict[str, Any]]:
    """Ask two disjoint probes of 100 images about a short fine-tuning to new labels."""
    tuned = copy.deepcopy(model)
    data = images(640, part="train", seed=1)
    labels = (data.tensors[1] + 1) % 10
    probes = [TensorDataset(*(tensor[part] for tensor in images(200, part="val").tensors)) for part in HALVES]
    optimizer = torch.optim.SGD(tuned.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    states = {0: copy.deepcopy(tuned.state_dict())}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = [Path(folder) / f"run{number}.zarr" for number in range(2)]
        recorders = [
            stack.enter_context(fm.Recorder(tuned, path, layers="leaves", probe=probe))
            for path, probe in zip(paths, probes, strict=True)
        ]
        for epoch in range(5):
            for recorder in recorders:
                recorder.snapshot(epoch=epoch)
            tuned.train()
            for chosen in torch.randperm(len(labels), generator=generator).split(64):
                optimizer.zero_grad()
                functional.cross_entropy(tuned(data.tensors[0][chosen]), labels[chosen]).backward()
                optimizer.step()
            tuned.eval()
        for recorder in recorders:
            recorder.flush()
        found = [fm.diagnose(fm.open_run(path)).channels for path in paths]
    last = [each[each["snapshot"] == each["snapshot"].max()] for each in found]
    rows = []
    for fault in ("dead", "duplicate_group", "noise"):
        said = []
        for each in last:
            named = each[each[fault].notna() if fault == "duplicate_group" else each[fault]]
            said.append(set(zip(named["layer"], named["channel"], strict=True)))
        rows.append(_jaccard(fault.removesuffix("_group"), *said))
    new = [TensorDataset(probe.tensors[0], (probe.tensors[1] + 1) % 10) for probe in probes]
    harmless = []
    for probe in new:
        frame = fm.ablate(tuned, probe, interventions=[Rewind(states)], n_null=0).frame
        single = frame[frame["what"].str.startswith("weights") & ~frame["layer"].str.contains(",")]
        harmless.append(set(single.loc[single["loss"] + 1.96 * single["loss_se"] <= 0.02, "layer"]))
    rows.append(_jaccard("may be put back alone", *harmless))
    return rows


HALVES = (slice(0, 100), slice(100, 200))


def _jaccard(what: str, one: set[Any], other: set[Any]) -> dict[str, Any]:
    both = len(one | other)
    return {"what": what, "first": len(one), "second": len(other), "jaccard": len(one & other) / both if both else None}


PAGE = """# Evidence

After reading this page you know how far what `fm.diagnose`, `fm.ablate` and `fm.predict_damage` say can be relied
on. The network is a ResNet-20 with published CIFAR-10 weights; the images are CIFAR-10's, {images} of them unless
another number stands there. They are images that the network has seen, which makes its loss small and its
divergences the better measure. `python benchmarks/advice.py` measures all of it and writes this page; last on
{machine}.

## Planted faults

In one convolution, drawn anew for each of {seeds} seeds, one channel is made constant, one the twin of another, one
different at each of four snapshots; weights around them move a little. A fault counts as found where `fm.diagnose`
names it at the last snapshot, and what it names beside it, that was not so before, as false.

{planted}

## Networks that learned nothing

Shown training images at learning rate 0, a network's normalization statistics move, and nothing is learned.

{control}

## Two disjoint probes of 100 images

Of one fine-tuning to permuted labels, 5 snapshots.

{stability}

## Predicted and measured

Rank correlations of `fm.predict_damage` with the divergence that `fm.ablate` measures, over changes of all layers,
with 95 % intervals by drawing layers again; 100 images. `of_relative` is that of the size of the change alone. Of
replacing layers by the identity the prediction says little; measure those.

{predicted}

## Which channels to remove

Divergence (nats) where a share of the channels of one inner convolution is removed and predicted from the others;
mean, least and largest over layers.

{width}

## Cheaper convolutions

Layers that can be replaced at no more than one point of accuracy, and an upper end of the interval of the loss of
0.02 nats.

{cheaper}

What these numbers leave out: retraining afterwards, other networks and data, more than one random start of a
fine-tuning.
"""


def page(measured: dict[str, Any]) -> str:
    planted = (
        pd.DataFrame(measured["planted"]).groupby("fault", sort=False)[["planted", "found", "sound", "false"]].sum()
    )
    tables = {
        name: as_table(pd.DataFrame(measured[name]))
        for name in ("control", "stability", "predicted", "width", "cheaper")
    }
    return PAGE.format(
        images=measured["images"],
        machine=f"{measured['machine']['cpu']}, torch {measured['torch']}",
        seeds=len({row["seed"] for row in measured["planted"]}),
        planted=as_table(planted.reset_index()),
        **tables,
    )


def as_table(frame: pd.DataFrame) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(str, value)) or "nothing"
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return ""
        return (
            f"{value:.2f}"
            if isinstance(value, float) and abs(value) >= 0.1
            else f"{value:.3f}"
            if isinstance(value, float)
            else str(value)
        )

    lines = [
        "| " + " | ".join(str(name).replace("_", " ") for name in frame.columns) + " |",
        "|" + " --- |" * frame.shape[1],
    ]
    lines += ["| " + " | ".join(shown(value) for value in row) + " |" for row in frame.astype(object).to_numpy()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if "FMCLUSTER_DATA" not in os.environ:
        raise SystemExit("set FMCLUSTER_DATA to the folder of images and weights")
    model, probe = network(), images(arguments.images, part="val")
    measured: dict[str, Any] = {"machine": machine(), "images": arguments.images, "torch": torch.__version__}
    found = planted(model, images(100, part="val"), range(arguments.seeds))
    measured["planted"] = found
    print(pd.DataFrame(found).groupby("fault")[["planted", "found", "sound", "false"]].sum().to_string(), "\n")
    torch.manual_seed(0)
    networks = {"trained": model, "untrained": ResNet20(10).eval()}
    measured["control"] = [control(each, images(100, part="val"), name=name) for name, each in networks.items()]
    print(pd.DataFrame(measured["control"]).to_string(), "\n")
    measured["stability"] = stability(model)
    print(pd.DataFrame(measured["stability"]).round(2).to_string(), "\n")
    measured["predicted"] = predicted(model, images(100, part="val"))
    print(pd.DataFrame(measured["predicted"]).round(2).to_string(), "\n")
    measured["width"] = widths(model, probe)
    print(pd.DataFrame(measured["width"]).round(4).to_string(), "\n")
    measured["cheaper"] = cheaper(model, probe)
    print(pd.DataFrame(measured["cheaper"]).round(2).to_string())
    write("advice", measured, folder=arguments.output)
    if arguments.output == FOLDER:
        (FOLDER.parents[1] / "docs" / "evidence.md").write_text(page(measured))


if __name__ == "__main__":
    main()
