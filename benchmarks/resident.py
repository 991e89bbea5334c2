"""How much memory does a contender of `capture.py` take beyond the bare pass?

`capture.py --memory` runs this file once per contender, so that peaks do not mix. It prints JSON: the peak of the
memory resident in each pass, above the median peak of five bare passes of the same process (with the contender's
libraries loaded, but not at work); and how much of that is files mapped into memory since, such as a compiler's code,
which the system can drop at any time. What is written is not counted, as it is the page cache's. glibc gives what is
freed back to the system at once here (MALLOC_MMAP_THRESHOLD_): what it would keep otherwise differs by 100 MiB between
two bare passes. On CUDA, the device's memory and page-locked memory are told apart; the latter may be counted as
resident, or not.
"""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import torch
from contenders import CONTENDERS, Contender, Fmcluster, FmclusterSmall
from setting import Setting, add_arguments, make_setting

CANDIDATES = {each.name: each for each in (*CONTENDERS, FmclusterSmall) if each.name != "bare"}
_status, _clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(key: str = "VmRSS") -> int:
    """Return the memory resident now, or with "VmHWM" the most since the mark was set back, in bytes."""
    line = next(line for line in _status.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def peak_during(work: Callable[[], None]) -> int:
    """Run something, and return the most memory that was resident meanwhile."""
    try:
        _clear.write_text("5")  # sets the mark back to what is resident now
    except OSError:
        return _sampled_peak(work)
    work()
    return resident("VmHWM")


def _sampled_peak(work: Callable[[], None]) -> int:
    ended, samples = Event(), [resident()]

    def watch() -> None:
        while not ended.wait(0.002):
            samples.append(resident())

    watcher = Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return max(samples)


def measure(kind: type[Contender], setting: Setting, *, passes: int) -> dict[str, Any]:
    before = resident()
    with tempfile.TemporaryDirectory() as root:
        contender = kind(setting, folder=Path(root) / "kept")
        contender.load()
        loaded = resident() - before
        setting.show()
        setting.show()
        bare = median(peak_during(setting.show) for _ in range(5))
        files = resident("RssFile")
        bare_on_device = _device_peak(setting, setting.show)
        contender.folder.mkdir()
        contender.open()
        above, mapped, above_on_device, page_locked = [], [], [], []
        for _ in range(passes):
            contender.before()
            peaks: list[int] = []
            on_device = _device_peak(setting, lambda peaks=peaks: peaks.append(peak_during(contender.take)))
            contender.after()
            contender.forget()
            above.append(int(peaks[0] - bare))
            mapped.append(resident("RssFile") - files)
            if on_device is not None and bare_on_device is not None:
                above_on_device.append(on_device - bare_on_device)
                page_locked.append(torch.cuda.host_memory_stats().get("allocated_bytes.peak", 0))
            if not contender.one_run:
                shutil.rmtree(contender.folder)
                contender.folder.mkdir()
            gc.collect()
        told = {
            "contender": kind.name,
            "loaded": loaded,
            "bare": int(bare),
            "above_bare": above,
            "of_which_mapped_files": mapped,
        }
        if setting.device.type == "cuda":
            told |= {"device_above_bare": above_on_device, "page_locked_peak": page_locked}
        if isinstance(contender, Fmcluster):
            limit, largest = contender.max_pending_bytes, largest_output(setting)
            told |= {
                "max_pending_bytes": limit,
                "peak_pending_bytes": contender.peak_pending_bytes,
                "largest_output": largest,  # a single larger piece passes alone
                "allowed": max(limit, largest) + (64 << 20),
            }
        contender.close()
    return told


def _device_peak(setting: Setting, work: Callable[[], None]) -> int | None:
    if setting.device.type != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated()


def largest_output(setting: Setting) -> int:
    """Return the bytes of the largest output of a batch, as float16."""
    sizes: list[int] = []
    setting.show_with_hooks(lambda _name, output: sizes.append(output.numel() * 2))
    return max(sizes)


def measure_in_process(name: str, arguments: list[str], *, passes: int) -> dict[str, Any]:
    """Measure a contender in a process of its own."""
    command = [sys.executable, __file__, "--contender", name, "--passes", str(passes), *arguments]
    own = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=own)
    told: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return told


def main() -> None:
    if not _status.exists():
        raise SystemExit("memory is read from /proc/self/status, which this system does not have; run it on Linux")
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--contender", choices=CANDIDATES, required=True)
    parser.add_argument("--passes", type=int, required=True)
    arguments = parser.parse_args()
    kind = CANDIDATES[arguments.contender]
    try:
        told = measure(kind, make_setting(arguments), passes=arguments.passes)
    except ImportError as error:
        told = {"contender": kind.name, "installed": False, "why": str(error)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
