"""Ways to keep what a model's children return: `capture.py` lets them take turns."""

import os
from collections import Counter, defaultdict
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from setting import Setting
from torchvision.models.feature_extraction import create_feature_extractor


class Contender:
    """One way to do it. Only `take` is timed.

    Parameters
    ----------
    setting : Setting
        What is shown.
    folder : Path
        Where `take` leaves its files.
    """

    name: ClassVar[str]
    keeps: ClassVar[str]
    whole_only: ClassVar[bool] = False  # whether it keeps outputs as they are, and cannot average them
    one_run: ClassVar[bool] = False  # whether all passes go into one run, so that its files have to stay

    def __init__(self, setting: Setting, *, folder: Path) -> None:
        self.setting, self.folder = setting, folder

    def load(self) -> None:
        """Import what is needed; ImportError where it is not installed."""

    def open(self) -> None:
        """Do what is done once, before the first pass."""

    def before(self) -> None:
        """Do what comes before each pass, and is no part of it."""

    def take(self) -> None:
        """Show the model the probe once, and keep what its children return; what is on the disk is flushed to it."""
        raise NotImplementedError

    def after(self) -> None:
        """Undo `before`."""

    def values(self, layer: str) -> np.ndarray | None:
        """Read back what the last pass kept of a layer."""
        return None

    def forget(self) -> None:
        """Drop what the last pass kept in memory."""

    def close(self) -> None:
        """Undo `open`."""


class Bare(Contender):
    name, keeps = "bare", "nothing"

    def take(self) -> None:
        self.setting.show()


class Fmcluster(Contender):
    """A snapshot of a Recorder that stays open, as in training: the run grows by one snapshot a pass."""

    name, keeps = "fmcluster", "float16 and six statistics a channel, compressed, committed"
    one_run = True
    max_pending_bytes = 512 << 20  # its default

    def load(self) -> None:
        from fmcluster import Recorder, open_run

        self._make, self._open_run = Recorder, open_run

    def open(self) -> None:
        self._epoch = -1
        self._recorder = self._make(
            self.setting.model,
            self.folder / "run.zarr",
            probe=self.setting.probe,
            batch_size=self.setting.batch_size,
            max_size=self.setting.max_size,
            max_pending_bytes=self.max_pending_bytes,
        )
        self._recorder.__enter__()

    def take(self) -> None:
        self._epoch += 1
        self._recorder.snapshot(epoch=self._epoch)
        self._recorder.flush()

    @property
    def peak_pending_bytes(self) -> int:
        return self._recorder.peak_pending_bytes

    def values(self, layer: str) -> np.ndarray:
        return self._open_run(self.folder / "run.zarr")[layer].read(epoch=self._epoch)

    def close(self) -> None:
        self._recorder.__exit__(None, None, None)


class FmclusterSmall(Fmcluster):
    """With less memory for what waits to be written; only of interest where memory is measured."""

    name = "fmcluster 64 MiB"
    max_pending_bytes = 64 << 20


