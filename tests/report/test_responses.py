"""What channels respond to: said of classes only where a channel gained more of one than chance gives."""

import numpy as np
import pandas as pd

import fmcluster as fm
from fmcluster.report.content._responses import find_responses, largest_gain_by_chance
from tests.report.small_report import Written

N_IMAGES, K = 40, 8


def top_images_of(n_channels, *, seed):
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(N_IMAGES)[:K] for _ in range(n_channels)])


def gains(classes, then, now):
    return [
        max(np.bincount(classes[after])) - max(np.bincount(classes[before]))
        for before, after in zip(then, now, strict=True)
    ]


def test_classes_that_say_nothing_are_hardly_ever_over_the_limit_and_those_that_do_are():
    then, now = top_images_of(64, seed=1), top_images_of(64, seed=2)
    over = 0
    for seed in range(60):
        classes = np.random.default_rng(100 + seed).permutation(np.arange(N_IMAGES) % 4)
        limit = largest_gain_by_chance(pd.Series(classes, index=np.arange(N_IMAGES)), then=then, now=now)
        over += max(gains(classes, then, now)) > limit
    assert over <= 8  # of 60 at most 3 are expected: 9 or more happen once in 400 times
    of_one_class = now.copy()
    of_one_class[5] = np.flatnonzero(np.arange(N_IMAGES) % 4 == 2)[:K]
    classes = np.arange(N_IMAGES) % 4
    limit = largest_gain_by_chance(pd.Series(classes, index=np.arange(N_IMAGES)), then=then, now=of_one_class)
    assert gains(classes, then, of_one_class)[5] > limit > 0


def test_images_are_known_by_their_index_wherever_they_stand():
    then, now = top_images_of(16, seed=3), top_images_of(16, seed=4)
    labels = pd.Series(np.arange(N_IMAGES) % 3, index=np.arange(N_IMAGES))
    moved = pd.Series(labels.to_numpy(), index=labels.index + 7)
    assert largest_gain_by_chance(labels, then=then, now=now) == largest_gain_by_chance(
        moved, then=then + 7, now=now + 7
    )


def test_of_noise_no_class_is_told_of_any_channel(written: Written) -> None:
    found = fm.top_images(written.run["conv1"], k=K, snapshots=[0, 2])
    said = find_responses(written.run, found, titles=("epoch 0", "epoch 1"))
    assert said is not None
    assert "no channel's came to be of one class by more than chance gives" in said.sentences[0]
    assert said.chosen == "Those that exchanged most:"
    kept = [
        len(set(before.tolist()) & set(after.tolist()))
        for before, after in zip(found.samples[0], found.samples[-1], strict=True)
    ]
    shown = [int(each.text.split()[0]) for each in said.channels]
    assert shown == sorted(kept)[:3]
    assert all("class" not in each.text for each in said.channels)
