"""Which compression for feature maps? Size, and speed on the machine at hand, of what a trained ResNet gives.

    python benchmarks/codecs.py demo/run.zarr

Every codec writes and reads the same maps of a run's last snapshot, a shard a layer, through the zarrs pipeline, in
turn, several times over. Prints a table and writes results/codecs.json.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import zarr
import zarrs  # noqa: F401  registers the pipeline
from results import machine, write
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from fmcluster import open_run

CODECS = {
    "none": [],
    "zstd 1": [ZstdCodec(level=1)],
    "zstd 3": [ZstdCodec(level=3)],
    "blosc lz4 1, bitshuffle": [BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle", typesize=2)],
    "blosc lz4 5, shuffle": [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=2)],
    "blosc zstd 1, shuffle": [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=2)],
    "blosc zstd 1, bitshuffle": [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2)],
}


def measure(maps: dict[str, np.ndarray], codecs: list, chunks: dict[str, tuple[int, ...]]) -> tuple[float, float, int]:
    with tempfile.TemporaryDirectory() as folder:
        arrays = {
            name: zarr.create_array(
                folder,
                name=name,
                shape=values.shape,
                dtype=values.dtype,
                shards=values.shape,
                chunks=chunks[name],
                fill_value=float("nan"),
                compressors=[*codecs, Crc32cCodec()],
            )
            for name, values in maps.items()
        }
        start = perf_counter()
        for name, values in maps.items():
            arrays[name][...] = values
        written = perf_counter()
        for name in maps:
            arrays[name][...]
        size = sum(file.stat().st_size for file in Path(folder).rglob("c/**/*") if file.is_file())
        return written - start, perf_counter() - written, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    last = len(run) - 1
    maps = {name: run[name].read(snapshot=last, samples=slice(0, 32)) for name in run.layers}
    chunks = {name: run.stored(f"{run.layer_path(name)}/activation").array.chunks[1:] for name in run.layers}
    total = sum(values.nbytes for values in maps.values())
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    times: dict[str, list[tuple[float, float, int]]] = {name: [] for name in CODECS}
    for _ in range(arguments.repeats):
        for name, codecs in CODECS.items():
            times[name].append(measure(maps, codecs, chunks))
    rows = [
        {
            "codec": name,
            "size_ratio": measured[0][2] / total,
            "write_gb_s": total / median(t[0] for t in measured) / 1e9,
            "read_gb_s": total / median(t[1] for t in measured) / 1e9,
            "write_s": [t[0] for t in measured],
            "read_s": [t[1] for t in measured],
        }
        for name, measured in times.items()
    ]
    for row in rows:
        speeds = f"write {row['write_gb_s']:.2f} GB/s  read {row['read_gb_s']:.2f} GB/s"
        print(f"{row['codec']:26s} size {row['size_ratio']:.3f}  {speeds}")
    write("codecs", {"machine": machine(), "bytes": total, "rows": rows})


if __name__ == "__main__":
    main()
