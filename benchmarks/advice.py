"""Is what `fm.diagnose` and `fm.ablate` say true? Planted faults, a network that was not trained, and rankings.

    python benchmarks/advice.py        needs FMCLUSTER_DATA: a ResNet-20 of CIFAR-10, and images that it has seen

planted    dead, twin, noise and swapped channels, in three convolutions for each seed, and three frozen blocks: found,
           missed, false.
control    networks at learning rate 0, with labels at random, diverged, or seen twice: what is advised?
rates      layers that are named as to be frozen at half of a fine-tuning: do they stay as they are to its end?
width      channels removed from each inner convolution by three rankings and at random: divergence of the answers.
cheaper    convolutions whose kernels may be smaller, separable or grouped, or whose maps may be coarser, at no more
           than one point of accuracy and 0.02 nats of loss.
predicted  how the ranks of `fm.predict_damage` agree with those of `fm.ablate`, on images that the network knows by
           heart and on the same with noise, and in small networks that are trained here; of the gradients of the loss,
           and of the margin of the best score.
stability  what two disjoint probes of 100 images say of planted faults, and advise after two fine-tunings.
retrained  how measured and predicted damage rank changes, and how the loss does once each is built and trained on.
ranked     the same of small networks, which are trained here, and of the order in which a plan takes changes.
large      how long it takes to predict what changes of a ResNet-50 do, and to measure the most promising.

Parts are measured two at a time, `large` alone. Prints tables, writes results/advice.json, and from it
docs/evidence.md.
"""

import argparse
import copy
import json
import multiprocessing
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pandas as pd
import torch
from advice_page import page
from large import large
from planted import planted
from ranked import elsewhere, in_order
from resnet20 import ResNet20, pretrained
from results import FOLDER, machine, write
from retrained import agreement, loss, margin, predict, retrained
from small_networks import NETWORKS, OTHERS, digits, trained
from stability import TASKS, on_task, stability
from torch import nn
from torch.utils.data import TensorDataset
from tuned import images, noisy, tune

import fmcluster as fm
from fmcluster.decide import Depth, Groups, KernelSize, Resolution, Rewind, Separable, Width


def controls(model: nn.Module) -> list[dict[str, Any]]:
    """Ask what is advised where nothing follows: on networks that learn nothing, diverge, or are seen twice."""
    probe, data = images(100, part="val"), images(640, part="train")
    permuted = data.tensors[1][torch.randperm(len(data), generator=torch.Generator().manual_seed(1))]
    torch.manual_seed(0)
    cases = {
        "trained, learning rate 0": (model, data, 0.0, 4),
        "untrained, learning rate 0": (ResNet20(10).eval(), data, 0.0, 4),
        "labels at random": (model, TensorDataset(data.tensors[0], permuted), 0.01, 4),
        "diverged (learning rate 1000)": (model, data, 1000.0, 4),
        "two snapshots": (model, data, 0.01, 2),
    }
    return [control(*case, probe=probe, name=name) for name, case in cases.items()]


STRUCTURAL = (Depth(), Width(shares=(0.25, 0.5)), KernelSize(sizes=(1,)))


def control(
    model: nn.Module, data: TensorDataset, rate: float, snapshots: int, *, probe: TensorDataset, name: str
) -> dict[str, Any]:
    shown, states = copy.deepcopy(model), {}
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        with fm.Recorder(shown, path, layers="leaves", probe=probe, dtype="float32") as recorder:
            for epoch in range(snapshots):
                recorder.snapshot(epoch=epoch)
                states[epoch] = copy.deepcopy(shown.state_dict())
                if epoch < snapshots - 1:
                    tune(shown, data, steps=10, rate=rate, generator=generator)
        run = fm.open_run(path)
        row: dict[str, Any] = {"network": name, "snapshots": snapshots}
        alone = fm.diagnose(run)
        counts = alone.layers[alone.layers["counts"]]
        row |= {"layers": len(counts), "converged_by_cka": int(counts["converged"].notna().sum())}
        row["advised"] = sorted({each.action for each in alone.advice})
        try:
            measured = fm.ablate(shown, probe, interventions=[Rewind({0: states[0]}), *STRUCTURAL], n_null=1)
        except ValueError as error:
            row["with_rewinds"] = row["with_changes"] = f"refused: {str(error).split(';')[0][:80]}"
        else:
            told = Counter(each.action for each in fm.diagnose(run, damage=measured).advice)
            row["with_rewinds"] = f"{told['freeze']} layers to freeze"
            asked = ("shorten", "narrow", "kernel")
            row["with_changes"] = ", ".join(f"{told[each]} to {each}" for each in asked if told[each]) or "nothing"
    return row


