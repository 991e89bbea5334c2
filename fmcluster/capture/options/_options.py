"""Options of a recorder: which layers, which channels and part of their feature maps, which dtype, and how to write."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import torch
from torch.nn import functional

from ...store import LayerSpec, Mode, layer_expression
from ._patterns import Layers, known_names

T = TypeVar("T")
PerLayer: TypeAlias = T | Mapping[str, T]
Channels = slice | Sequence[int]
Crop = tuple[slice, slice]
Size = int | tuple[int, int]
Overflow = Literal["error", "clip"]
OnError = Literal["raise", "warn"]
Recorded = Literal["activation", "gradient", "weight"]

DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Reduction:
    """What is kept of one layer.

    Attributes
    ----------
    dtype : {"float16", "float32"}
        Stored dtype.
    channels : tuple of int, or None
        Numbers of the channels kept; None: all.
    crop : ((top, bottom), (left, right)), or None
        Part of the feature maps kept, in their own pixels.
    size : (int, int), or None
        Height and width to which the feature maps are averaged down; None: as they are.
    """

    dtype: str
    channels: tuple[int, ...] | None = None
    crop: tuple[tuple[int, int], tuple[int, int]] | None = None
    size: tuple[int, int] | None = None

    def of_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Return the channels kept of a batch of outputs; a view where they are neighbors."""
        if self.channels is None:
            return output
        axis = 1 + LayerSpec.channel_axis(tuple(output.shape[1:]))
        first, count = self.channels[0], len(self.channels)
        if self.channels == tuple(range(first, first + count)):
            return output.narrow(axis, first, count)
        return output.index_select(axis, _index(self.channels, output.device))

    def of_positions(self, feature_maps: torch.Tensor) -> torch.Tensor:
        """Return the part of feature maps that is kept, averaged down: adaptive average pooling in float32."""
        if self.crop is not None:
            (top, bottom), (left, right) = self.crop
            feature_maps = feature_maps[..., top:bottom, left:right]
        if self.size is not None:
            wide = feature_maps if feature_maps.dtype == torch.float64 else feature_maps.float()
            planes = wide.flatten(1, 2) if wide.ndim == 5 else wide  # each frame by itself
            feature_maps = functional.adaptive_avg_pool2d(planes, self.size)
            if wide.ndim == 5:
                feature_maps = feature_maps.reshape(*wide.shape[:3], *self.size)
        return feature_maps

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what is stored of one sample, of which the layer returns this shape."""
        return LayerSpec.stored_shape(shape, channels=self.channels, crop=self.crop, size=self.size)


@dataclass(frozen=True)
class Keep:
    """What is kept of the layers: a recorder's options, each for all layers or by pattern of their names.

    Raises
    ------
    ValueError, TypeError
        For what cannot be meant.
    """

    dtype: PerLayer[str] = "float16"
    channels: PerLayer[Channels] | None = None
    crop: PerLayer[Crop] | None = None
    max_size: PerLayer[Size] | None = None
    overflow: Overflow = "error"
    record: tuple[Recorded, ...] = ("activation",)
    channel_axis: PerLayer[int] | None = None

    def __post_init__(self) -> None:
        if "activation" not in self.record or not set(self.record) <= {"activation", "gradient", "weight"}:
            raise ValueError(
                f"record is {self.record!r}; expected ('activation',) or ('activation', 'gradient'), with or without "
                f"'weight'"
            )
        for dtype in _values(self.dtype):
            if dtype not in DTYPES:
                raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}, or those by layer")
        for axis in _values(self.channel_axis):
            if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0 or not -4 <= axis <= 4:
                raise ValueError(
                    f"channel_axis is {axis!r}; expected an axis of a batch of outputs, such as 1 or -1, or those by "
                    f"layer"
                )
        if self.overflow not in ("error", "clip"):
            raise ValueError(f"overflow is {self.overflow!r}; expected 'error' or 'clip'")
        for size in _values(self.max_size):
            sides = (size, size) if isinstance(size, int) else size
            whole = isinstance(sides, tuple | list) and all(type(n) is int and n > 0 for n in sides)
            if not whole or len(sides) != 2:
                raise ValueError(f"max_size is {size!r}; expected a positive number of pixels, or (height, width)")
        for crop in _values(self.crop):
            if not (isinstance(crop, tuple) and len(crop) == 2 and all(isinstance(part, slice) for part in crop)):
                raise TypeError(f"crop is {crop!r}; expected (slice of rows, slice of columns)")

    @property
    def gradient(self) -> bool:
        """Whether gradients are recorded."""
        return "gradient" in self.record

    @property
    def weight(self) -> bool:
        """Whether parameters and buffers are recorded."""
        return "weight" in self.record

    def of(self, names: Sequence[str], shape: tuple[int, ...], *, is_time: bool = False) -> Reduction:
        """Return what is kept of a layer that goes by these names and returns this for a sample, in stored order."""
        dtype = _find(self.dtype, names) or "float16"
        axis = LayerSpec.channel_axis(shape)
        channels = _channel_numbers(_find(self.channels, names), shape[axis], f"channels of layer {names[1]!r}")
        if len(shape) < 3 or is_time:
            return Reduction(dtype, channels)
        crop = _find(self.crop, names)
        box = None
        if crop is not None:
            sides = [part.indices(n) for part, n in zip(crop, shape[-2:], strict=True)]
            if any(step != 1 or stop <= start for start, stop, step in sides):
                raise ValueError(
                    f"crop of layer {names[1]!r} is {crop}, of feature maps of {shape[-2]} x {shape[-1]} pixels; "
                    f"expected two slices without steps that leave something"
                )
            (top, bottom, _), (left, right, _) = sides
            box = (top, bottom), (left, right)
        height, width = shape[-2:] if box is None else (box[0][1] - box[0][0], box[1][1] - box[1][0])
        limit = _find(self.max_size, names)
        if limit is None:
            return Reduction(dtype, channels, box)
        most = (limit, limit) if isinstance(limit, int) else limit
        size = min(height, most[0]), min(width, most[1])
        return Reduction(dtype, channels, box, None if size == (height, width) else size)

    def axis_of(self, names: Sequence[str], *, n_axes: int) -> int | None:
        """Return the channel axis given for a layer, counted from the batch; None where none is given."""
        asked = _find(self.channel_axis, names)
        if asked is None:
            return None
        axis: int = asked + n_axes if asked < 0 else asked
        if not 0 < axis < n_axes:
            raise ValueError(
                f"channel_axis of layer {names[1]!r} is {asked}; its outputs have {n_axes} axes, the batch first"
            )
        return axis

    def check_names(self, names: Iterable[str]) -> None:
        """Raise `ValueError` where a pattern is of no layer."""
        names = list(dict.fromkeys(names))
        for option in (self.dtype, self.channels, self.crop, self.max_size, self.channel_axis):
            for pattern in option if isinstance(option, Mapping) else ():
                if not any(layer_expression(pattern).fullmatch(name) for name in names):
                    raise ValueError(f"no recorded layer is called {pattern!r}; {known_names(names)}")

    def as_json(self) -> dict[str, Any]:
        """Return the options as JSON can hold them."""
        return {
            "record": list(self.record),
            "dtype": _as_json(self.dtype),
            "overflow": self.overflow,
            "channels": _as_json(self.channels),
            "crop": _as_json(self.crop),
            "max_size": _as_json(self.max_size),
            "channel_axis": _as_json(self.channel_axis),
        }


@dataclass(frozen=True)
class RecorderOptions:
    """What `Recorder`, `BatchRecorder` and `replay` have in common; each attribute is documented with `Recorder`."""

    layers: Layers
    record: Sequence[Recorded]
    dtype: PerLayer[str]
    channels: PerLayer[Channels] | None
    crop: PerLayer[Crop] | None
    max_size: PerLayer[Size] | None
    channel_axis: PerLayer[int] | None
    overflow: Overflow
    mode: Mode
    max_bytes: int | None
    max_pending_bytes: int
    notes: Mapping[str, Any] | None
    on_error: OnError

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode is {self.mode!r}; expected 'x' (new), 'a' (resume) or 'w' (replace)")
        if self.on_error not in ("raise", "warn"):
            raise ValueError(f"on_error is {self.on_error!r}; expected 'raise' or 'warn'")
        if self.max_pending_bytes < 1:
            raise ValueError(f"max_pending_bytes is {self.max_pending_bytes}; expected a positive number of bytes")

    @property
    def keep(self) -> Keep:
        """What is kept of the layers."""
        return Keep(
            self.dtype, self.channels, self.crop, self.max_size, self.overflow, tuple(self.record), self.channel_axis
        )


def _index(channels: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return channel numbers on a device, without waiting for it."""
    aside = device.type == "cuda"
    return torch.tensor(channels, pin_memory=aside).to(device, non_blocking=aside)


