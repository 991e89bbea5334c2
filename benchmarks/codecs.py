"""Which compression for feature maps? Size, and speed on the machine at hand, of what a trained ResNet gives.

    python benchmarks/codecs.py demo/run.zarr

Every codec writes and reads the same maps of a run's last snapshot, a shard a layer, in turn, several times over, by
way of the zarrs pipeline and by this package's own writer of shards; what is written is flushed to the disk. Processor
seconds matter as much as seconds: training wants the same cores. Prints a table and writes results/codecs.json.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
import zarr
import zarrs  # noqa: F401  registers the pipeline
from results import FOLDER, machine, write
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from fmcluster import open_run
from fmcluster.store.format._shards import write_shard

LEVELS = (1, -1, -3, -7, -20)  # of Zstandard
CODECS = {
    "none": [],
    "zstd -7": [ZstdCodec(level=-7)],
    "zstd 1": [ZstdCodec(level=1)],
    "zstd 3": [ZstdCodec(level=3)],
    "blosc lz4 1, bitshuffle": [BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle", typesize=2)],
    "blosc lz4 5, shuffle": [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=2)],
    "blosc zstd 1, shuffle": [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=2)],
    "blosc zstd 1, bitshuffle": [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2)],
}


@dataclass(frozen=True)
class Times:
    write: float
    write_processor: float
    read: float | None  # not for the own writer: zarrs reads what either wrote
    size: int


def by_pipeline(maps: dict[str, np.ndarray], codecs: list, chunks: dict[str, tuple[int, ...]]) -> Times:
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
        start, processor = perf_counter(), process_time()
        for name, values in maps.items():
            arrays[name][...] = values
        files = [file for file in Path(folder).rglob("c/**/*") if file.is_file()]
        for file in files:
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        written, processor = perf_counter(), process_time() - processor
        for name in maps:
            arrays[name][...]
        return Times(written - start, processor, perf_counter() - written, sum(f.stat().st_size for f in files))


def by_own_writer(maps: dict[str, np.ndarray], level: int, chunks: dict[str, tuple[int, ...]]) -> Times:
    with tempfile.TemporaryDirectory() as folder:
        start, processor = perf_counter(), process_time()
        for name, values in maps.items():
            write_shard(Path(folder) / name, values, chunks=chunks[name], shard=values.shape, level=level)
        written, processor = perf_counter(), process_time() - processor
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        return Times(written - start, processor, None, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    last = len(run) - 1
    maps = {name: run[name].read(snapshot=last, samples=slice(0, 32)) for name in run.layers}
    chunks = {name: run.stored(f"{run.layer_path(name)}/activation").array.chunks[1:] for name in run.layers}
    total = sum(values.nbytes for values in maps.values())
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    times: dict[str, list[Times]] = {}
    for _ in range(arguments.repeats):
        for name, codecs in CODECS.items():
            times.setdefault(f"zarrs, {name}", []).append(by_pipeline(maps, codecs, chunks))
        for level in LEVELS:
            times.setdefault(f"own, zstd {level}", []).append(by_own_writer(maps, level, chunks))
    rows = [
        {
            "codec": name,
            "size_ratio": measured[0].size / total,
            "write_gb_s": total / median(t.write for t in measured) / 1e9,
            "write_processor_s_per_gb": median(t.write_processor for t in measured) / total * 1e9,
            "read_gb_s": total / median(t.read for t in measured) / 1e9 if measured[0].read else None,
            "write_s": [t.write for t in measured],
            "write_processor_s": [t.write_processor for t in measured],
            "read_s": [t.read for t in measured],
        }
        for name, measured in times.items()
    ]
    for row in rows:
        print(
            f"{row['codec']:32s} size {row['size_ratio']:.3f}  write {row['write_gb_s']:.2f} GB/s, "
            f"{row['write_processor_s_per_gb']:.2f} processor seconds a GB"
            + (f"  read {row['read_gb_s']:.2f} GB/s" if row["read_gb_s"] else "")
        )
    write("codecs", {"machine": machine(), "bytes": total, "rows": rows}, folder=arguments.output)


if __name__ == "__main__":
    main()
