"""`fmcluster export`, as a stranger meets it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from sklearn.decomposition import PCA
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmcluster.cli import main
from fmcluster.export._collect import choose, collect
from fmcluster.store import Run
from tests.export.exported_run import HOSTILE_LAYER
from tests.report.test_diverged import record as record_diverging


def call(*arguments: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["fmcluster", "export", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


QUICK = ("--layer", "fc", "--view", "sample", "--no-diagnosis")


@pytest.mark.slow
def test_tensorboard_and_the_projector_share_a_folder_named_after_the_run(short, tmp_path, capsys, monkeypatch):
    logs = tmp_path / "all logs"
    assert call(short.path, "tensorboard", "-o", logs, *QUICK, "--sample", 3, monkeypatch=monkeypatch) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"tensorboard --logdir '{logs}'" in told
    assert call(short.path, "projector", "-o", logs, *QUICK, "--clusters", 2, monkeypatch=monkeypatch) == 0
    assert call(short.path, "projector", "-o", logs, "--layer", HOSTILE_LAYER, monkeypatch=monkeypatch) == 0
    assert [path.name for path in logs.iterdir()] == ["run"]
    tags = EventAccumulator(str(logs / "run")).Reload().Tags()
    assert "fc/channels on sample 3" in tags["images"]
    config = (logs / "run" / "projector_config.pbtxt").read_text()
    assert config.count("tensor_name") == 2
    assert call(short.path, "tensorboard", "-o", logs, *QUICK, monkeypatch=monkeypatch) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert call(short.path, "tensorboard", "-o", logs, *QUICK, "--name", "b", monkeypatch=monkeypatch) == 0
    assert call(short.path, "tensorboard", "-o", logs, *QUICK, "--overwrite", monkeypatch=monkeypatch) == 0
    assert sorted(path.name for path in logs.iterdir()) == ["b", "run"]


@pytest.mark.slow
def test_wandb_says_how_to_send_it(short, tmp_path, capsys, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    try:
        assert call(short.path, "wandb", "-o", tmp_path / "out", *QUICK, monkeypatch=monkeypatch) == 0
    finally:
        wandb.teardown()
    (written,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    assert f"wandb sync {written}" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tensorboard", "-o", "logs", "--layer", "conv9"], "did you mean conv1?"),
        (["tensorboard", "-o", "logs", "--sample", "99"], "no sample 99"),
        (["tensorboard", "-o", "logs", "--view", "chanel"], "did you mean 'channel'?"),
        (["tensorboard", "-o", "logs", "--clusters", "0"], "n_clusters is 0"),
        (["tensorboard", "-o", "logs", "--rows", "5"], "--rows is for the projector"),
        (["tensorboard", "-o", "logs", "--name", "../up"], "--name is '../up'"),
        (["wandb", "-o", "file"], "file is a file"),
        (["projector", "-o", "logs", "--layer", "conv9"], "did you mean conv1?"),
        (["projector", "-o", "logs", "--sample", "1", "--sample", "2"], "on one image"),
        (["projector", "-o", "logs", "--layer", "conv1", "--sample", "99"], "no sample 99"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert call(run.path, *arguments, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert not Path("logs").exists()


@pytest.mark.parametrize(
    ("target", "extra"), [("tensorboard", "tensorboard"), ("projector", "tensorboard"), ("wandb", "wandb")]
)
def test_a_missing_package_is_one_line_that_names_the_extra(run: Run, target, extra, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, extra, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    assert call(run.path, target, "-o", tmp_path / "logs", monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert f"pip install 'fmcluster[{extra}]'" in told
    assert len(told.strip().splitlines()) == 1


@pytest.mark.slow
def test_snapshots_that_are_not_finite_are_left_out_and_named(tmp_path):
    run = record_diverging(tmp_path / "run.zarr", broken=(3,))
    wanted = choose(
        run,
        layers=["2"],
        samples=None,
        view="channel",
        n_clusters=2,
        reducer=PCA(2, random_state=0),
        random_state=0,
        max_bytes=1 << 28,
        diagnosis=True,
        cache=None,
    )
    entries = list(collect(wanted))
    (said,) = [entry for entry in entries if entry.name == "snapshot/diverged"]
    assert said.lines[1:] == ("epoch 3: 1 of 3 layers, the first is 2",)
    drawn = {entry.step.snapshot for entry in entries if entry.name == "2/embedding"}
    assert drawn == {0, 1, 2}
    assert {entry.step.snapshot for entry in entries if entry.name == "metrics/loss"} == {0, 1, 2, 3}