def _values(option: Any) -> list[Any]:
    if option is None:
        return []
    return list(option.values()) if isinstance(option, Mapping) else [option]


def _find(option: Any, names: Sequence[str]) -> Any:
    """Return what is said of a layer: the first pattern that one of its names matches."""
    if not isinstance(option, Mapping):
        return option
    for pattern, value in option.items():
        if any(layer_expression(pattern).fullmatch(name) for name in names):
            return value
    return None


def _channel_numbers(channels: Channels | None, count: int, what: str) -> tuple[int, ...] | None:
    if channels is None:
        return None
    if isinstance(channels, slice):
        chosen = tuple(range(count)[channels])
    else:
        try:
            chosen = tuple(_number(c) for c in channels)
        except TypeError:
            raise TypeError(f"{what}: received {channels!r}; expected a slice, or numbers of channels") from None
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0 or max(chosen) >= count:
        raise ValueError(f"{what}: received {channels!r}; expected numbers from 0 to {count - 1}, each once")
    return None if chosen == tuple(range(count)) else chosen


def _as_json(option: Any) -> Any:
    if isinstance(option, Mapping):
        return {pattern: _as_json(value) for pattern, value in option.items()}
    if isinstance(option, slice):
        return [_as_json(part) for part in (option.start, option.stop, option.step)]
    plain = option.tolist() if hasattr(option, "tolist") else option  # of NumPy or torch
    return [_as_json(value) for value in plain] if isinstance(plain, Iterable) and not isinstance(plain, str) else plain


def _number(value: Any) -> int:
    """Return a whole number as Python's own; raise `TypeError` for anything else, also for one of a mask."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, bool):
        raise TypeError("a mask is no list of numbers")
    return index(plain)
