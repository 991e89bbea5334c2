"""What does it cost to record a probe pass? Side by side, in one run, in turn.

    FMCLUSTER_DATA=... python benchmarks/capture.py
    FMCLUSTER_DATA=... python benchmarks/capture.py --max-size 14
    FMCLUSTER_DATA=... python benchmarks/capture.py --memory
    FMCLUSTER_DATA=... python benchmarks/capture.py --profile

ResNet-18 at 224 pixels, its ten children at full resolution, evaluation mode. A pass shows the probe to the model in
batches; each contender (contenders.py) does with the outputs what it does, until everything it writes is on the disk.
Photographs where FMCLUSTER_DATA names them (ants and bees), else noise; weights from --weights, else random. Libraries
to compare with: pip install 'fmcluster[benchmarks]'; those that are missing are left out.

Prints, for each contender, seconds and the ratio to the bare pass of the same round (median, smallest and largest),
bytes on the disk, and which layers it kept wrong, compared with hooks that clone. The `limit` is the largest of the
bare pass, the copy of what is stored to the host (CUDA only) and the write of what is compressed, at the bandwidths
measured in the same round. Writes results/capture-<device>.json.

With --max-size: what is larger is averaged to that many pixels on the device, by each who can; those who keep outputs
whole are left out. Writes results/capture-<device>-<pixels>px.json.

With --memory: how much memory each takes beyond the bare pass (resident.py), over ten snapshots of one Recorder; writes
results/capture-memory-<device>.json. Files go to the system's folder for temporary files (TMPDIR), which has to be on
a disk; ten snapshots of 96 images are about 5 GB.

With --profile: processor seconds of a bare pass and of a recorded one, by what its threads do; means over eight passes
of each, in turn. Writes results/capture-profile-<device>.json. Linux only.
"""

import argparse
import gc
import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from contenders import CONTENDERS, Contender, Fmcluster, size_of
from limits import limit
from resident import CANDIDATES, measure_in_process
from results import FOLDER, machine, write
from setting import Setting, add_arguments, make_setting


def one_pass(contender: Contender) -> tuple[float, int]:
    """Return the seconds of a pass and the bytes that it left on the disk."""
    contender.folder.mkdir(exist_ok=True)
    gc.collect()
    os.sync()  # what others left to be written must not burden this one
    there = size_of(contender.folder)
    contender.before()
    start = perf_counter()
    contender.take()
    seconds = perf_counter() - start
    contender.after()
    return seconds, size_of(contender.folder) - there


def clear(contender: Contender) -> None:
    contender.forget()
    if not contender.one_run:
        shutil.rmtree(contender.folder)


def wrong_layers(contender: Contender, reference: dict[str, np.ndarray]) -> list[str] | None:
    """Return the layers whose values differ from the reference by more than rounding; None where nothing is kept."""
    wrong = []
    for layer, expected in reference.items():
        values = contender.values(layer)
        if values is None:
            return None
        difference = np.abs(values.astype(np.float32) - expected).max() if values.shape == expected.shape else np.inf
        if not difference <= 0.01 * np.abs(expected).max():
            wrong.append(layer)
    return wrong


def take_turns(
    contenders: list[Contender], setting: Setting, *, rounds: int, root: Path
) -> tuple[list[dict[str, Any]], int]:
    """Return a row per contender and one for the limit, and the bytes stored before compression."""
    rows: dict[str, dict[str, Any]] = {
        each.name: {"contender": each.name, "keeps": each.keeps, "seconds": [], "bytes": 0} for each in contenders
    }
    limits: list[dict[str, float]] = []
    reference = setting.reference()
    stored = sum(values.nbytes for values in reference.values())
    for turn in range(-1, rounds):  # the first round warms up, and sees who keeps what it should
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
        start = turn % len(contenders)
        for contender in contenders[start:] + contenders[:start]:
            seconds, rows[contender.name]["bytes"] = one_pass(contender)
            if turn < 0:
                rows[contender.name]["wrong"] = wrong_layers(contender, reference)
            else:
                rows[contender.name]["seconds"].append(seconds)
            clear(contender)
        if turn < 0:
            reference.clear()
        elif Fmcluster.name in rows:
            os.sync()
            forward, compressed = rows["bare"]["seconds"][-1], rows[Fmcluster.name]["bytes"]
            limits.append(limit(root, forward=forward, stored=stored, compressed=compressed))
    if limits:
        seconds_of_limits = [parts["limit"] for parts in limits]
        rows["limit"] = {"contender": "limit", "seconds": seconds_of_limits, "parts": limits}
    for row in rows.values():
        row["ratio"] = [a / b for a, b in zip(row["seconds"], rows["bare"]["seconds"], strict=True)]
    return list(rows.values()), stored


