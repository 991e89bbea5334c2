"""Does following a plan pay? Where to tune, and what to leave out, against simple rules at equal cost.

    python benchmarks/decide.py            needs FMCLUSTER_DATA: a ResNet-20 of CIFAR-10, images, ants and bees
    python benchmarks/decide.py --table    renders the table of docs/proof.md from what was measured

tune    five tasks on which another part of the network should be tuned (shifts.py), seven arms (arms.py) that may spend
        equal multiply-adds on forward and backward passes: a step that costs less buys more steps.
shrink  fewer multiply-adds of a forward pass (smaller.py), as many in every arm, retrained for the same steps.

The evidence of a plan (evidence.py) is one fine-tuning of everything with the same seed, and a probe that is neither
trained on nor measured on. Writes results/decide.json after each task and seed, and goes on from there when it is
started again; several processes may share the work (--task), each with a file of its own (--output).
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import smaller
import torch
from arms import ARMS, BATCH_SIZE, RATE, Arm, Trained, accuracy, of_full, train
from evidence import by_evidence, look
from proof_table import rendered
from resnet20 import ResNet20 as ResNet20
from results import FOLDER, machine, write
from shifts import INSECTS, SIZES, Task, make_task
from torch import nn

TASKS = ("noise", "kind", "permuted", "insects", "regrouped")
SHRINK = "plain"
TUNE_FROM = 16  # the first seed: earlier ones were looked at while it was chosen what a plan goes by

Rows = list[dict[str, Any]]


def tune(name: str, seed: int, *, n_steps: int, divide: int = 1) -> Rows:
    """Train every arm of one task with one seed."""
    task = make_task(name, seed, divide=divide)
    budget = of_full(task.start, n_steps)
    rows: Rows = [{"arm": "as it is", "accuracy": accuracy(task.start, task.held_out)}]
    known: dict[Any, dict[str, Any]] = {}

    def run(arm_name: str, arm: Arm) -> nn.Module:
        what = _what(arm) if arm_name in ("head", "head + statistics", "random", "plan") else arm_name
        if what not in known:  # a plan may be what another arm is: the same seed makes the same network
            known[what], model = _measured(train(arm, task.training, budget=budget, seed=seed), task)
        else:
            model = arm.model
        rows.append({"arm": arm_name, **known[what]})
        return model

    def draw() -> np.random.Generator:
        return np.random.default_rng([seed, *name.encode()])

    with tempfile.TemporaryDirectory() as folder:
        seen = look(task, lambda: run("full", ARMS["full"](task, draw())), Path(folder))
    for arm_name, make in ARMS.items():
        if arm_name != "full":
            run(arm_name, make(task, draw()))
    planned = by_evidence(task, seen, seed=seed)
    run("plan", planned)
    rows[-1]["evidence"] = seen.as_record() | {"drawn anew": planned.drawn_anew}
    return [{"task": name, "seed": seed, **row} for row in rows]


def _what(arm: Arm) -> tuple[Any, ...]:
    """Return what is trained, and which normalizations follow the images."""
    trained = tuple(name for name, value in arm.model.named_parameters() if value.requires_grad)
    arm.model.train()
    follow = tuple(name for name, module in arm.model.named_modules() if module.training and "bn" in name)
    return trained, follow, arm.drawn_anew


def _measured(done: Trained, task: Task) -> tuple[dict[str, Any], nn.Module]:
    row = {"accuracy": accuracy(done.model, task.held_out), "steps": done.steps, "multiply_adds": done.multiply_adds}
    return row | {"loss": float(np.mean(done.losses[-4:]))}, done.model


def shrink(
    left: Sequence[tuple[float, int]],
    done: Callable[[Rows], None],
    *,
    n_steps: int,
    measured: smaller.Measured | None = None,
) -> None:
    """Build smaller networks for each budget, and retrain each with every seed."""
    first = make_task(SHRINK, 0)
    measured = smaller.measure(first) if measured is None else measured
    whole = smaller.multiply_adds(first.start)
    for budget in dict.fromkeys(each for each, _ in left):
        plan = smaller.plan(first, measured, budget=budget)
        planned = plan.apply(first.start)
        removed = smaller.share_removed(first, planned)
        evenly = smaller.uniform(first, removed, measured)
        builds: Mapping[str, Callable[[int], nn.Module]] = {
            "plan": lambda _, model=planned: model,
            "uniform": lambda _, model=evenly: model,
            "L1 norm": lambda _, share=removed: smaller.by_norm(first, share),
            "torch-pruning": lambda _, share=removed: smaller.by_torch_pruning(first, share),
            "random": lambda seed, share=removed: smaller.at_random(first, share, np.random.default_rng(seed)),
        }
        for seed in [each for of, each in left if of == budget]:
            task, rows = make_task(SHRINK, seed), []
            for name, build in builds.items():
                model = build(seed)
                before = accuracy(model, task.held_out)
                share = smaller.multiply_adds(model) / whole
                arm = Arm(copy.deepcopy(model))
                after = accuracy(train(arm, task.training, seed=seed, n_steps=n_steps).model, task.held_out)
                row = {"budget": budget, "arm": name, "seed": seed, "share": share, "before": before, "accuracy": after}
                rows.append(row | ({"actions": [str(each) for each in plan.actions]} if name == "plan" else {}))
            done(rows)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row.get("task"), row.get("budget"), row["seed"], row["arm"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*TASKS, "blur", "shrink"], nargs="+", default=[*TASKS, "shrink"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=24, help="of full fine-tuning, that every arm may cost")
    parser.add_argument("--quick", action="store_true", help="one seed, two steps, an eighth of the images")
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--join", type=Path, nargs="+", help="add what other processes wrote")
    parser.add_argument("--table", action="store_true", help="print the table, measure nothing")
    arguments = parser.parse_args()
    path = arguments.output / "decide.json"
    if arguments.table:
        print(rendered(json.loads(path.read_text())))
        return
    torch.set_num_threads(1)
    n_seeds, n_steps, divide = (1, 2, 8) if arguments.quick else (arguments.seeds, arguments.steps, 1)
    setting = {
        "steps": n_steps,
        "batch": BATCH_SIZE,
        "rate": RATE,
        "images": SIZES,
        "insects": INSECTS,
        "divided by": divide,
    }
    measured: dict[str, Any] = {"machine": machine(), "date": date.today().isoformat(), "setting": setting}
    measured |= {"tune": [], "shrink": []}
    for each in [path, *(arguments.join or [])]:
        if each.exists():
            before = json.loads(each.read_text())
            if before["setting"] != setting:
                raise SystemExit(
                    f"{each} was measured with {before['setting']}, not {setting}: choose another --output"
                )
            for part in ("tune", "shrink"):
                known = {_key(row) for row in measured[part]}
                measured[part] += [row for row in before[part] if _key(row) not in known]
    if arguments.join:
        write("decide", measured, folder=arguments.output)
        return

    def keep(part: str, rows: Rows) -> None:
        measured[part] += rows
        write("decide", measured, folder=arguments.output)

    known = {(row["task"], row["seed"]) for row in measured["tune"]}
    for seed in range(TUNE_FROM, TUNE_FROM + n_seeds):
        for name in [each for each in arguments.task if each != "shrink"]:
            if (name, seed) not in known:
                begin = process_time()
                rows = tune(name, seed, n_steps=n_steps, divide=divide)
                print(name, seed, {row["arm"]: round(row["accuracy"], 3) for row in rows}, rows[-1]["evidence"])
                print(f"{process_time() - begin:.0f} processor seconds", flush=True)
                keep("tune", rows)
    shrunk = {(row["budget"], row["seed"]) for row in measured["shrink"]}
    asked = [(budget, seed) for seed in range(1, n_seeds + 1) for budget in smaller.BUDGETS]
    left = [each for each in asked if each not in shrunk]
    if "shrink" in arguments.task and left:
        shrink(left, lambda rows: keep("shrink", rows), n_steps=n_steps)


if __name__ == "__main__":
    main()
