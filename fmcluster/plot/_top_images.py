"""Top images: what drives a channel most, at an early snapshot and at a late one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import matplotlib.patheffects as effects
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .drawing import (
    FAINT,
    INK,
    RULE,
    PicturedSamples,
    class_title,
    find_snapshot,
    inch_panel,
    inch_text,
    layer_text,
    new_figure,
    require_layer,
    snapshot_table,
    snapshot_titles,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import TopImages

STAYED = "#d55e00"
MARGIN = 0.2
HEAD = 1.05
FOOT = 0.3
SIDE = 0.86
PITCH = SIDE + 0.12
CAPTION = 0.34
ROW = SIDE + CAPTION + 0.1
NAMING = 0.95
BETWEEN = 0.4
LEAST_BOX = 0.14
MOST_ROWS = 60
DEFAULT_ROWS = 6
NOBODY = -1
RANKED = {
    "max": "highest activation in the feature map",
    "mean": "mean of the feature map",
    "relevance": "loss that a feature map of zeros would add, to first order",
}


def top_images(
    found: "TopImages",
    layer: PicturedSamples,
    *,
    channels: Iterable[int] | None = None,
    then: int | None = None,
    now: int | None = None,
    k: int = 5,
) -> Figure:
    """Draw the images that drive each channel most, at an early snapshot and at a late one.

    A row is a channel; the images that drive it most come first, each with its number, its class and what it was
    ranked by. A box marks the position that drives the channel. Images that are drawn at both snapshots are framed.

    Parameters
    ----------
    found : TopImages
        What ``fmcluster.top_images(layer)`` returned.
    layer : Layer
        The layer that was searched.
    channels : iterable of int, optional
        Which channels, at most 60. By default the six whose images drive them most at the late snapshot, by the mean
        of the values that are drawn: the choice does not depend on what changed.
    then, now : int, optional
        Numbers of the two snapshots; by default the first and the last that were searched. If they are the same, it
        is drawn once.
    k : int, default 5
        How many images of each channel and snapshot, at most as many as were searched for.

    Returns
    -------
    Figure
        Not kept by pyplot: show it as the last value of a cell, or call its `savefig`. Images have the gid
        ``"image"``, boxes ``"position"``, frames ``"stayed"``.

    Raises
    ------
    TypeError
        For what is not a layer.
    ValueError
        If `found` is of another layer, there is no such snapshot or channel, `then` comes after `now`, `k` is under
        1, or the run holds no pictures of its inputs.

    Notes
    -----
    A position of the feature map is drawn where it lies in the image, and never smaller than can be seen. What a unit
    answers to reaches beyond it: receptive fields of late layers cover the whole image. Of feature maps of a single
    position, and of layers without positions, none is marked.
    """
    require_layer(layer)
    if found.layer != layer.label:
        raise ValueError(
            f"received top images of {found.layer!r} and layer {layer.label!r}; expected both of one layer: pass the "
            f"layer that was searched"
        )
    if k < 1:
        raise ValueError(f"received k={k}; expected 1 or more: the images of each channel to draw")
    table = snapshot_table(found.snapshots)
    late = find_snapshot(table, epoch=None, snapshot=now)
    early = 0 if then is None else find_snapshot(table, epoch=None, snapshot=then)
    if early > late:
        raise ValueError(f"received then={then}, now={now}; expected `then` before `now`: exchange them")
    shown = [early, late] if early < late else [late]
    k = min(int(k), found.k)
    numbers = found.channels["channel"].to_numpy()[: found.samples.shape[1]]
    indices = _indices(found, numbers, channels, late=late, k=k)

    block = k * PITCH - (PITCH - SIDE)
    width = NAMING + len(shown) * block + (len(shown) - 1) * BETWEEN
    height = ROW * len(indices)
    titles = [snapshot_titles(table)[position] for position in shown]
    headline = f"{layer_text(layer.label)}: the images that drive a channel most, {' and '.join(titles)}"
    which = f" driven most at {titles[-1]}" if channels is None and len(indices) < len(numbers) else ""
    ranked = f"images ranked by the {RANKED[found.by]} (the number under an image)"
    subtitle = f"{_counted(len(indices), 'channel')}{which}, {ranked}"
    pictures = _pictures(layer, np.unique(found.samples[np.ix_(shown, indices)][..., :k]))
    box = _box(layer, found)
    lost = found.channels["nonfinite"].to_numpy().reshape(found.samples.shape[:2])
    notes = _notes(found, shown, k=k, boxed=box is not None)
    if most := int(lost[np.ix_(shown, indices)].max()):
        notes.append(f"Left out: up to {_counted(most, 'image')} of a channel, whose feature maps are NaN or infinite.")
    words = max(text_width(headline, size=13), text_width(subtitle, size=9.5), *(text_width(n, size=8) for n in notes))
    foot = FOOT + 0.16 * len(notes)
    figure = new_figure(width=max(width, words) + 2 * MARGIN, height=HEAD + height + foot)
    inch_text(figure, headline, left=MARGIN, top=0.15, size=13)
    inch_text(figure, subtitle, left=MARGIN, top=0.42, size=9.5, color=FAINT)
    for line, note in enumerate(notes):
        inch_text(figure, note, left=MARGIN, top=HEAD + height + 0.08 + 0.16 * line, size=8, color=FAINT)
    for column, title in enumerate(titles):
        left = MARGIN + NAMING + column * (block + BETWEEN)
        inch_text(figure, title, left=left, top=HEAD - 0.25, size=9.5)

    panel = inch_panel(figure, left=MARGIN, top=HEAD, width=width, height=height)
    for row, index in enumerate(indices):
        lists = [set(found.samples[position, index, :k].tolist()) - {NOBODY} for position in shown]
        both = lists[0] & lists[-1] if len(shown) == 2 else set()
        top = row * ROW
        panel.text(0, top + 0.3, f"ch {numbers[index]}", fontsize=9.5, color=INK, ha="left", va="center")
        if len(shown) == 2 and all(lists):
            stayed = f"{len(both)} of {len(lists[0])}\nstayed"
            color = STAYED if both else FAINT
            panel.text(0, top + 0.43, stayed, fontsize=8, color=color, ha="left", va="top")
        for column, position in enumerate(shown):
            left = NAMING + column * (block + BETWEEN)
            if not lists[column]:
                nothing = "it is not finite" if lost[position, index] == found.n_samples else "no image drives it"
                panel.text(left, top + SIDE / 2, nothing, fontsize=8, color=FAINT, ha="left", va="center")
            for rank, sample in enumerate(found.samples[position, index, :k].tolist()):
                if sample == NOBODY:
                    continue
                at = (left + rank * PITCH, top)
                extent = _draw_picture(panel, pictures[sample], at=at, framed=sample in both)
                fraction = found.fractions[position, index, rank]
                if box is not None and np.isfinite(fraction).all():
                    _mark_position(panel, extent, fraction=fraction, box=box)
                value = float(found.values[position, index, rank])
                _caption(panel, layer, sample, value, at=at, color=STAYED if sample in both else INK)
    return figure


def _indices(
    found: "TopImages", numbers: npt.NDArray[np.int64], channels: Iterable[int] | None, *, late: int, k: int
) -> list[int]:
    """Return where the channels to draw lie in the result, or raise ValueError."""
    if channels is None:
        values = found.values[late, :, :k]
        count = np.isfinite(values).sum(axis=1)
        mean = np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), -np.inf)
        return [int(index) for index in np.argsort(-mean, kind="stable")[:DEFAULT_ROWS]]
    where = {int(number): index for index, number in enumerate(numbers)}
    asked = [int(channel) for channel in channels]
    unknown = [channel for channel in asked if channel not in where]
    if unknown or not asked:
        got = f"channel {unknown[0]}" if unknown else "no channel"
        raise ValueError(
            f"received {got}; expected some of the {len(where)} that were searched ({min(where)} to {max(where)}): "
            f"choose among these, or leave `channels` out"
        )
    if len(asked) > MOST_ROWS:
        raise ValueError(
            f"received {len(asked)} channels; expected {MOST_ROWS} or fewer, which a page can hold: draw them in parts"
        )
    return [where[channel] for channel in asked]


def _pictures(layer: PicturedSamples, samples: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.uint8]]:
    """Read each picture once, or raise ValueError."""
    pictures = {}
    for sample in samples[samples != NOBODY].tolist():
        picture = layer.display(sample)
        if picture is None:
            raise ValueError(
                f"received layer {layer.label!r} of a run without pictures of its inputs (sample {sample}); expected "
                f"a run that holds them: record with a probe set of images, or read `found.frame`"
            )
        pictures[sample] = picture
    return pictures


def _box(layer: PicturedSamples, found: "TopImages") -> tuple[float, float] | None:
    """Return height and width of a position as shares of the image; None where there is only one."""
    _, height, width = layer.feature_map_shape
    if height * width == 1 or np.isnan(found.fractions).all():
        return None
    whole = layer.output_shape[1:]
    (top, bottom), (left, right) = layer.crop or ((0, whole[0]), (0, whole[1]))
    return (bottom - top) / whole[0] / height, (right - left) / whole[1] / width


def _notes(found: "TopImages", shown: list[int], *, k: int, boxed: bool) -> list[str]:
    what = "largest part of the relevance" if found.by == "relevance" else "highest activation"
    said = [f"White box: the position of the {what}; the unit sees beyond it."] if boxed else []
    if len(shown) == 1:
        return said
    before, after = found.samples[shown[0], :, :k], found.samples[shown[1], :, :k]
    both = [len(set(a[a >= 0].tolist()) & set(b[b >= 0].tolist())) for a, b in zip(before, after, strict=True)]
    driven = (before != NOBODY).any(axis=1) & (after != NOBODY).any(axis=1)
    framed = "Framed: among the top images at both."
    if driven.any():
        mean = float(np.mean(np.array(both)[driven]))
        size = ((before != NOBODY).sum(axis=1) * (after != NOBODY).sum(axis=1))[driven]
        chance = float(np.mean(size)) / found.n_samples
        framed += (
            f" Over the {_counted(int(driven.sum()), 'channel')} with images at both, {mean:.1f} of {k} stayed "
            f"(by chance {chance:.1f})."
        )
    return [*said, framed]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _draw_picture(
    panel: Axes, picture: npt.NDArray[np.uint8], *, at: tuple[float, float], framed: bool
) -> tuple[float, float, float, float]:
    """Draw a picture in the middle of its square; return its left, right, bottom and top."""
    height, width = picture.shape[:2]
    wide, tall = SIDE * width / max(height, width), SIDE * height / max(height, width)
    left, top = at[0] + (SIDE - wide) / 2, at[1] + (SIDE - tall) / 2
    extent = (left, left + wide, top + tall, top)
    panel.imshow(picture, extent=extent, aspect="auto", gid="image")
    color, line, gid = (STAYED, 2.6, "stayed") if framed else (RULE, 0.5, "edge")
    panel.add_patch(Rectangle((left, top), wide, tall, fill=False, ec=color, lw=line, gid=gid, clip_on=False))
    return extent


def _mark_position(
    panel: Axes,
    extent: tuple[float, float, float, float],
    *,
    fraction: npt.NDArray[np.float64],
    box: tuple[float, float],
) -> None:
    """Mark a position by a white box with a dark rim, which is seen on any picture."""
    left, right, bottom, top = extent
    tall, wide = (max(LEAST_BOX, part * length) for part, length in zip(box, (bottom - top, right - left), strict=True))
    y, x = top + fraction[0] * (bottom - top), left + fraction[1] * (right - left)
    mark = Rectangle(
        (x - wide / 2, y - tall / 2), wide, tall, fill=False, ec="white", lw=1.1, gid="position", clip_on=False
    )
    mark.set_path_effects([effects.withStroke(linewidth=2.4, foreground=INK)])
    panel.add_patch(mark)


def _caption(
    panel: Axes, layer: PicturedSamples, sample: int, value: float, *, at: tuple[float, float], color: str
) -> None:
    """Write number and class of a sample, cut to the width of a picture, and its value under it."""
    words = str(sample)
    if "class_name" in layer.samples.columns and isinstance(name := layer.samples.loc[sample, "class_name"], str):
        words = f"{words} ({class_title(name)})"
    room = int(SIDE / text_width("x", size=6.5))
    words = words if len(words) <= room else words[: room - 1] + "…"
    left, top = at[0], at[1] + SIDE + 0.045
    for line, said in enumerate((words, f"{value:.3g}")):
        panel.text(left, top + 0.125 * line, said, fontsize=6.5, color=color, ha="left", va="top", parse_math=False)
