"""Seconds of the parts of recording: what runs side by side is not added up, what takes turns is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcluster.capture import RecordingSeconds

CPU = ("forward", "copy", "encode")


@pytest.mark.parametrize(
    ("parts", "in_turn", "total", "bound"),
    [
        ((9, 2, 1, 5), CPU, 12, "forward"),
        ((2, 9, 1, 5), CPU, 12, "copy"),
        ((1, 2, 9, 5), CPU, 12, "encode"),
        ((4, 4, 4, 13), CPU, 13, "disk"),
        ((4, 4, 4, 11), CPU, 12, "forward"),  # less than the three together, though more than each
        ((3, 4, 6, 1), ("forward", "copy"), 7, "copy"),
        ((3, 4, 8, 1), ("forward", "copy"), 8, "encode"),
        ((9, 2, 1, 5), (), 9, "forward"),
        ((1, 9, 2, 5), (), 9, "copy"),
        ((1, 2, 9, 5), (), 9, "encode"),
        ((1, 2, 5, 9), (), 9, "disk"),
    ],
)
def test_the_longest_of_what_runs_side_by_side_bounds_the_run(
    parts: tuple[float, ...], in_turn: tuple[str, ...], total: float, bound: str
) -> None:
    seconds = RecordingSeconds(*parts, in_turn)
    assert (seconds.total, seconds.bound) == (total, bound)


def test_it_says_which_and_by_how_much() -> None:
    assert str(RecordingSeconds(9, 2, 1, 5, CPU)) == (
        "The forward pass bounds the run. What takes turns (the forward pass 9 s, the copy 2 s, the encoder 1 s) adds "
        "up to 12 s; beside it: the disk 5 s."
    )
    assert str(RecordingSeconds(1, 0.5, 0.25, 5, CPU)) == (
        "The disk bounds the run: it takes 5 s; what takes turns (the forward pass 1 s, the copy 0.5 s, the encoder "
        "0.25 s) adds up to 1.75 s."
    )
    assert str(RecordingSeconds(0.001, 0.02, 3, 1234.5, ())) == (
        "The disk bounds the run: it takes 1234 s; beside it: the forward pass 0.001 s, the copy 0.02 s, the encoder "
        "3 s."
    )


seconds = st.floats(0, 1e6)


@given(parts=st.tuples(seconds, seconds, seconds, seconds), in_turn=st.sampled_from([(), CPU[:2], CPU]))
def test_a_run_takes_no_less_than_any_part_and_no_more_than_all(
    parts: tuple[float, ...], in_turn: tuple[str, ...]
) -> None:
    whole = RecordingSeconds(*parts, in_turn)
    assert max(parts) <= whole.total <= sum(parts) * (1 + 1e-12)
    assert whole.times(2).total == pytest.approx(2 * whole.total)
    assert whole.times(2).bound == whole.bound
