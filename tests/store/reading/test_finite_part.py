"""Finite part: snapshots, samples and layers that are left out, each only where nothing would be left with it."""

import numpy as np
import pytest

from fmcluster.store import NotFinite, finite_parts
from tests.analysis.planted_runs import N_SAMPLES, write_run


def planted(path, **broken):
    """Layers a, b and c of four snapshots, 4 channels; `broken` sets a layer's (snapshot, sample, channel) to NaN."""
    maps = {name: np.ones((4, N_SAMPLES, 4, 3, 3)) for name in "abc"}
    for name, places in broken.items():
        for place in places:
            maps[name][place] = np.nan
    return write_run(path / "run.zarr", {name: ("Conv2d", values) for name, values in maps.items()})


EVERY = np.s_[:]


def test_of_a_finite_run_it_is_all(tmp_path):
    part = planted(tmp_path).finite_part()
    assert (part.layers, part.snapshots, part.samples) == (["a", "b", "c"], [0, 1, 2, 3], None)
    assert part.left_out.lines == []


def test_snapshots_alone_are_left_out_where_some_are_finite(tmp_path):
    run = planted(tmp_path, b=[np.s_[2]], c=[np.s_[2:, 5]])
    part = run.finite_part()
    assert (part.layers, part.snapshots, part.samples) == (["a", "b", "c"], [0, 1], None)
    assert part.left_out.snapshots["first"].tolist() == ["b", "c"]
    assert part.left_out.n_layers == 3


def test_a_layer_that_is_finite_nowhere_is_left_out_unless_it_was_asked_for(tmp_path):
    run = planted(tmp_path, b=[EVERY], c=[np.s_[3]])
    part = run.finite_part()
    assert (part.layers, part.snapshots, part.samples) == (["a", "c"], [0, 1, 2], None)
    assert part.left_out.lines == [
        "Left out: epoch 3 (snapshot 3), where 1 of 2 layers gave NaN or infinite values, c first.",
        "Left out: layer b, which gave NaN or infinite values at every snapshot.",
    ]
    with pytest.raises(ValueError, match=r"each of the 4 snapshots, .* 'b' before others.* such as 'a'$"):
        run.finite_part(layers=["a", "b"])


def test_a_channel_that_is_finite_nowhere_takes_its_layer_with_it(tmp_path):
    part = planted(tmp_path, b=[np.s_[:, :, 2]]).finite_part()
    assert part.layers == ["a", "c"]
    said = "Left out: layer b, which gave NaN or infinite values at every snapshot, in at least 1 of 4 channels."
    assert part.left_out.lines == [said]


def test_samples_are_left_out_where_most_others_are_finite(tmp_path):
    run = planted(tmp_path, a=[np.s_[:, 3], np.s_[2]], b=[np.s_[:, 3, 1, 0, 0], np.s_[1:3, 5]], c=[np.s_[:, 3]])
    part = run.finite_part()
    assert (part.layers, part.snapshots) == (["a", "b", "c"], [0, 3])
    assert part.samples.tolist() == [number for number in range(N_SAMPLES) if number != 3]
    assert part.left_out.samples.tolist() == [3]
    assert part.left_out.snapshots["snapshot"].tolist() == [1, 2]
    assert part.left_out.lines[-1] == "Left out: sample 3, of which layers gave NaN or infinite values."
    alone = run.finite_part(layers=["a"])
    assert (alone.snapshots, alone.left_out.samples.tolist()) == ([0, 1, 3], [3])
    assert alone.left_out.lines[-1] == "Left out: sample 3, of which it gave NaN or infinite values."


