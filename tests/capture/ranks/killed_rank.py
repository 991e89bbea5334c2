"""One of two ranks, started by torchrun: of the second epoch, one is killed; started again, the job goes on."""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import fmcluster as fm
from tests.capture.rank_process import make_images, make_model, record_epoch


def main(path: str, folder: Path, victim: int) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    first = not (folder / "killed").exists()
    dist.barrier()

    def kill(number: int) -> None:
        if first and rank == victim and number == 1:
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    model = DistributedDataParallel(make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # a model that is loaded again
    recorder = fm.BatchRecorder(
        model, path, layers=["0"], dataset=make_images(), samples_per_shard=8, mode="a", rank_timeout=60.0
    )
    with recorder as recording:
        for epoch in range(recording.last_epoch + 1, 3):
            record_epoch(recording, model, optimizer, epoch, rank=rank, at_step=kill if epoch == 1 else None)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
