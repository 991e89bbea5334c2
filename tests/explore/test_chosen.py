"""Points that are chosen: by name, by cluster; their classes and their neighbors are those counted by hand."""

import numpy as np
import pytest

from fmcluster.explore._chosen import class_mix, nearest, rows_named, rows_of_cluster
from fmcluster.explore._questions import ContentOf, TopImagesOf
from fmcluster.report.content import LayerContent
from fmcluster.store import Run
from tests.explore.explored_run import HOSTILE


@pytest.fixture
def channels(run: Run) -> LayerContent:
    return ContentOf("2", n_clusters=3).answer(run, print)


@pytest.fixture
def images(run: Run) -> LayerContent:
    return ContentOf("2", view="sample", n_clusters=3).answer(run, print)


def test_a_number_is_looked_for_as_a_whole_and_a_text_anywhere(channels: LayerContent, images: LayerContent) -> None:
    assert rows_named(channels, " 1 ") == [1]
    assert rows_named(channels, "11") == [11]
    assert rows_named(channels, "CHANNEL") == list(range(12))
    assert rows_named(channels, "nobody") == []
    assert rows_named(images, "bees") == [1, 3, 5, 7, 9, 11]


def test_a_cluster_holds_its_rows_at_that_snapshot(channels: LayerContent) -> None:
    for snapshot in range(3):
        found = [rows_of_cluster(channels, label, snapshot=snapshot) for label in range(3)]
        assert sorted(row for rows in found for row in rows) == list(range(12))
        for label, rows in enumerate(found):
            assert (channels.labels[snapshot, rows] == label).all()


def test_classes_are_counted_among_the_chosen_and_among_all(images: LayerContent) -> None:
    assert class_mix(images, [1, 3, 2]) == {"bees": (2, 6), HOSTILE: (1, 6)}
    assert list(class_mix(images, [0, 2])) == [HOSTILE, "bees"]


def test_classes_of_channels_are_those_of_their_top_images(run: Run, channels: LayerContent) -> None:
    found = TopImagesOf("2").answer(run, print)
    assert class_mix(channels, [4]) == {}
    mix = class_mix(channels, [4, 7], found=found)
    bees = sum(int(sample) % 2 == 1 for channel in (4, 7) for sample in found.samples[-1, channel])
    assert mix["bees"][0] == bees
    assert mix["bees"][0] + mix[HOSTILE][0] == 10
    assert mix["bees"][1] + mix[HOSTILE][1] == 12 * 5


def test_neighbors_are_those_of_the_vectors_and_chance_is_counted(run: Run, channels: LayerContent) -> None:
    found = nearest(channels, row=5, snapshot=2, n_neighbors=4)
    maps = np.stack([run["2"].read(snapshot=k) for k in range(3)]).astype(np.float64)
    vectors = maps.swapaxes(1, 2).reshape(3, 12, -1)
    for at, rows in ((0, found.then), (2, found.now)):
        distance = np.linalg.norm(vectors[at] - vectors[at, 5], axis=1)
        distance[5] = np.inf
        assert list(rows) == np.argsort(distance)[:4].tolist()
    assert found.shared == len(set(found.then) & set(found.now))
    assert found.chance == pytest.approx(16 / 11)
    assert nearest(channels, row=5, snapshot=0).shared == 8