def test_more_than_half_of_the_samples_are_not_left_out_but_the_layer_is(tmp_path):
    half, more = tmp_path / "half", tmp_path / "more"
    half.mkdir(), more.mkdir()
    part = planted(half, b=[np.s_[:, : N_SAMPLES // 2]]).finite_part()
    assert (part.layers, len(part.samples)) == (["a", "b", "c"], N_SAMPLES - N_SAMPLES // 2)
    part = planted(more, b=[np.s_[:, : N_SAMPLES // 2 + 1]]).finite_part()
    assert (part.layers, part.samples) == (["a", "c"], None)


def test_layers_without_a_snapshot_in_common_are_left_out_one_by_one(tmp_path):
    part = planted(tmp_path, a=[np.s_[0]], b=[np.s_[1:]]).finite_part()
    assert (part.layers, part.snapshots) == (["a", "c"], [1, 2, 3])
    assert part.left_out.lines[-1] == "Left out: layer b, which gave NaN or infinite values at 3 of 4 snapshots."


def test_a_layer_that_is_seldom_finite_does_not_take_the_snapshots_of_all_others_with_it(tmp_path):
    part = planted(tmp_path, c=[np.s_[1:]]).finite_part()
    assert (part.layers, part.snapshots) == (["a", "b"], [0, 1, 2, 3])
    assert part.left_out.lines == ["Left out: layer c, which gave NaN or infinite values at 3 of 4 snapshots."]


def test_samples_that_a_layer_which_is_left_out_lost_are_not(tmp_path):
    """Another sample of the layer at each snapshot: one is not enough to keep it."""
    run = planted(tmp_path, c=[np.s_[number, number] for number in range(4)])
    part = run.finite_part()
    assert (part.layers, part.snapshots, part.samples) == (["a", "b"], [0, 1, 2, 3], None)
    assert part.left_out.lines[-1].startswith("Left out: layer c, which gave NaN or infinite values at every snapshot")


@pytest.mark.slow
def test_where_most_layers_diverge_the_snapshots_before_are_what_is_left(tmp_path):
    part = planted(tmp_path, b=[np.s_[2:]], c=[np.s_[2:]]).finite_part()
    assert (part.layers, part.snapshots) == (["a", "b", "c"], [0, 1])
    folder = tmp_path / "early"
    folder.mkdir()
    part = planted(folder, a=[np.s_[3]], b=[np.s_[1:]], c=[np.s_[1:]]).finite_part()
    assert (part.layers, part.snapshots) == (["a", "b", "c"], [0])


@pytest.mark.slow
def test_two_runs_have_the_layers_that_are_finite_in_both(tmp_path):
    one, other, third = tmp_path / "one", tmp_path / "other", tmp_path / "third"
    one.mkdir(), other.mkdir(), third.mkdir()
    runs = [planted(one, a=[EVERY], b=[np.s_[1]]), planted(other, c=[np.s_[:, 2]])]
    first, second = finite_parts(runs, ["a", "b", "c"], chosen=False)
    assert first.layers == second.layers == ["b", "c"]
    assert (first.snapshots, second.snapshots) == ([0, 2, 3], [0, 1, 2, 3])
    assert first.left_out.layers["layer"].tolist() == ["a"]
    assert second.left_out.lines == ["Left out: sample 2, of which layers gave NaN or infinite values."]
    with pytest.raises(ValueError, match="no layer is finite at a snapshot of each of the runs"):
        finite_parts([runs[0], planted(third, b=[EVERY], c=[EVERY])], ["a", "b", "c"], chosen=False)


@pytest.mark.slow
def test_of_several_runs_the_one_without_anything_finite_is_named(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    runs = [planted(one), planted(other, a=[EVERY], b=[EVERY], c=[EVERY])]
    with pytest.raises(ValueError, match=r"^of .*other/run.zarr, at each of the 4 snapshots, layers gave NaN"):
        finite_parts(runs, ["a", "b", "c"], chosen=False)
    with pytest.raises(ValueError, match=r"^at each of the 4 snapshots"):
        finite_parts(runs[1:], ["a", "b", "c"], chosen=False)
    nothing = runs[1].finiteness.part_if_any(["a", "b"])
    assert (nothing.layers, nothing.snapshots, nothing.left_out.layers["layer"].tolist()) == ([], [], ["a", "b"])


def test_values_beyond_a_reduction_break_nothing_that_is_stored(tmp_path):
    """Statistics are of the whole output: where they tell of NaN that was cropped away, what is stored is finite."""
    run = planted(tmp_path, b=[np.s_[:, 3]])
    for snapshot in range(4):
        run.finiteness.counts("a")[snapshot, 0] = 1
    part = run.finite_part()
    assert (part.layers, part.left_out.samples.tolist()) == (["a", "b", "c"], [3])


def test_many_are_counted() -> None:
    import pandas as pd

    layers = pd.DataFrame(
        {"layer": [f"l{n}" for n in range(8)], "snapshots": 2, "of_snapshots": 2, "channels": 4, "of_channels": 4}
    )
    said = NotFinite(layers=layers, samples=np.arange(7), n_layers=2).lines
    assert said[-2:] == [
        "Left out: 3 more such layers, to l7.",
        "Left out: samples 0, 1, 2, 3, 4 and 2 more, of which layers gave NaN or infinite values.",
    ]
    assert len(said) == 7
