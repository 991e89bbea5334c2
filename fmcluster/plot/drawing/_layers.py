"""Layers as pictures need them: their feature maps and input images, and the checks that pictures share."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ._class_names import class_title
from ._snapshots import snapshot_table

if TYPE_CHECKING:
    from ...analysis import Clusters


class SampledLayer(Protocol):
    """What naming a sample needs of a layer of a run."""

    @property
    def samples(self) -> pd.DataFrame:
        """Indexed by sample, with a column ``class_name`` where known."""


class MeasuredLayer(Protocol):
    """What the ridges need of a layer of a run."""

    @property
    def label(self) -> str:
        """What the layer is called."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the axes."""

    @property
    def quantity(self) -> str:
        """What its values are: ``"activation"`` or ``"gradient"``."""

    @property
    def statistics(self) -> pd.DataFrame:
        """Columns ``snapshot, epoch, step, channel`` and one for each statistic."""


class PicturedSamples(Protocol):
    """What the pictures of top images need of a layer of a run."""

    @property
    def label(self) -> str:
        """What the layer is called."""

    @property
    def samples(self) -> pd.DataFrame:
        """Indexed by sample, with a column ``class_name`` where known."""

    @property
    def feature_map_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's feature maps."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one sample's output as the module returned it."""

    @property
    def crop(self) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Rows and columns of the output that were kept; None: all."""

    def display(self, sample: int) -> npt.NDArray[np.uint8] | None:
        """Return the input image, ndarray of shape (height, width, 3), or None."""


class PicturedLayer(Protocol):
    """What the pictures need of a layer of a run."""

    @property
    def label(self) -> str:
        """What the layer is called."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the axes."""

    @property
    def quantity(self) -> str:
        """What its values are: ``"activation"`` or ``"gradient"``."""

    @property
    def channels(self) -> npt.NDArray[np.int64]:
        """The numbers of its channels."""

    @property
    def snapshots(self) -> pd.DataFrame:
        """Columns ``snapshot``, ``epoch``, ``step``."""

    @property
    def samples(self) -> pd.DataFrame:
        """Indexed by sample, with columns ``label`` and ``class_name`` where known."""

    @property
    def statistics(self) -> pd.DataFrame:
        """Columns ``snapshot``, ``channel``, ``mean``, ``std``, ``min`` among others."""

    def read(self, *, snapshot: int, samples: int, channels: list[int]) -> npt.NDArray[Any]:
        """Return the feature maps, with an axis of length one for the sample."""

    def display(self, sample: int) -> npt.NDArray[np.uint8] | None:
        """Return the input image, ndarray of shape (height, width, 3), or None."""


def require_layer(layer: object) -> None:
    """Raise TypeError for what is not a layer, such as the name of one."""
    if not hasattr(layer, "label"):
        raise TypeError(f"received {layer!r}; expected a layer of a run: open_run(path)[name]")


def snapshots_of(layer: PicturedLayer) -> pd.DataFrame:
    """Return the snapshots of a layer as `snapshot_table` has them; raise for what is no layer, or has none."""
    require_layer(layer)
    table = snapshot_table(layer.snapshots)
    if table.empty:
        raise ValueError(f"layer {layer.label!r} has no snapshot yet; record one with Recorder.snapshot, then draw it")
    return table


def check_choice(name: str, value: str, *, choices: tuple[str, ...]) -> None:
    """Raise ValueError if `value` is not among `choices`."""
    if value not in choices:
        raise ValueError(
            f"received {name}={value!r}; expected one of {', '.join(map(repr, choices))}: pass one of these"
        )


def chosen_channels(layer: PicturedLayer, channels: Iterable[int] | None) -> list[int]:
    """Return the channels asked for as a list, or raise ValueError."""
    known = [int(channel) for channel in layer.channels]
    if channels is None:
        return known
    chosen = [int(channel) for channel in channels]
    wrong = [channel for channel in chosen if channel not in known]
    if wrong or not chosen:
        got = f"channel {wrong[0]}" if wrong else "no channel"
        every = len(known) == max(known) - min(known) + 1
        there = f"{min(known)} to {max(known)}" if every else f"the {len(known)} recorded, `layer.channels`"
        raise ValueError(
            f"received {got} for layer {layer.label!r}; expected one or more of {there}: choose among these, or leave "
            f"`channels` out"
        )
    return chosen


def check_sample(layer: PicturedLayer, sample: int) -> None:
    """Raise ValueError if the layer has no such sample."""
    known = layer.samples.index
    if sample not in known:
        raise ValueError(
            f"received sample={sample}; expected one of the {len(known)} recorded samples ({known.min()} to "
            f"{known.max()}): choose from `layer.samples.index`"
        )


def sample_name(layer: SampledLayer, sample: int) -> str:
    """Return ``"sample 3 (bees)"``, or without the class where it is not known."""
    if "class_name" not in layer.samples.columns:
        return f"sample {sample}"
    name = layer.samples.loc[sample, "class_name"]
    return f"sample {sample} ({class_title(name)})" if isinstance(name, str) and name else f"sample {sample}"


def channel_activity(layer: PicturedLayer, numbers: list[int]) -> "pd.Series[float]":
    """Return the root mean square of each channel, by its number, over the snapshots, from the stored statistics."""
    statistics = layer.statistics
    statistics = statistics[statistics["snapshot"].isin(numbers)]
    square = (statistics["mean"] ** 2 + statistics["std"] ** 2).groupby(statistics["channel"]).mean()
    return square.reindex(layer.channels).fillna(0.0).astype(np.float64) ** 0.5


def labels_at(clusters: "Clusters", layer: PicturedLayer, *, snapshot: int) -> dict[int, int]:
    """Return the cluster of each channel at a snapshot."""
    if clusters.layer != layer.label or "channel" not in clusters.rows or clusters.identity != ["channel"]:
        raise ValueError(
            f"received clusters of the {clusters.view} view of {clusters.layer!r}; expected some of the channel view "
            f"of {layer.label!r}"
        )
    here = clusters.frame[clusters.frame["snapshot"] == snapshot]
    if here.empty:
        raise ValueError(
            f"the clusters are of snapshots {sorted(set(clusters.rows['snapshot']))}, and not of snapshot {snapshot}; "
            f"draw one of these"
        )
    return dict(zip(here["channel"].astype(int).tolist(), here["cluster"].astype(int).tolist(), strict=True))
