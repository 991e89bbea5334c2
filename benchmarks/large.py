"""How long a large network takes: a ResNet-50 on images of 224 pixels, its changes predicted, and the best measured."""

import re
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from retrained import margin
from torch.utils.data import TensorDataset
from torchvision.models import resnet50

import fmcluster as fm
from fmcluster.store import Run

N_IMAGES, N_PROMISING = 16, 3


def large() -> list[dict[str, Any]]:
    """Return a row for each step: seconds on the clock and of the processors, and the largest memory of the process.

    What the weights are does not change how long it takes: they are random, as are the images.
    """
    torch.manual_seed(0)
    model = resnet50(weights=None).eval()
    probe = TensorDataset(torch.randn(N_IMAGES, 3, 224, 224), torch.randint(1000, (N_IMAGES,)))
    rows: list[dict[str, Any]] = []

    def timed(name: str, work: Callable[[], Any], count: Callable[[Any], str]) -> Any:
        begin, used = perf_counter(), process_time()
        found = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        seconds = {"seconds": perf_counter() - begin, "processor seconds": process_time() - used}
        rows.append({"step": name, "images": N_IMAGES, **seconds, "peak GiB": peak, "what": count(found)})
        return found

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        how = {"layers": re.compile(".+"), "record": ("activation", "gradient"), "batch_size": 8}

        def record() -> Run:
            with fm.Recorder(model, path, probe=probe, **how) as recorder:
                recorder.snapshot(epoch=0, loss=margin)
            return fm.open_run(path)

        run = timed("recorded", record, lambda run: f"{len(run.layers)} layers")
        predicted = timed("predicted", lambda: fm.predict_damage(run), lambda found: f"{len(found.frame)} changes")
        how = {"predicted": predicted, "n_promising": N_PROMISING}
        count = f"of {N_PROMISING} layers of each question"
        timed("measured", lambda: fm.ablate(model, probe, **how), lambda found: f"{len(found.frame)} changes {count}")
    return rows
