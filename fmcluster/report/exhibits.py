"""The images that drive a channel most, then and now, as thumbnails."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fmcluster.analysis import Exemplars, exemplars
from fmcluster.analysis.saving import Saved
from fmcluster.store import Run

from .assemble import Study

PER_CHANNEL = 4
SIDE, ACROSS, MOST = 56, 16, 400

Shown = list[list[list[list[float | int | None]]]]  # snapshot, row, rank: sample, and where in it


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures of inputs: squares of `side` pixels on one sheet, `across` in a line.

    Attributes
    ----------
    uri : str
        The sheet.
    side, across : int
        Pixels of a square, and squares in a line.
    places : dict of int to int
        By dataset index, which square is its.
    """

    uri: str
    side: int
    across: int
    places: dict[int, int]


def find_exemplars(study: Study, *, saved: Saved | None, max_bytes: int) -> Shown | None:
    """Return the strongest four images of each row at the first and the last snapshot, and where in them.

    Returns
    -------
    list or None
        Of each snapshot (one where there is one), row and rank: dataset index, and the place as shares of height and
        width (None where the layer has no places). None where rows are not channels.
    """
    if study.scores.identity != ["channel"]:
        return None
    layer = study.layer
    every = layer.snapshots["snapshot"].tolist()
    ends = sorted({int(every[0]), int(every[-1])})

    def find() -> Exemplars:
        return exemplars(layer, k=PER_CHANNEL, snapshots=ends, max_bytes=max_bytes)

    found = (
        find()
        if saved is None
        else saved.use(
            find,
            Exemplars,
            verb="exemplars",
            vectors=layer.vectors("sample", snapshots=ends),
            parameters={"k": PER_CHANNEL},
        )
    )
    # rows of the study are all channels, or some of them drawn
    rows = study.scores.rows["channel"].to_numpy()[: study.n_rows]
    places = [layer.channels.tolist().index(channel) for channel in rows.tolist()]
    return [
        [
            [
                [int(sample), *(None if np.isnan(share) else round(float(share), 3) for share in at)]
                for sample, at in zip(samples[place], fractions[place], strict=True)
                if sample >= 0
            ]
            for place in places
        ]
        for samples, fractions in zip(found.samples, found.fractions, strict=True)
    ]


def make_thumbnails(run: Run, shown: Sequence[Shown | None]) -> Thumbnails | None:
    """Draw the images that are exemplars somewhere, 400 at most, the most frequent ones first.

    None where the run has no pictures of its inputs, or there are no exemplars.
    """
    counts = Counter(int(image[0] or 0) for each in shown if each for rows in each for row in rows for image in row)
    wanted = [sample for sample, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST]]
    if not wanted or run.display(wanted[0]) is None:
        return None
    sheet = np.zeros((-(-len(wanted) // ACROSS) * SIDE, min(len(wanted), ACROSS) * SIDE, 3), np.uint8)
    for place, sample in enumerate(wanted):
        picture = Image.fromarray(np.asarray(run.display(sample))).resize((SIDE, SIDE), Image.Resampling.BOX)
        top, left = place // ACROSS * SIDE, place % ACROSS * SIDE
        sheet[top : top + SIDE, left : left + SIDE] = np.asarray(picture)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="webp", quality=72, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnails(uri, SIDE, ACROSS, {sample: place for place, sample in enumerate(wanted)})


def thumbnails_data(thumbnails: Thumbnails | None) -> dict[str, Any] | None:
    """Return thumbnails as JSON."""
    if thumbnails is None:
        return None
    places = {str(sample): place for sample, place in thumbnails.places.items()}
    return {"uri": thumbnails.uri, "side": thumbnails.side, "across": thumbnails.across, "places": places}
