"""What does a layer's output cost on a CUDA device before it is copied: the fused kernel beside torch's operations?

    python benchmarks/kernel.py

Outputs of ResNet-18's conv1, layer1 and layer4 for 128 images of 224 pixels; cast to float16 and summed up by channel,
whole and averaged to 14 x 14. Prints the median of --rounds, taken in turn and timed by the device's events, and the
bytes read and written a second, counting each once; `copy` is the device's own copy of the output, which reads and
writes as much as it can. Writes results/kernel-<device>.json.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from results import FOLDER, machine, write
from setting import device_label

from fmcluster.capture.options._options import Reduction
from fmcluster.capture.transfer._reduce import reduce_with_torch
from fmcluster.capture.transfer._reduce_with_triton import reduce_with_triton

SHAPES = {"conv1": (128, 64, 112, 112), "layer1": (128, 64, 56, 56), "layer4": (128, 512, 7, 7)}


def milliseconds(function: Callable[[], Any]) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    torch.cuda._sleep(5_000_000)  # cycles in which all of it is queued, so that the host's time is not counted
    start.record()
    function()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the JSON file")
    arguments = parser.parse_args()
    rows = []
    for layer, shape in SHAPES.items():
        for dtype in (torch.float32, torch.float16):
            for layout in (torch.contiguous_format, torch.channels_last):
                output = torch.randn(shape, device="cuda").to(dtype).to(memory_format=layout)
                rows += compare(layer, output, rounds=arguments.rounds)
    device = torch.cuda.get_device_name()
    measured = {"machine": machine(), "device": device, "torch": torch.__version__, "rows": rows}
    write(f"kernel-{device_label()}", measured, folder=arguments.output)


def compare(layer: str, output: torch.Tensor, *, rounds: int) -> list[dict[str, Any]]:
    sizes = (None, 14) if output.shape[2] > 14 else (None,)
    return [row for size in sizes for row in compare_at(layer, output, size=size, rounds=rounds)]


def compare_at(layer: str, output: torch.Tensor, *, size: int | None, rounds: int) -> list[dict[str, Any]]:
    reduction = Reduction("float16", size=None if size is None else (size, size))
    kept = output[0, 0].numel() if size is None else size * size
    moved = output.nbytes + output.shape[0] * output.shape[1] * kept * 2
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "fused": (partial(reduce_with_triton, output, reduction, clips=True), moved),
        "torch": (partial(reduce_with_torch, output, reduction, clips=True), moved),
        "copy": (output.clone, 2 * output.nbytes),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-3, rounds):  # the first three warm up
        for name, (way, _) in ways.items():
            duration = milliseconds(way)
            if turn >= 0:
                taken[name].append(duration)
    layout = "channels last" if output.stride(1) == 1 else "contiguous"
    rows = []
    for name, (_, nbytes) in ways.items():
        rate = nbytes / median(taken[name]) / 1e6
        row = {"layer": layer, "dtype": str(output.dtype), "layout": layout, "size": size, "way": name}
        rows.append({**row, "milliseconds": taken[name], "gb_per_second": rate})
        times = f"{median(taken[name]):8.3f} ms ({min(taken[name]):.3f} to {max(taken[name]):.3f})"
        print(
            f"{layer:7s} {output.dtype!s:14s} {layout:14s} {size or 'whole'!s:6s} {name:6s} {times}  {rate:6.0f} GB/s"
        )
    return rows


if __name__ == "__main__":
    main()
