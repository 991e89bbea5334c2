"""Which parts of a snapshot are read for scattered samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcluster.store.reading._slots import boxes, last_slots, ranges


@given(index=st.lists(st.integers(-1, 6), min_size=1, max_size=12), samples=st.lists(st.integers(-3, 9), max_size=9))
def test_a_sample_is_in_the_last_slot_that_holds_it(index: list[int], samples: list[int]) -> None:
    where = {sample: slot for slot, sample in enumerate(index) if sample >= 0}
    found = last_slots(np.array(index), np.array(samples, dtype=np.int64))
    assert found.tolist() == [where.get(sample, -1) for sample in samples]


@pytest.mark.slow
@settings(max_examples=300)
@given(data=st.data(), chunk=st.integers(1, 4), per_shard=st.integers(1, 5), widen=st.booleans())
def test_boxes_hold_what_is_wanted_and_little_else(
    data: st.DataObject, chunk: int, per_shard: int, widen: bool
) -> None:
    shard = chunk * per_shard
    n_slots = data.draw(st.integers(1, 4 * shard))
    wanted = data.draw(st.lists(st.integers(0, n_slots - 1), unique=True).map(sorted))
    found = list(boxes(np.array(wanted, np.int64), n_slots=n_slots, chunk=chunk, shard=shard, widen=widen))
    covered = [slot for box in found for slot in range(box.start, box.stop)]
    assert covered == sorted(set(covered)), "in order, and nothing twice"
    assert set(wanted) <= set(covered) <= set(range(n_slots))
    chunks = [set(range(box.start // chunk, -(-box.stop // chunk))) for box in found]
    assert sum(map(len, chunks)) == len(set().union(*chunks)), "no chunk is decoded twice"
    wanted_chunks = {slot // chunk for slot in wanted}
    for box, inside in zip(found, chunks, strict=True):
        of_a_shard = box.stop <= (box.start // shard + 1) * shard
        if not inside <= wanted_chunks:
            assert widen
            assert of_a_shard
            assert 2 * len(inside & wanted_chunks) > per_shard
        if not of_a_shard:
            assert set(range(box.start, box.stop)) <= set(wanted)


def test_a_whole_snapshot_is_one_box_though_the_last_shard_is_cut() -> None:
    everything = np.arange(11)
    for widen in (True, False):
        assert list(boxes(everything, n_slots=11, chunk=2, shard=4, widen=widen)) == [slice(0, 11)]


@pytest.mark.parametrize(
    ("numbers", "said"), [([], ""), ([3], "3"), ([3, 4], "3 to 4"), (np.array([9, 1, 2, 3, 7]), "1 to 3, 7, 9")]
)
def test_numbers_are_said_as_ranges(numbers: object, said: str) -> None:
    assert ranges(numbers) == said
