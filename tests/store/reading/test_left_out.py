"""What a run lacks, over all of its sessions."""

from pathlib import Path
from types import ModuleType

from fmcluster.store import RunWriter, layers_left_out, missing_snapshots, open_run


def test_what_all_sessions_missed_and_what_the_last_one_left_out(tmp_path: Path, contents: ModuleType) -> None:
    path = tmp_path / "run.zarr"
    contents.record(path, mode="x", n_snapshots=1)
    assert missing_snapshots(open_run(path)) == []
    assert layers_left_out(open_run(path)) == {}
    lost = [{"epoch": epoch, "step": 3 * epoch, "reason": "disk full"} for epoch in (4, 7)]
    for session, name in zip(lost, ("a", "b"), strict=True):
        with RunWriter(path, mode="a") as writer:
            writer.describe_session({"missing": [session], "left_out": {name: "never called"}})
            writer.replace_root()
    assert missing_snapshots(open_run(path)) == lost
    assert layers_left_out(open_run(path)) == {"b": "never called"}
