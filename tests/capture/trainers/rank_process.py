"""One of two ranks of a job that a trainer runs, which records as it trains; run by the tests as a process."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import fmcluster as fm

N, BATCH, EPOCHS = 16, 4, 2


def make_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 3))


def make_images() -> TensorDataset:
    generator = torch.Generator().manual_seed(2)
    return TensorDataset(torch.rand(N, 3, 8, 8, generator=generator), torch.arange(N) % 3)


def collated(items: list) -> dict[str, torch.Tensor]:
    images, labels = zip(*items, strict=True)
    return {"images": torch.stack(images), "labels": torch.as_tensor(labels)}


class Classifier(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.net(images)
        return {"loss": cross_entropy(scores, labels), "logits": scores}


def with_lightning(net: nn.Module, folder: Path) -> Mapping[int, Any]:
    import lightning.pytorch as L

    from fmcluster.capture.trainers.lightning import SnapshotCallback

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.states = net, {}

        def on_train_epoch_start(self) -> None:
            self.states[self.current_epoch] = deepcopy(net.state_dict())

        def on_train_end(self) -> None:
            self.states[EPOCHS] = deepcopy(net.state_dict())

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss = cross_entropy(self.net(batch[0]), batch[1])
            self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Module()
    recorder = fm.Recorder(net, folder / "lightning.zarr", probe=make_images(), batch_size=8)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=EPOCHS,
        callbacks=[SnapshotCallback(recorder)],
        enable_model_summary=False,
        **quiet,
    )
    trainer.fit(module, DataLoader(make_images(), batch_size=BATCH))
    return module.states


def with_transformers(net: nn.Module, folder: Path) -> Mapping[int, Any]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from fmcluster.capture.trainers.huggingface import SnapshotCallback

    states = {}

    class Copies(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            states[round(state.epoch)] = deepcopy(net.state_dict())

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            states[EPOCHS] = deepcopy(net.state_dict())

    snapshots = SnapshotCallback(fm.Recorder(net, folder / "transformers.zarr", probe=make_images(), batch_size=8))
    arguments = TrainingArguments(
        output_dir=folder / "out",
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=0.01,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo",
    )
    callbacks = [Copies(), snapshots]
    model = Classifier(net)
    trainer = Trainer(model, arguments, train_dataset=make_images(), data_collator=collated, callbacks=callbacks)
    with snapshots:
        trainer.train()
    return states


def with_accelerate(net: nn.Module, folder: Path) -> Mapping[int, Any]:
    """Both ranks record the batches of the training; rank 0 records a probe."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    loader = DataLoader(fm.with_index(make_images()), batch_size=BATCH)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    model, optimizer, loader = accelerator.prepare(net, optimizer, loader)
    states = {}
    with (
        fm.BatchRecorder(model, folder / "batches.zarr", dataset=make_images(), samples_per_shard=4) as batches,
        fm.Recorder(model, folder / "accelerate.zarr", probe=make_images(), batch_size=8) as probe,
    ):
        for epoch in range(EPOCHS):
            states[epoch] = deepcopy(net.state_dict())
            probe.snapshot(epoch=epoch)
            with batches.epoch(epoch):
                for indices, images, labels in loader:
                    with batches.batch(indices):
                        loss = cross_entropy(model(images), labels)
                        accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
        states[EPOCHS] = deepcopy(net.state_dict())
        probe.snapshot(epoch=EPOCHS)
    return states


TRAINERS: dict[str, Callable[[nn.Module, Path], Mapping[int, Any]]] = {
    "lightning": with_lightning,
    "transformers": with_transformers,
    "accelerate": with_accelerate,
}


def main(name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    states = TRAINERS[name](make_net(), folder)
    rank = int(os.environ["RANK"])
    torch.save(states, folder / f"{name}{rank}.pt")
    (folder / f"{name}{rank}.json").write_text(json.dumps(sorted(states)))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
