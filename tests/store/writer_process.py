"""A small run of known contents, and a process that writes it and is killed at a moment of choice.

Loaded by the tests for its contents; run by them as ``writer_process.py`` it reads requests, one JSON a line, forks for
each, and answers with what became of the child.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import zarr

from fmcluster.store import LayerSpec, RunWriter
from fmcluster.store.files import _disk as disk
from fmcluster.store.writing import _pending as underway

N_SAMPLES, SHARD, N_SNAPSHOTS = 5, 2, 3
EPOCHS, STEPS = (0, 1, 1), (0, 4, 8)
SPECS = (
    LayerSpec("conv1", (4, 6, 6), "float16", "Conv2d", gradient=True),
    LayerSpec("Conv1", (3,), "float32", "Linear"),
    LayerSpec("blocks.0", (3, 5), "float16", "Block"),
)
FOLDERS = {"conv1": "conv1", "Conv1": "~43onv1", "blocks.0": "blocks.0"}
BATCHES = tuple(slice(at, min(at + SHARD, N_SAMPLES)) for at in range(0, N_SAMPLES, SHARD))


def activation(spec, snapshot):
    """All samples of a layer at a snapshot; the second batch of the third layer's second snapshot is all NaN."""
    seed = 100 * snapshot + SPECS.index(spec)
    values = np.random.default_rng(seed).normal(size=(N_SAMPLES, *spec.shape)).astype(spec.dtype)
    if spec.name == "blocks.0" and snapshot == 1:
        values[BATCHES[1]] = np.nan
    return values


def gradient(spec, snapshot):
    """The same of the gradients; the first batch of the first snapshot is all NaN."""
    seed = 100 * snapshot + 50 + SPECS.index(spec)
    values = np.random.default_rng(seed).normal(size=(N_SAMPLES, *spec.shape)).astype(np.float32)
    if snapshot == 0:
        values[BATCHES[0]] = np.nan
    return values


MAPS = {"activation": activation, "gradient": gradient}


def statistics(spec, snapshot, quantity="activation"):
    return np.arange(6 * spec.n_channels, dtype=float).reshape(6, -1) + snapshot + 10 * (quantity == "gradient")


def all_statistics(snapshot):
    return {
        (spec.name, quantity): statistics(spec, snapshot, quantity) for spec in SPECS for quantity in spec.quantities
    }


def metrics(snapshot):
    return {"loss": 1.0 / (1 + snapshot)} | ({"Late": float(snapshot)} if snapshot else {})


def record(path, *, mode, n_snapshots=N_SNAPSHOTS):
    """Write the run, or go on with it."""
    with RunWriter(path, mode=mode) as writer:
        if writer.is_new:
            writer.create(SPECS, n_samples=N_SAMPLES, shard_samples=SHARD, kind="probe")
        else:
            writer.tidy()
        for snapshot in range(writer.n_snapshots, n_snapshots):
            write_snapshot(writer, snapshot)


def write_snapshot(writer, snapshot):
    write_maps(writer, snapshot)
    if snapshot == 0:
        write_samples(writer)
    writer.commit(
        epoch=EPOCHS[snapshot],
        step=STEPS[snapshot],
        index=np.arange(N_SAMPLES),
        statistics=all_statistics(snapshot),
        metrics=metrics(snapshot),
        clipped={},
    )


def write_maps(writer, snapshot):
    for batch in BATCHES:
        for spec in SPECS:
            for quantity in spec.quantities:
                values = MAPS[quantity](spec, snapshot)[batch]
                blank = np.isnan(values).all()
                writer.write(spec.name, offset=batch.start, values=None if blank else values, quantity=quantity)


def write_samples(writer):
    digests = np.random.default_rng(7).integers(0, 255, (N_SAMPLES, 32), dtype=np.uint8)
    paths = np.array([f"images/{i}.png" for i in range(N_SAMPLES)])
    writer.add_static("samples/sample", np.arange(N_SAMPLES), dimensions=("item",))
    writer.add_static("samples/label", np.arange(N_SAMPLES) % 2, dimensions=("item",))
    writer.add_static("samples/path", paths, dimensions=("item",))
    writer.add_static("samples/digest", digests, dimensions=("item", "byte"))
    for batch in BATCHES:
        writer.add_static(
            "inputs/display",
            pictures()[batch],
            dimensions=("item", "row", "column", "rgb"),
            offset=batch.start,
            length=N_SAMPLES,
        )


def pictures():
    return np.random.default_rng(8).integers(0, 255, (N_SAMPLES, 8, 8, 3), dtype=np.uint8)


class Moments:
    """Reports what a writer does to the disk, and ends the process right before the n-th event of a kind."""

    def __init__(self, path, kill_at, pipe):
        self.path = path
        self.kind, self.left = kill_at
        self.pipe = pipe

    def tick(self, kind, what=""):
        if kind == self.kind:
            if self.left == 0:
                if kind.startswith("torn"):
                    os.truncate(what, Path(what).stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
        os.write(self.pipe, (json.dumps([kind, what]) + "\n").encode())

    def audit(self, event, args):
        if event == "open" and self.is_of_the_run(args[0]):
            if args[1][0] in "wxa" if isinstance(args[1], str) else args[2] & os.O_WRONLY:
                self.tick("open", str(args[0]))
        elif event == "os.truncate" and isinstance(args[0], int):
            self.tick("truncate")
        elif event == "os.rename":
            self.tick("rename", str(args[1]))
        elif event in ("os.remove", "os.rmdir", "os.mkdir"):
            self.tick(event.removeprefix("os."), str(args[0]))

    def is_of_the_run(self, path):
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(f"{self.path}{os.sep}")

    def watch(self):
        sys.addaudithook(self.audit)
        setitem, write_shard = zarr.Array.__setitem__, underway.write_shard

        def watched_fsync(handle):
            self.tick("fsync")

        def watched_setitem(array, selection, value):
            self.tick("chunk")
            folder = Path(self.path) / array.path
            before = {file: file.stat().st_mtime_ns for file in folder.glob("c.*")}
            setitem(array, selection, value)
            written = [f for f in folder.glob("c.*") if f.stat().st_mtime_ns != before.get(f)]
            self.tick("torn chunk" if written else "chunk", str(written[0]) if written else "")

        def watched_write_shard(path, values, **how):
            self.tick("shard", str(path))
            checksums = write_shard(path, values, **how)
            self.tick("torn shard", str(path))
            return checksums

        flush_file_system = disk._flush_file_system

        def watched_syncfs(folder):
            self.tick("syncfs")
            flush_file_system(folder)

        os.fsync = watched_fsync
        disk._flush_file_system = watched_syncfs
        underway.write_shard = watched_write_shard
        zarr.Array.__setitem__ = watched_setitem
        if "://" in str(self.path):
            self.watch_requests()

    def watch_requests(self):
        import obstore

        for name in ("put", "delete"):
            setattr(obstore, name, self.ticking(name, getattr(obstore, name)))

    def ticking(self, name, request):
        def watched(bucket, key, *given, **how):
            what = key if isinstance(key, str) else key[0]
            self.tick(name, what)
            answer = request(bucket, key, *given, **how)
            self.tick(f"after {name}", what)
            return answer

        return watched


def serve():
    for line in sys.stdin:
        request = json.loads(line)
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receive)
            os.environ.update(request["environment"])
            Moments(request["path"], request["kill_at"], send).watch()
            record(request["path"], mode=request["mode"])
            os._exit(0)
        os.close(send)
        with os.fdopen(receive) as pipe:
            events = [json.loads(event) for event in pipe]
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps({"signal": os.waitstatus_to_exitcode(status), "events": events}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
