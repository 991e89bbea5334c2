"""Long runs: snapshots are chosen where change is largest, and the page says so and holds no others."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

import fmcluster as fm
from fmcluster.report.content import choose_snapshots
from tests.report.small_report import Parsed, record


class Stored:
    """Layers whose channels' means follow a path that is given."""

    def __init__(self, path: np.ndarray) -> None:
        import pandas as pd

        n, channels = len(path), 3
        self.statistics = pd.DataFrame(
            {
                "snapshot": np.repeat(np.arange(n), channels),
                "channel": np.tile(np.arange(channels), n),
                "mean": np.repeat(path, channels),
                "std": 1.0,
            }
        )

    def __getitem__(self, name: str) -> "Stored":
        return self


def test_snapshots_lie_close_where_change_is_large_and_as_much_changes_between_any_two() -> None:
    path = np.concatenate([np.linspace(0, 9, 10), np.linspace(9.01, 10, 190)])
    chosen = choose_snapshots(Stored(path), layers=["any"], snapshots=range(200), at_most=11)
    assert len(chosen) == 11
    assert chosen[:9] == tuple(range(9))
    assert chosen[9] in (9, 10)  # 9 and 9.01 of 10
    assert chosen[-1] == 199
    assert choose_snapshots(Stored(path), layers=["any"], snapshots=range(8), at_most=11) == tuple(range(8))


def test_one_jump_and_nothing_else_still_gives_as_many_snapshots_as_asked_for() -> None:
    path = np.where(np.arange(100) < 60, 0.0, 1.0)
    chosen = choose_snapshots(Stored(path), layers=["any"], snapshots=range(100), at_most=6)
    assert len(set(chosen)) == 6
    assert {0, 59, 60, 99} <= set(chosen)


@pytest.mark.slow
def test_the_page_of_a_long_run_says_which_snapshots_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: os.fstat(handle))
    run = record(tmp_path, snapshots=9)
    page = fm.write_report(
        run,
        tmp_path / "page.html",
        layers=["conv1"],
        n_clusters=2,
        reducer=PCA(2, random_state=0),
        max_snapshots=4,
    )
    parsed = Parsed(page.read_text(encoding="utf-8"))
    chosen = choose_snapshots(run, layers=["conv1"], snapshots=range(9), at_most=4)
    assert "Of 9 snapshots, 4 are analyzed and shown" in parsed.text
    assert "Shown: 4 of 9 snapshots" in parsed.text
    assert len(parsed.data["layers"][0]["embedding"]["frames"]) == 4
    expected = [f"epoch {row.epoch}, step {row.step}" for row in run.snapshots.iloc[list(chosen)].itertuples()]
    shown = parsed.data["titles"]
    assert len(shown) == 4
    assert all(title in full for title, full in zip(shown, expected, strict=True))
    with pytest.raises(ValueError, match="max_snapshots is 1; expected at least 2"):
        fm.write_report(run, tmp_path / "page.html", max_snapshots=1)
