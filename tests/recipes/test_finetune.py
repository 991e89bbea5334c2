import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fmcluster as fm
from fmcluster.recipes import FinetuneResult, SnapshotTaken, finetune


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three noisy images of each of two classes for training, two for validation."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for name in ("ants", "bees"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


def finetune_briefly(folder: Path, output: Path, *, seed: int = 0, **options: object) -> FinetuneResult:
    settings: dict[str, object] = {"weights": "none", "epochs": 1, "layers": ["layer4", "fc"], "device": "cpu"}
    return finetune(folder, output=output, random_state=seed, **(settings | options))


@pytest.fixture(scope="module")
def result(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    done = finetune_briefly(folder, tmp_path_factory.mktemp("run") / "run.zarr", snapshots_per_epoch=2, probe_size=2)
    assert torch.equal(torch.get_rng_state(), state)
    return done


@pytest.mark.slow
def test_the_run_holds_what_was_asked_for(result: FinetuneResult) -> None:
    run = fm.open_run(result.run)
    assert run.layers == ["layer4", "fc"]
    assert run.snapshots["epoch"].tolist() == [0, 1, 1]
    assert run.snapshots["step"].tolist() == [0, 1, 2]
    assert run.classes == result.classes == ("ants", "bees")
    assert run["layer4"].shape == (3, 2, 512, 7, 7)
    assert run.samples["label"].tolist() == [0, 1]


@pytest.mark.slow
def test_metrics_lie_beside_the_maps(result: FinetuneResult) -> None:
    metrics = fm.open_run(result.run).metrics
    assert metrics["val_accuracy"].tolist() == [each.accuracy for each in result.snapshots]
    assert metrics["val_loss"].tolist() == [each.loss for each in result.snapshots]
    assert metrics["learning_rate"].tolist() == [0.001] * 3
    assert metrics["train_loss"].isna().tolist() == [True, False, False]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_however_many_snapshots(
    result: FinetuneResult, folder: Path, tmp_path: Path
) -> None:
    again = finetune_briefly(folder, tmp_path / "run.zarr")
    weights, repeated = result.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(weights[key], repeated[key]) for key in weights)


@pytest.mark.slow
def test_a_frozen_backbone_keeps_its_weights(result: FinetuneResult, folder: Path, tmp_path: Path) -> None:
    torch.save(result.model.state_dict(), tmp_path / "a.pt")
    before = torch.load(tmp_path / "a.pt", weights_only=True)
    after = finetune_briefly(
        folder, tmp_path / "b.zarr", weights=str(tmp_path / "a.pt"), freeze=True, layers=["fc"]
    ).model.state_dict()
    assert torch.equal(before["layer4.1.conv2.weight"], after["layer4.1.conv2.weight"])
    assert not torch.equal(before["fc.weight"], after["fc.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs is -1: expected at least 1, or 0 to record the network as it is"),
        ({"mode": "a"}, "mode is 'a'"),
        ({"device": "gpu"}, "unknown device"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"snapshots_per_epoch": 3}, "snapshots_per_epoch is 3: expected 1 to 2"),
        ({"probe_size": 9}, "probe_size is 9: expected 1 to 4"),
        ({"model": "resnet"}, "unknown model"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    options: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        finetune_briefly(folder, tmp_path / "run.zarr", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_epochs_the_network_is_recorded_as_it_is(folder: Path, tmp_path: Path) -> None:
    made = finetune_briefly(folder, tmp_path / "run.zarr", epochs=0, with_weights=True, layers=["layer4", "fc"])
    run = fm.open_run(made.run)
    assert (run.epochs, len(made.snapshots)) == ([0], 1)
    recorded, state = run.read_weights(snapshot=0), made.model.state_dict()
    assert all(np.array_equal(recorded[name], value.numpy()) for name, value in state.items())
    fm.write_report(run, tmp_path / "report.html")  # of one snapshot


@pytest.mark.slow
def test_an_existing_run_is_kept(result: FinetuneResult, folder: Path) -> None:
    with pytest.raises(FileExistsError):
        finetune_briefly(folder, result.run)
    assert len(fm.open_run(result.run).snapshots) == 3


@pytest.mark.slow
def test_ants_and_bees(tmp_path: Path) -> None:
    root = os.environ.get("FMCLUSTER_DATA")
    if root is None:
        pytest.skip("FMCLUSTER_DATA is not set")
    for folder in sorted((Path(root) / "hymenoptera_data").glob("*/*")):  # train and val, each of two classes
        some = tmp_path / "data" / folder.parent.name / folder.name
        some.mkdir(parents=True)
        for image in sorted(folder.glob("*.jpg"))[: 8 if folder.parent.name == "train" else 3]:
            shutil.copy(image, some)
    events: list[object] = []
    done = finetune(
        tmp_path / "data",
        output=tmp_path / "run.zarr",
        weights="none",
        epochs=1,
        batch_size=4,
        progress=events.append,
    )
    run = fm.open_run(done.run)
    assert run.epochs == [0, 1]
    assert run.snapshots["step"].tolist() == [0, 4]
    assert run["conv1"].shape == (2, 6, 64, 112, 112)
    assert run["layer4"].shape == (2, 6, 512, 7, 7)
    assert run["fc"].shape == (2, 6, 2)
    assert run.classes == ("ants", "bees")
    assert [event for event in events if isinstance(event, SnapshotTaken)] == list(done.snapshots)
    # 40 MB, and pytest keeps its folders.
    shutil.rmtree(done.run)


@pytest.mark.slow
def test_runs_of_two_seeds_have_one_probe(folder: Path, result: FinetuneResult, tmp_path: Path) -> None:
    other = finetune_briefly(folder, tmp_path / "other.zarr", seed=2, probe_size=2)
    here, there = (fm.open_run(each.run) for each in (result, other))
    assert here.samples.index.tolist() == there.samples.index.tolist()
    assert [np.array_equal(here.display(each), there.display(each)) for each in here.samples.index] == [True, True]