def told(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    if not row.get("installed", True):
        return f"{row['contender']:22s} not installed: {row['why']}"
    ratios, seconds = row["ratio"], median(row["seconds"])
    spread = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    line = f"{row['contender']:22s} {seconds:7.2f} s  ratio {spread:24s}"
    if "parts" in row:
        parts = {name: median(parts[name] for parts in row["parts"]) for name in row["parts"][0] if name != "limit"}
        return line + "  " + ", ".join(f"{name} {value:.2f} s" for name, value in parts.items())
    verdict = "" if row["wrong"] is None else "wrong: " + ", ".join(row["wrong"]) if row["wrong"] else "all right"
    return f"{line} {row['bytes'] / 1e6:8.1f} MB  {verdict:12s}  {row['keeps']}"


def compare(setting: Setting, arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        root = Path(name)
        contenders, missing = [], []
        for number, kind in enumerate(CONTENDERS):
            if arguments.only and kind.name not in ("bare", *arguments.only):
                continue
            if setting.max_size is not None and kind.whole_only:
                continue
            contender = kind(setting, folder=root / str(number))
            try:
                contender.load()
            except ImportError as error:
                missing.append({"contender": kind.name, "installed": False, "why": str(error)})
                continue
            contender.folder.mkdir()
            contender.open()
            opened.callback(contender.close)
            contenders.append(contender)
        rows, stored = take_turns(contenders, setting, rounds=arguments.rounds, root=root)
    for row in (*rows, *missing):
        print(told(row))
    measured = {**described(setting, arguments), "stored_bytes": stored, "rows": [*rows, *missing]}
    by_name = {row["contender"]: row for row in rows}
    if "limit" in by_name:
        pairs = zip(by_name[Fmcluster.name]["seconds"], by_name["limit"]["seconds"], strict=True)
        over = measured["fmcluster_over_limit"] = [a / b for a, b in pairs]
        print(f"fmcluster over limit: {median(over):.3f} ({min(over):.3f} to {max(over):.3f})")
    write(f"capture-{setting.label}", measured, folder=arguments.output)


def compare_memory(setting: Setting, arguments: argparse.Namespace) -> None:
    passed_on = ["--images", str(len(setting.probe)), "--batch-size", str(setting.batch_size)]
    passed_on += ["--max-size", str(setting.max_size)] if setting.max_size else []
    passed_on += ["--weights", arguments.weights] if arguments.weights else []
    rows = []
    for name, kind in CANDIDATES.items():
        if arguments.only and name not in arguments.only:
            continue
        passes = arguments.snapshots if issubclass(kind, Fmcluster) else min(3, arguments.snapshots)
        row = measure_in_process(name, passed_on, passes=passes)
        rows.append(row)
        if not row.get("installed", True):
            print(told(row), flush=True)
            continue
        above = [f"{nbytes / 2**20:.0f}" for nbytes in row["above_bare"]]
        files = row["of_which_mapped_files"][-1] / 2**20
        print(f"{name:26s} bare {row['bare'] / 2**20:.0f} MiB, above it: {' '.join(above)}", end="")
        print(f", {files:.0f} of it files" if files >= 1 else "", end="")
        if "allowed" in row:
            verdict = "within" if max(row["above_bare"]) <= row["allowed"] else "BEYOND"
            pending = f"{row['peak_pending_bytes'] / 2**20:.0f} of {row['max_pending_bytes'] / 2**20:.0f} MiB pending"
            print(f"  ({verdict} {row['allowed'] / 2**20:.0f} MiB; {pending})", end="")
        print(flush=True)
    measured = {**described(setting, arguments), "rows": rows}
    write(f"capture-memory-{setting.label}", measured, folder=arguments.output)


PARTS = {"fmcluster-reduce": "cast and sums", "fmcluster-writer": "encoding, writing, commit"}
FORWARD = "forward pass and hooks"


def processor_seconds() -> Counter[str]:
    """Return the processor seconds of this process so far, by what its threads are for."""
    tick = os.sysconf("SC_CLK_TCK")
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        user, system = (task / "stat").read_text().rpartition(")")[2].split()[11:13]
        name = names.get(int(task.name), "").rstrip("-_0123456789")
        found[PARTS.get(name, FORWARD)] += (int(user) + int(system)) / tick
    return found


def compare_processor(setting: Setting, arguments: argparse.Namespace) -> None:
    passes = 2 if arguments.quick else 8
    with tempfile.TemporaryDirectory() as root:
        contender = Fmcluster(setting, folder=Path(root) / "kept")
        contender.load()
        contender.folder.mkdir()
        contender.open()
        contender.take()  # the first compiles
        rows: dict[str, Counter[str]] = {"bare": Counter(), "recorded": Counter()}
        for _ in range(passes):
            for name, work in (("bare", setting.show), ("recorded", contender.take)):
                before, start = processor_seconds(), perf_counter()
                work()
                rows[name]["wall clock"] += perf_counter() - start
                after = processor_seconds()
                rows[name] += Counter({part: after[part] - before[part] for part in after})
        contender.close()
    means = {name: {part: value / passes for part, value in row.items()} for name, row in rows.items()}
    for name, row in means.items():
        print(f"{name:9s} " + ", ".join(f"{part} {value:.2f} s" for part, value in row.items()))
    write(f"capture-profile-{setting.label}", {**described(setting, arguments), "rows": means}, folder=arguments.output)


def described(setting: Setting, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "machine": machine(),
        "device": setting.label,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "images": len(setting.probe),
        "batch_size": setting.batch_size,
        "max_size": setting.max_size,
        "photographs": "FMCLUSTER_DATA" in os.environ,
        "trained_weights": bool(arguments.weights),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--profile", action="store_true", help="measure what the threads take from the processor")
    parser.add_argument("--snapshots", type=int, help="with --memory, of one Recorder; default: 10")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, help="these contenders, beside the bare pass")
    parser.add_argument("--quick", action="store_true", help="16 images, 2 rounds, 3 snapshots: to try the script out")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the JSON file")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images, arguments.batch_size = arguments.images or 16, arguments.batch_size or 8
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 5)
    arguments.snapshots = arguments.snapshots or (3 if arguments.quick else 10)
    setting = make_setting(arguments)
    kind = compare_memory if arguments.memory else compare_processor if arguments.profile else compare
    kind(setting, arguments)


if __name__ == "__main__":
    main()