def rates(model: nn.Module, seeds: range) -> list[dict[str, Any]]:
    """Advise freezing at half of a fine-tuning, and look which layers moved little from there to the end.

    Two of the tasks move early layers, one the head alone; at the larger learning rate, layers go on moving.
    """
    data, probe = images(640, part="train", seed=1), images(100, part="val")
    tasks = {name: on_task(data, name, seed=1) for name in TASKS}
    return [
        _rates(model, task, probe, name=name, rate=rate, seed=seed)
        for rate in (0.01, 0.1)
        for name, task in tasks.items()
        for seed in seeds
    ]


STEPS, MOMENTS = 6, 9


def _rates(
    model: nn.Module, data: TensorDataset, probe: TensorDataset, *, name: str, rate: float, seed: int
) -> dict[str, Any]:
    half = MOMENTS // 2
    with tempfile.TemporaryDirectory() as folder:

        def record(
            path: str, *, rate: float, moments: int, tuned: nn.Module, first: int, go_on: torch.Generator
        ) -> None:
            how: dict[str, Any] = {"layers": re.compile(r".*(conv|bn)\d"), "probe": probe, "max_size": 8}
            with fm.Recorder(tuned, Path(folder) / path, **how) as recorder:
                for moment in range(first, first + moments):
                    recorder.snapshot(epoch=moment, step=STEPS * moment)
                    if moment < first + moments - 1:
                        tune(tuned, data, steps=STEPS, rate=rate, generator=go_on)

        tuned, order = copy.deepcopy(model), torch.Generator().manual_seed(seed)
        record("half.zarr", rate=rate, moments=half + 1, tuned=tuned, first=0, go_on=order)
        record("end.zarr", rate=rate, moments=MOMENTS - half, tuned=tuned, first=half, go_on=order)
        still, order = copy.deepcopy(model), torch.Generator().manual_seed(seed)
        record("rest.zarr", rate=0.0, moments=half + 1, tuned=still, first=0, go_on=order)
        opened = {part: fm.open_run(Path(folder) / f"{part}.zarr") for part in ("half", "end", "rest")}
        steps_left = STEPS * (MOMENTS - 1 - half)
        told = fm.diagnose(opened["half"], at_rest=opened["rest"], steps_left=steps_left)
        named = {each.layer for each in told.advice if each.action == "freeze"}
        by_cka = set(told.layers.loc[told.layers["converged"].notna() & told.layers["counts"], "layer"])
        counts = told.layers.loc[told.layers["counts"], "layer"].tolist()
        cka = fm.similarity(opened["end"], layers=counts)
        stayed = {layer for layer in counts if cka.between_snapshots(layer).to_numpy()[0, -1] >= 0.95}
    return {
        "task": name,
        "learning_rate": rate,
        "seed": seed,
        "layers": len(counts),
        "stayed": len(stayed),
        "named": len(named),
        "named_and_stayed": len(named & stayed),
        "converged": len(by_cka),
        "converged_and_stayed": len(by_cka & stayed),
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


def predicted(model: nn.Module, probe: TensorDataset) -> list[dict[str, Any]]:
    """Compare the ranks of what is predicted with those of what is measured, in this network and in small ones."""
    cases = {("ResNet-20", "known by heart"): (model, probe), ("ResNet-20", "with noise"): (model, noisy(probe, 0.35))}
    for name in (*NETWORKS, *OTHERS):
        small, shown = trained(name), digits(100, part="val")
        tuned = copy.deepcopy(small)
        some = noisy(digits(1000, part="train"), 0.5, seed=1)
        tune(tuned, some, steps=60, rate=0.01, generator=torch.Generator().manual_seed(0))
        cases |= {(name, "digits"): (small, shown), (name, "noisy digits"): (tuned, noisy(shown, 0.5))}
    rows = []
    for (name, images_of), (network, shown) in cases.items():
        asked = [Width(), KernelSize(), Separable(), Groups(), Resolution(), Depth()]
        damage = fm.ablate(network, shown, interventions=asked, n_null=0)
        for of, function in (("loss", loss), ("margin", margin)):
            found = predict(network, shown, function).agreement(damage)
            about = {"network": name, "images": images_of, "gradient of": of, "chosen on": name not in OTHERS}
            rows += [{**about, **row} for row in found.to_dict("records")]
    return rows


def compare_retrained(model: nn.Module, seeds: range) -> dict[str, Any]:
    changes = retrained(model, seeds)
    return {"changes": changes, "agreement": agreement(changes).to_dict("records")}


PARTS: dict[str, Callable[[nn.Module, TensorDataset, range], Any]] = {  # the longest first
    "retrained": lambda model, _probe, seeds: compare_retrained(model, seeds[:2]),
    "ranked": lambda _model, _probe, seeds: {"elsewhere": elsewhere(seeds[:2])},
    "predicted": lambda model, _probe, _seeds: predicted(model, images(100, part="val")),
    "planted": lambda model, _probe, seeds: planted(model, images(100, part="val"), seeds),
    "control": lambda model, _probe, _seeds: controls(model),
    "stability": lambda model, _probe, seeds: stability(model, seeds[:1]),
    "rates": lambda model, _probe, seeds: rates(model, seeds[:3]),
    "width": lambda model, probe, _seeds: widths(model, probe),
    "cheaper": lambda model, probe, _seeds: cheaper(model, probe),
    "large": lambda _model, _probe, _seeds: large(),
}

ALONE = "large"  # its seconds are what it is for
TABLES = {"retrained": "agreement", "ranked": "orders"}  # of parts that keep more than a table


def measure(part: str, n_images: int, n_seeds: int) -> tuple[Any, dict[str, float]]:
    """Return what a part finds, and how long it took; with one thread, as the last bits depend on their number."""
    begin = perf_counter()
    if part != ALONE:
        torch.set_num_threads(1)
    found = PARTS[part](pretrained(), images(n_images, part="val"), range(n_seeds))
    return found, {"seconds": perf_counter() - begin, "processor seconds": process_time()}


def measured_parts(
    parts: Sequence[str], *, n_images: int, n_seeds: int
) -> Iterator[tuple[str, tuple[Any, dict[str, float]]]]:
    """Measure parts, two at a time, each in a process of its own; last and alone that which is about seconds."""
    how: dict[str, Any] = {"max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("spawn")}
    for n_processes, together in ((2, PARTS.keys() - {ALONE}), (1, {ALONE})):
        with ProcessPoolExecutor(n_processes, **how) as pool:
            chosen = [each for each in PARTS if each in together and each in parts]
            begun = {pool.submit(measure, part, n_images, n_seeds): part for part in chosen}
            yield from ((begun[each], each.result()) for each in as_completed(begun))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="the rest stays as it was")
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if "FMCLUSTER_DATA" not in os.environ:
        raise SystemExit("set FMCLUSTER_DATA to the folder of images and weights")
    earlier = arguments.output / "advice.json"
    measured: dict[str, Any] = json.loads(earlier.read_text()) if earlier.exists() else {}
    measured |= {"machine": machine(), "date": str(date.today()), "images": arguments.images}
    measured |= {"seeds": arguments.seeds, "torch": torch.__version__}
    measured.setdefault("took", {})
    begin = perf_counter()
    found = measured_parts(arguments.only, n_images=arguments.images, n_seeds=arguments.seeds)
    for part, (measured[part], measured["took"][part]) in found:
        if {"retrained", "ranked"} <= measured.keys():
            changes = {"ResNet-20": measured["retrained"]["changes"], **measured["ranked"]["elsewhere"]}
            measured["ranked"]["orders"] = in_order(changes).to_dict("records")
        rows = measured[part].get(TABLES[part], []) if part in TABLES else measured[part]
        print(part, pd.DataFrame(rows).round(3).to_string() if rows else "", "", sep="\n", flush=True)
        write("advice", measured, folder=arguments.output)
    if set(arguments.only) == set(PARTS):
        measured["took"]["all parts"] = {"seconds": perf_counter() - begin}
        write("advice", measured, folder=arguments.output)
    if arguments.output == FOLDER:
        (FOLDER.parents[1] / "docs" / "evidence.md").write_text(page(measured))


if __name__ == "__main__":
    main()
