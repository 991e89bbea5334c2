"""One of two ranks of a job, started by torchrun: records the same epochs into a folder and into a bucket."""

import json
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fmcluster as fm
from tests.capture.rank_process import make_images, make_model, record_epoch


def record(path: str, *, rank: int, broken: Path | None = None) -> list[str]:
    """Record three epochs, and the last by a recorder that resumes; return what was warned of."""
    model = DistributedDataParallel(make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for epochs in ((0, 1), (2,)):
            with recorder_of(model, path, everything=broken is None) as recording:
                for epoch in epochs:
                    if broken is not None and rank == 0:
                        broken.write_text(str(epoch))  # of which epoch no shard of the second rank gets through
                    dist.barrier()
                    record_epoch(recording, model, optimizer, epoch, rank=rank)
    return [str(warning.message) for warning in seen if issubclass(warning.category, RuntimeWarning | UserWarning)]


def recorder_of(model: nn.Module, path: str, *, everything: bool) -> fm.BatchRecorder:
    return fm.BatchRecorder(
        model,
        path,
        layers=["0", "1", "4"] if everything else ["0"],
        dataset=make_images(),
        samples_per_shard=8,
        record=("activation", "gradient", "weight") if everything else ("activation",),
        mode="a",
        on_error="warn",
        rank_timeout=60.0,
    )


def main(folder: Path, url: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = {
        "folder": record(str(folder / "here.zarr"), rank=rank),
        "bucket": record(url, rank=rank),
        "broken": record(url.replace("run.zarr", "broken.zarr"), rank=rank, broken=folder / "epoch"),
    }
    (folder / f"said{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
