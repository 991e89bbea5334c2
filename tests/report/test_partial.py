"""A report of a live run of which some channels were kept: whatever is named is named by the module's numbers."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

import fmcluster as fm
from fmcluster.store import LayerSpec, Run, RunWriter
from tests.report.small_report import Parsed

CHANNELS = (31, 4, 90, 17, 63, 52)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two snapshots of shuffled samples; sample 0 is in the second only."""
    rng = np.random.default_rng(0)
    spec = LayerSpec("conv1", (6, 4, 4), "float16", "Conv2d", output=(96, 4, 4), channels=CHANNELS)
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([spec], n_samples=4, shard_samples=2, kind="live")
        writer.describe_session(
            {"model": "m.Net", "device": "cpu", "dtype": "float16", "batch_size": 2, "versions": {}, "notes": {}}
        )
        for epoch, index in enumerate(([5, 3, 8, -1], [8, 0, 3, 5])):
            for offset in (0, 2):
                values = rng.normal(size=(2, 6, 4, 4)).astype(np.float16)
                writer.write("conv1", offset=offset, values=values)
            statistics = {("conv1", "activation"): np.vstack([rng.random((5, 6)), np.zeros(6)])}
            writer.commit(epoch=epoch, step=epoch, index=np.array(index), statistics=statistics, metrics={}, clipped={})
    return fm.open_run(tmp_path / "run.zarr")


@pytest.mark.parametrize("view", ["channel", "sample"])
def test_channels_and_samples_are_those_of_the_module_and_the_data_set(view: str, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    fm.write_report(run, target, view=view, layers=["conv1"], n_clusters=2, reducer=PCA(2, random_state=0))
    parsed = Parsed(target.read_text(encoding="utf-8"))
    named = {int(number) for number in re.findall(r"\bchannel (\d+)", parsed.text)}
    assert named
    assert named <= set(CHANNELS)
    assert "6 channels of 96, feature maps of 4 × 4" in parsed.text
    assert "what the network saw: sample 3" in parsed.text
    assert "images in a snapshot 4" in parsed.text
    assert "the images that every snapshot holds" in parsed.text


def test_a_sample_that_not_every_snapshot_holds_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sample=0; expected one of the 3 samples that every snapshot holds"):
        fm.write_report(run, tmp_path / "report.html", sample=0)
