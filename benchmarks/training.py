"""What does recording cost a fine-tuning? Side by side, in one run, in turn.

    FMCLUSTER_DATA=... python benchmarks/training.py

A ResNet-18 is trained, an epoch at a time, on --images of 224 pixels in batches of --batch-size, and is shown a probe
of --probe images before each epoch; weights and photographs as for capture.py. Two questions, two bare epochs:

probe    what does recording all ten children for the probe add to an epoch that shows the probe, and keeps nothing?
         (Goal: at most 3 %.) What is recorded is written while the epoch is trained, and is on the disk at its end.
batches  what does recording every training batch at 14 x 14 add to an epoch without a probe? (Goal: at most 10 %.)

Contenders are this package, hooks that clone with np.save, and TorchLens where it is installed (its forward pass of the
probe). Prints seconds and the ratio to the bare epoch of the same round: median, smallest and largest. Writes
results/training-<device>.json.
"""

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from capture import clear, described, one_pass, told
from contenders import Bare, Contender, Fmcluster, NumpySave, TorchLens, flush
from results import FOLDER, write
from setting import Setting, add_arguments, hooks_on_children, make_setting, photographs
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset


class Training:
    """Epochs of fine-tuning: SGD on photographs with labels of two classes.

    Parameters
    ----------
    setting : Setting
        The model and its device.
    images : Tensor
        What it is trained on, in a new order each epoch.
    batch_size : int
        How many at a time.
    """

    def __init__(self, setting: Setting, images: torch.Tensor, *, batch_size: int) -> None:
        self.setting, self.images, self.batch_size = setting, images, batch_size
        self.labels = torch.arange(len(images)) % 2
        self.optimizer = torch.optim.SGD(setting.model.parameters(), lr=1e-4, momentum=0.9)

    def batches(self) -> list[torch.Tensor]:
        """Return the numbers of the images of each batch of an epoch."""
        return list(torch.randperm(len(self.images)).split(self.batch_size))

    def step(self, numbers: torch.Tensor) -> None:
        device = self.setting.device
        images, labels = self.images[numbers].to(device), self.labels[numbers].to(device)
        cross_entropy(self.setting.model(images), labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def epoch(self) -> None:
        """Train an epoch, and wait for the device."""
        for numbers in self.batches():
            self.step(numbers)
        self.setting.synchronize()


class Epoch(Contender):
    """An epoch of fine-tuning, in which something is recorded, or nothing."""

    question: ClassVar[str]
    training: Training

    def take(self) -> None:
        self.setting.model.eval()
        self.probe()
        self.setting.model.train()
        self.train()

    def probe(self) -> None:
        """Show the probe."""

    def train(self) -> None:
        self.training.epoch()


class BareProbe(Epoch):
    name, keeps, question = "probe: bare", "nothing", "probe"

    def probe(self) -> None:
        Bare.take(self)


class FmclusterProbe(Epoch, Fmcluster):
    name, question = "probe: fmcluster", "probe"

    def probe(self) -> None:
        self._epoch += 1
        self._recorder.snapshot(epoch=self._epoch)

    def train(self) -> None:
        super().train()
        self._recorder.flush()


class ClonesProbe(Epoch, NumpySave):
    name, question = "probe: clones + np.save", "probe"

    def probe(self) -> None:
        NumpySave.take(self)


class TorchLensProbe(Epoch, TorchLens):
    name, question = "probe: TorchLens + np.save", "probe"

    def probe(self) -> None:
        TorchLens.take(self)


class BareBatches(Epoch):
    name, keeps, question = "batches: bare", "nothing", "batches"


class FmclusterBatches(Epoch):
    """A BatchRecorder that stays open: the run grows by one snapshot an epoch."""

    name, question = "batches: fmcluster", "batches"
    keeps, one_run = Fmcluster.keeps, True

    def load(self) -> None:
        from fmcluster import BatchRecorder

        self._make = BatchRecorder

    def open(self) -> None:
        self._epoch = -1
        self._recorder = self._make(
            self.setting.model,
            self.folder / "run.zarr",
            n_samples=len(self.training.images),
            max_size=self.setting.max_size,
        )
        self._recorder.__enter__()

    def train(self) -> None:
        self._epoch += 1
        with self._recorder.epoch(self._epoch):
            for numbers in self.training.batches():
                with self._recorder.batch(numbers):
                    self.training.step(numbers)
        self.setting.synchronize()
        self._recorder.flush()

    def close(self) -> None:
        self._recorder.__exit__(None, None, None)


class ClonesBatches(Epoch, NumpySave):
    name, question = "batches: clones + np.save", "batches"

    def train(self) -> None:
        with hooks_on_children(self.setting.model, self.save):
            super().train()
        flush(self.folder)


CONTENDERS: tuple[type[Epoch], ...] = (
    BareProbe,
    FmclusterProbe,
    ClonesProbe,
    TorchLensProbe,
    BareBatches,
    FmclusterBatches,
    ClonesBatches,
)
GOALS = {"probe": 1.03, "batches": 1.10}


def compare(setting: Setting, training: Training, *, rounds: int, root: Path) -> list[dict[str, Any]]:
    """Return a row per contender: its seconds, and the ratio to the bare epoch of the same question and round."""
    rows: dict[str, dict[str, Any]] = {}
    contenders: list[Epoch] = []
    with ExitStack() as opened:
        for number, kind in enumerate(CONTENDERS):
            row = {"contender": kind.name, "question": kind.question}
            asked = replace(setting, max_size=14) if kind.question == "batches" else setting
            contender = kind(asked, folder=root / str(number))
            contender.training = training
            try:
                contender.load()
            except ImportError as error:
                rows[kind.name] = {**row, "installed": False, "why": str(error)}
                continue
            rows[kind.name] = {**row, "keeps": kind.keeps, "seconds": [], "bytes": 0, "wrong": None}
            contender.folder.mkdir()
            contender.open()
            opened.callback(contender.close)
            contenders.append(contender)
        for turn in range(-1, rounds):  # the first round warms up
            start = turn % len(contenders)
            for contender in contenders[start:] + contenders[:start]:
                seconds, rows[contender.name]["bytes"] = one_pass(contender)
                clear(contender)
                if turn >= 0:
                    rows[contender.name]["seconds"].append(seconds)
    for row in rows.values():
        if row.get("installed", True):
            bare = rows[f"{row['question']}: bare"]["seconds"]
            row["ratio"] = [a / b for a, b in zip(row["seconds"], bare, strict=True)]
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--probe", type=int, default=64, help="images of the probe; default: 64")
    parser.add_argument("--pixels", type=int, default=224, help="height and width of an image; default: 224")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--quick", action="store_true", help="8 + 4 images of 32 pixels, 2 rounds: to try it out")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the JSON file")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images, arguments.batch_size, arguments.probe, arguments.pixels = 8, 4, 4, 32
    rounds = arguments.rounds or (2 if arguments.quick else 3)
    setting = make_setting(arguments)
    images = (
        setting.probe.tensors[0] if arguments.pixels == 224 else photographs(len(setting.probe), size=arguments.pixels)
    )
    batch_size = setting.batch_size
    setting = replace(setting, probe=TensorDataset(photographs(arguments.probe, size=arguments.pixels)), max_size=None)
    training = Training(setting, images, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as root:
        rows = compare(setting, training, rounds=rounds, root=Path(root))
    for row in rows:
        print(told(row))
    about = {"images": len(images), "probe": arguments.probe, "pixels": arguments.pixels, "goals": GOALS}
    write(
        f"training-{setting.label}", {**described(setting, arguments), **about, "rows": rows}, folder=arguments.output
    )


if __name__ == "__main__":
    main()
