"""Is what `fm.diagnose` and `fm.ablate` say true? Planted faults, a network that was not trained, and rankings.

    python benchmarks/advice.py        needs FMCLUSTER_DATA: a ResNet-20 of CIFAR-10, and images that it has seen

planted    dead, duplicate and noise channels are planted in convolutions, five seeds: found, missed, false.
control    a network at learning rate 0, whose normalization statistics alone move: which layers are to be frozen?
width      channels removed from each inner convolution by three rankings and at random: divergence of the answers.
cheaper    convolutions whose kernels may be smaller, separable or grouped, or whose maps may be coarser, at no more
           than one point of accuracy and 0.02 nats of loss.

Prints tables and writes results/advice.json.
"""

import argparse
import copy
import os
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from decide import ResNet20
from results import FOLDER, machine, write
from torch import nn
from torch.utils.data import TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

import fmcluster as fm
from fmcluster.decide import Groups, KernelSize, Resolution, Rewind, Separable, Width


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


def control(model: nn.Module, probe: TensorDataset) -> dict[str, Any]:
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
        "layers": len(counts),
        "converged_by_cka": int(counts["converged"].notna().sum()),
        "advised_to_freeze": sum(each.action == "freeze" for each in findings.advice),
        "said_of_feature_maps_alone": sorted({each.action for each in alone.advice}),
    }


def widths(model: nn.Module, probe: TensorDataset) -> tuple[list[dict[str, Any]], float]:
    begin = perf_counter()
    asked = Width(shares=(0.25, 0.5), rankings=("redundancy", "taylor", "l1"))
    frame = fm.ablate(model, probe, interventions=[asked], n_null=2).frame
    seconds = perf_counter() - begin
    frame["share"] = frame["amount"].round(2)
    by = frame.groupby(["share", "how"])["kl"].agg(["mean", "min", "max", "count"]).reset_index()
    null = frame.groupby("share")["null_kl"].agg(["mean", "min", "max", "count"]).reset_index().assign(how="at random")
    return pd.concat([by, null]).to_dict("records"), seconds


def cheaper(model: nn.Module, probe: TensorDataset) -> tuple[list[dict[str, Any]], float]:
    begin = perf_counter()
    asked = [KernelSize(), Separable(), Groups(), Resolution()]
    frame = fm.ablate(model, probe, interventions=asked, n_null=1).frame
    seconds = perf_counter() - begin
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
    return rows, seconds


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
    measured["control"] = control(model, images(100, part="val"))
    print(measured["control"], "\n")
    measured["width"], measured["width_seconds"] = widths(model, probe)
    print(pd.DataFrame(measured["width"]).round(4).to_string(), "\n")
    measured["cheaper"], measured["cheaper_seconds"] = cheaper(model, probe)
    print(pd.DataFrame(measured["cheaper"]).round(2).to_string())
    write("advice", measured, folder=arguments.output)


if __name__ == "__main__":
    main()
