"""One of two ranks of a job: records in several ways, and says what came of it; run by the tests as a process."""

import json
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

import fmcluster as fm

N, BATCH, EPOCHS = 24, 4, 2
BATCHES = [list(range(at, at + BATCH)) for at in range(0, N, BATCH)]


def make_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 3))


def make_images() -> TensorDataset:
    generator = torch.Generator().manual_seed(2)
    return TensorDataset(torch.rand(N, 3, 8, 8, generator=generator), torch.arange(N) % 3)


def steps_of(epoch: int) -> list[list[list[int]]]:
    """For each step, the batch of each rank."""
    order = BATCHES[epoch:] + BATCHES[:epoch]
    return [order[at : at + 2] for at in range(0, len(order), 2)]


def record_epoch(recorder, model, optimizer, epoch, *, rank, n_steps=3, at_step=None):
    images, labels = make_images().tensors
    with recorder.epoch(epoch) as metrics:
        for number, batches in enumerate(steps_of(epoch)[:n_steps]):
            if at_step is not None:
                at_step(number)
            indices = batches[rank]
            with recorder.batch(indices):
                nn.functional.cross_entropy(model(images[indices]), labels[indices]).backward()
            optimizer.step()
            optimizer.zero_grad()
        metrics["loss"] = 0.5 + epoch


def said(action) -> str:
    """What an action raised."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found: dict[str, object] = {}

    def recorder(model, name, **options):
        options = {"layers": ["0", "1", "4"], "dataset": make_images(), "samples_per_shard": 8, **options}
        return fm.BatchRecorder(model, folder / name, rank_timeout=60.0, **options)

    def ddp():
        model = DistributedDataParallel(make_model())
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    model, optimizer = ddp()
    everything = ("activation", "gradient", "weight")
    for epoch in range(EPOCHS):  # the second is added to what the first has left
        with recorder(model, "both.zarr", record=everything, mode="a") as recording:
            found[f"last {epoch}"] = recording.last
            record_epoch(recording, model, optimizer, epoch, rank=rank)
    found["exists"] = said(lambda: recorder(model, "both.zarr").__enter__())

    # from here on without gradients that wait for the other rank
    alone = make_model()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    with recorder(alone, "raises.zarr") as recording:
        record_epoch(recording, alone, optimizer, 0, rank=rank)

        def stop(number: int) -> None:
            if rank == 1 and number == 1:
                raise ValueError("no such picture")

        found["raises"] = said(lambda: record_epoch(recording, alone, optimizer, 1, rank=rank, at_step=stop))
        found["batches"] = said(lambda: record_epoch(recording, alone, optimizer, 1, rank=rank, n_steps=3 - rank))
        found["epochs"] = said(lambda: record_epoch(recording, alone, optimizer, 1 + rank, rank=rank))
        record_epoch(recording, alone, optimizer, 1, rank=rank)
    other = nn.Sequential(nn.Conv2d(3, 5 + rank, 3), nn.BatchNorm2d(5 + rank))
    found["model"] = said(lambda: recorder(other, "model.zarr", layers=["0"]).__enter__())
    found["options"] = said(lambda: recorder(alone, "model.zarr", dtype=("float16", "float32")[rank]).__enter__())
    with fm.Recorder(alone, folder / "probe.zarr", probe=make_images(), layers=["0"]) as probe:
        probe.snapshot(epoch=0)
        probe.flush()
        found["probe"] = said(lambda: probe.last_epoch)
    blocker = folder / "blocked"  # a file where a folder has to be, instead of a disk that takes nothing
    if rank == 0:
        blocker.touch()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with recorder(alone, "blocked/deeper/late.zarr", on_error="warn") as recording:
            record_epoch(recording, alone, optimizer, 0, rank=rank)
            if rank == 0:
                blocker.unlink()
            record_epoch(recording, alone, optimizer, 1, rank=rank)
    found["late"] = [str(warning.message) for warning in seen]
    (folder / f"said{rank}.json").write_text(json.dumps(found))

    with fm.BatchRecorder(alone, folder / "dies.zarr", layers=["0"], n_samples=N, rank_timeout=5.0) as recording:
        record_epoch(recording, alone, optimizer, 0, rank=rank)
        if rank == 1:
            os._exit(3)
        found["dies"] = said(lambda: record_epoch(recording, alone, optimizer, 1, rank=rank))
    (folder / f"said{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
