"""Where benchmarks put what they measured, on what machine, and how it is told."""

import json
import os
import platform
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Name the machine: processor, cores, memory, Python."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory), "python": platform.python_version()}


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Return the median, and the range where it is one."""
    ordered = sorted(values)
    low, middle, high = (f"{value:.{digits}f}" for value in (ordered[0], median(ordered), ordered[-1]))
    return middle if low == high else f"{middle} ({low} to {high})"


def write(name: str, measured: dict[str, Any], *, folder: Path = FOLDER) -> None:
    """Write a benchmark's numbers as JSON, with the date."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"date": date.today().isoformat(), **measured}, indent=1) + "\n")
    print(f"written to {path}")
