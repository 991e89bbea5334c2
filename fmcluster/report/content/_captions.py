"""Captions of clusters: how large each is, the images that stand for it, and the classes of these."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...plot.drawing import class_in_words
from ...store import Run
from ._feature_maps import Picture
from ._image_strips import image_strip
from ._layer_content import LayerContent
from ._top_images import ShownImages

IMAGES, CLASSES = 6, 3


@dataclass(frozen=True)
class Caption:
    """What a cluster is, at the last snapshot.

    Attributes
    ----------
    n_members : int
        How many rows.
    mix : str
        The most frequent classes of the members' images, with their shares, beside those of the probe; empty where
        classes are not known. Not escaped.
    picture : Picture or None
        The images that most members have among theirs.
    """

    n_members: int
    mix: str
    picture: Picture | None


def find_captions(run: Run, content: LayerContent, *, shown: list[ShownImages]) -> dict[int, Caption]:
    """Return a caption for each cluster that has members at the last snapshot.

    Parameters
    ----------
    run : Run
        For pictures and classes.
    content : LayerContent
        The clusters.
    shown : list of ShownImages
        The images of each row; the last list is that of the last snapshot. None: captions without images.
    """
    labels = content.labels[-1]
    captions = {}
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        images = [int(image[0] or 0) for row in members for image in shown[-1].rows[row]] if shown else []
        wanted = [image for image, _ in Counter(images).most_common(IMAGES)]
        captions[label] = Caption(
            n_members=len(members),
            mix=_mix(run, images),
            picture=image_strip(run, wanted, what="images that drive most members"),
        )
    return captions


def _mix(run: Run, images: list[int]) -> str:
    if not images or "label" not in run.samples:
        return ""
    known = run.samples["label"]
    labels = known.reindex(images, fill_value=-1).to_numpy(np.int64)
    if (labels < 0).any():
        return ""
    whole = known[known >= 0]
    counts = Counter(labels.tolist()).most_common(CLASSES)
    return ", ".join(
        f"{_name(run, label)}: {count / len(labels):.0%} (probe {(whole == label).mean():.0%})"
        for label, count in counts
    )


def _name(run: Run, label: int) -> str:
    return class_in_words(run.classes[label] if 0 <= label < len(run.classes) else str(label))
