"""Finite rows: of a layer in which channels are never finite, the others."""

import numpy as np
import pytest

from fmcluster.store import describe_excluded, part_by_rows, snapshots_by_rows, without_broken_rows
from tests.analysis.planted_runs import N_SAMPLES, write_run


@pytest.fixture
def run(tmp_path):
    """Of layer a, channel 1 is never finite, and at snapshot 2 three of four are not; layer b never is."""
    a, b, c = np.random.default_rng(0).normal(size=(3, 4, N_SAMPLES, 4, 3, 3))
    a[:, :, 1], a[2, :, :3], b[:] = np.nan, np.inf, np.nan
    return write_run(
        tmp_path / "run.zarr", {name: ("Conv2d", maps) for name, maps in zip("abc", (a, b, c), strict=True)}
    )


def test_the_snapshots_at_which_most_channels_are_finite_are_taken(run):
    part = part_by_rows(run, "a")
    assert (part.snapshots, part.samples) == ([0, 1, 3], None)
    assert part.left_out.lines == ["Left out: epoch 2 (snapshot 2), where it gave NaN or infinite values."]
    assert part_by_rows(run, "c").snapshots == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at each of the 4 snapshots"):
        part_by_rows(run, "b")


@pytest.mark.parametrize(("view", "rows"), [("channel", 3), ("feature_map", 3 * N_SAMPLES)])
def test_rows_that_are_not_finite_are_left_out_and_named(run, view, rows):
    found = without_broken_rows(run["a"].vectors(view, snapshots=[0, 1, 3]))
    assert found.rows_per_snapshot == rows
    assert np.isfinite(found.to_numpy()).all()
    (said,) = describe_excluded(found)
    assert said.startswith(f"Left out: {rows // 3} of {rows // 3 * 4} rows of the {view} view of a (")
    assert "channel 1" in said
    assert said.endswith("which hold NaN or infinite values.")


def test_where_every_row_is_broken_the_view_is_refused(run):
    with pytest.raises(ValueError, match="every row of the sample view of a"):
        without_broken_rows(run["a"].vectors("sample", snapshots=[0]))


def test_what_is_finite_is_not_read(run, monkeypatch):
    vectors = run["c"].vectors("channel")
    monkeypatch.setattr(type(vectors), "nonfinite_rows", None)
    assert without_broken_rows(vectors) is vectors
    assert describe_excluded(vectors) == []


def test_snapshots_of_a_gradient_are_those_at_which_it_is_finite(tmp_path):
    maps = np.ones((5, N_SAMPLES, 4, 3, 3))
    maps[1] = np.nan
    maps[2, :, :1] = np.nan
    layer = write_run(tmp_path / "run.zarr", {"a": ("Conv2d", maps)})["a"]
    assert snapshots_by_rows(layer, [0, 1, 2, 3]) == [0, 3]
    assert snapshots_by_rows(layer, [1, 2]) == [2]
    assert snapshots_by_rows(layer, [1]) == [1]


def test_a_view_without_rows_of_single_channels_says_which_has_them(run):
    with pytest.raises(ValueError, match="somewhere; take the channel view, of which those that are finite stay"):
        run["a"].vectors("sample").without_nonfinite()