class InMemory(Contender):
    """Outputs in a dict, one list a layer."""

    def open(self) -> None:
        self._kept: dict[str, list[torch.Tensor]] = defaultdict(list)

    def take(self) -> None:
        self.setting.show_with_hooks(lambda name, output: self._kept[name].append(self.copy(output)))

    def copy(self, output: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def values(self, layer: str) -> np.ndarray:
        return torch.cat(self._kept[layer]).cpu().numpy()

    def forget(self) -> None:
        self._kept.clear()


class RecipeDict(InMemory):
    """The well-known recipe for the transfer-learning tutorial: `activation[name] = output.detach()`.

    It keeps the output itself. The ReLU behind `bn1` works in place, so that what is found under `bn1` afterwards is
    what `relu` returned: its negative values are gone. (The recipe's other faults are left out here: hooks that are
    never removed, the training mode, one key for all batches of an epoch.) It copies nothing: on CUDA, all of it
    stays on the device.
    """

    name, keeps = "recipe's dict", "float32 in memory, not copied"
    whole_only = True

    def copy(self, output: torch.Tensor) -> torch.Tensor:
        return output.detach()


class DictOfClones(InMemory):
    name, keeps = "dict of clones", "float32 in memory"

    def copy(self, output: torch.Tensor) -> torch.Tensor:
        return self.setting.kept(output).to("cpu", copy=True)


class TorchSave(InMemory):
    name, keeps = "torch.save", "float16, one file"

    def copy(self, output: torch.Tensor) -> torch.Tensor:
        return self.setting.kept(output).half().cpu()

    def take(self) -> None:
        super().take()
        torch.save({name: torch.cat(parts) for name, parts in self._kept.items()}, self.folder / "activations.pt")
        flush(self.folder)

    def values(self, layer: str) -> np.ndarray:
        return torch.load(self.folder / "activations.pt")[layer].numpy()


class NumpySave(Contender):
    """Clones by hooks, one file per layer and batch."""

    name, keeps = "clones + np.save", "float16, a file per layer and batch"

    def open(self) -> None:
        self._parts: Counter[str] = Counter()

    def before(self) -> None:
        self._parts.clear()

    def save(self, layer: str, output: torch.Tensor) -> None:
        np.save(self.folder / f"{layer}.{self._parts[layer]}.npy", self.setting.kept(output).half().cpu().numpy())
        self._parts[layer] += 1

    def take(self) -> None:
        self.setting.show_with_hooks(self.save)
        flush(self.folder)

    def values(self, layer: str) -> np.ndarray:
        return np.concatenate([np.load(self.folder / f"{layer}.{i}.npy") for i in range(self._parts[layer])])


class FeatureExtractor(NumpySave):
    """torchvision's extractor, which traces the model once; it hands out the outputs after the whole pass."""

    name, keeps = "torchvision + np.save", "float16, a file per layer and batch"

    def open(self) -> None:
        super().open()
        self._extract = create_feature_extractor(self.setting.model, return_nodes=self.setting.layers)

    def take(self) -> None:
        with torch.no_grad():
            for images in self.setting.batches():
                for name, output in self._extract(images).items():
                    self.save(name, output)
        flush(self.folder)


class TorchLens(NumpySave):
    """TorchLens logs each batch's forward pass, and hands out the layers that are asked for.

    (Its own way to the disk, `extract_dataset`, takes digests of all values besides, and more time.) Its wrappers
    around all functions of torch are put on before the pass and taken off after it, so that nobody else runs through
    them; what it prepares is a copy of the model.
    """

    name, keeps = "TorchLens + np.save", "float16, a file per layer and batch"

    def load(self) -> None:
        import torchlens
        from torchlens.backends.torch import wrappers

        self._torchlens, self._wrappers = torchlens, wrappers
        wrappers.unwrap_torch()

    def open(self) -> None:
        super().open()
        self._model = deepcopy(self.setting.model)

    def before(self) -> None:
        super().before()
        self._wrappers.wrap_torch()

    def take(self) -> None:
        layers = {name: name for name in self.setting.layers} | {"fc": "linear_1"}  # "fc" is the model's output as well
        with torch.no_grad():
            for images in self.setting.batches():
                for name, output in self._torchlens.extract(self._model, images, layers).items():
                    self.save(name, output)
        flush(self.folder)

    def after(self) -> None:
        self._wrappers.unwrap_torch()


class Captum(Contender):
    """Captum's activation vectors, which its concept and influence methods keep on the disk."""

    name, keeps = "Captum AV", "float32, a file per layer and batch"
    whole_only = True

    def load(self) -> None:
        from captum._utils.av import AV

        self._av = AV

    def take(self) -> None:
        self._av.generate_dataset_activations(
            str(self.folder), self.setting.model, "resnet18", self.setting.layers, self.setting.batches()
        )
        flush(self.folder)

    def values(self, layer: str) -> np.ndarray:
        files = sorted((self.folder / "av" / "resnet18" / "default" / layer).iterdir(), key=lambda f: int(f.stem))
        return torch.cat([torch.load(file, map_location="cpu") for file in files]).numpy()


class H5py(Contender):
    """Hooks that append to one HDF5 file, a chunk per sample."""

    name, keeps = "h5py", "float16, compressed with lzf, one file"

    def load(self) -> None:
        import h5py

        self._h5py = h5py

    def take(self) -> None:
        with self._h5py.File(self.folder / "activations.h5", "w") as file:
            self.setting.show_with_hooks(lambda name, output: self._append(file, name, output))
        flush(self.folder)

    def _append(self, file: Any, name: str, output: torch.Tensor) -> None:
        values = self.setting.kept(output).half().cpu().numpy()
        if name not in file:
            shape = (0, *values.shape[1:])
            chunks, maxshape = (1, *values.shape[1:]), (None, *values.shape[1:])
            options = {"compression": "lzf", "shuffle": True}
            file.create_dataset(name, shape, values.dtype, chunks=chunks, maxshape=maxshape, **options)
        there = len(file[name])
        file[name].resize(there + len(values), axis=0)
        file[name][there:] = values

    def values(self, layer: str) -> np.ndarray:
        with self._h5py.File(self.folder / "activations.h5") as file:
            return file[layer][:]


CONTENDERS: tuple[type[Contender], ...] = (
    Bare,
    Fmcluster,
    RecipeDict,
    DictOfClones,
    NumpySave,
    TorchSave,
    FeatureExtractor,
    TorchLens,
    Captum,
    H5py,
)


def flush(folder: Path) -> None:
    """Wait until the files in a folder are on the disk."""
    for path in [folder, *folder.rglob("*")]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
