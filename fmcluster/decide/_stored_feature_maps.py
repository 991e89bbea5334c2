"""Stored feature maps as a data set: the layers behind a frozen one are trained without a forward pass through it."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..analysis import layer_name
from ..store import Layer, Run


class StoredFeatureMaps(Dataset[tuple[torch.Tensor, int]]):
    """A PyTorch data set of one layer's recorded feature maps and labels, to train the layers behind it.

    Parameters
    ----------
    run : Run
        A run of a probe; a data set that was recorded whole, in its order, without augmentation.
    layer : Layer or str
        The layer, or its name; of all channels, without crop or averaging.
    epoch, snapshot : int, optional
        Which snapshot; by default the last.
    samples : sequence of int, optional
        Dataset indices; by default all that the snapshot holds.

    Attributes
    ----------
    samples : list of int
        Dataset indices, in the order of the items.
    targets : list of int
        Their labels.

    Raises
    ------
    TypeError
        For what is not a run.
    KeyError
        For a layer that the run does not have.
    ValueError
        For a live run, whose feature maps are of augmented images and of a network that was being trained; for a part
        of the feature maps; for snapshots or samples that there are not; and for samples without labels.

    Notes
    -----
    Items are float32; what was stored as float16 has its precision. They are what the layer returned in evaluation
    mode. A `DataLoader` reads each batch at once.

    Examples
    --------
    >>> tail = nn.Sequential(model.layer4, model.avgpool, nn.Flatten(), model.fc)  # doctest: +SKIP
    >>> stored = StoredFeatureMaps(run, "layer3", epoch=2)  # doctest: +SKIP
    >>> for values, labels in DataLoader(stored, batch_size=32, shuffle=True):  # doctest: +SKIP
    ...     criterion(tail(values), labels).backward()
    """

    def __init__(
        self,
        run: Run,
        layer: Layer | str,
        *,
        epoch: int | None = None,
        snapshot: int | None = None,
        samples: Sequence[int] | None = None,
    ) -> None:
        if not isinstance(run, Run):
            raise TypeError(f"StoredFeatureMaps received a {type(run).__name__}; expected Run, made by open_run(path)")
        if run.kind != "probe":
            raise ValueError(
                f"{run.path} is a live run: its feature maps are of training batches as they were augmented, while the "
                f"network changed. Record the data set as a probe, with evaluation transforms: "
                f"Recorder(model, ..., probe=...)"
            )
        self._layer = run[layer_name(layer)]
        _check_whole(self._layer)
        last = epoch is None and snapshot is None
        self._snapshot = len(run) - 1 if last else run.resolve(epoch=epoch, snapshot=snapshot)
        chosen = self._layer.vectors("sample", snapshots=[self._snapshot], samples=samples).samples
        labels = self._layer.samples["label"].reindex(chosen, fill_value=-1) if "label" in self._layer.samples else None
        if labels is None or (labels < 0).any():
            unknown = len(chosen) if labels is None else int((labels < 0).sum())
            raise ValueError(
                f"the labels of {unknown} of {len(chosen)} samples of {run.path} are not known; record a probe whose "
                f"items are (image, label), or pass samples=, those with labels"
            )
        self.samples: list[int] = chosen.tolist()
        self.targets: list[int] = labels.to_numpy(np.int64).tolist()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """The feature maps of one sample, Tensor of the shape that the module returned for it, and its label."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int]]:
        """The items of a batch, read at once."""
        wanted = [operator.index(each) for each in indices]
        values = self._layer.read(snapshot=self._snapshot, samples=[self.samples[each] for each in wanted])
        rows = torch.from_numpy(np.ascontiguousarray(values, np.float32))
        axis = self._layer.channel_axis
        stored_axis = self._layer.dimensions.index("channel") - 1
        if axis is not None and axis != stored_axis:
            rows = rows.movedim(stored_axis, axis)
        return [(row, self.targets[each]) for row, each in zip(rows, wanted, strict=True)]


def _check_whole(layer: Layer) -> None:
    described: dict[str, Any] = {
        "a part of its positions was kept": layer.crop is not None,
        "its feature maps were averaged down": layer.average_pooled,
        "a part of its channels was kept": layer.n_channels != layer.n_output_channels,
        "it returned several rows for each sample": layer.rows_folded > 1,
    }
    if reasons := [reason for reason, holds in described.items() if holds]:
        raise ValueError(
            f"layer {layer.name!r} cannot stand in for the network: {reasons[0]}. Record another, or the whole "
            f"of it: without crop=, channels= and max_size="
        )
