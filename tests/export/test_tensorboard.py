"""What TensorBoard finds in an export: read back with its own reader of events."""

import html
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.io_wrapper import GetLogdirSubdirectories
from tensorboard.util import tensor_util

from fmcluster import diagnose, export, open_run, plot
from fmcluster.errors import StoreError
from fmcluster.export import to_tensorboard
from fmcluster.export._rasterize import DPI, pixels_of
from fmcluster.store import Run
from tests.export.exported_run import HOSTILE_LAYER, record

pytestmark = pytest.mark.slow


def read(folder: Path) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


def events_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def decoded(event) -> np.ndarray:
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        return np.asarray(image.convert("RGB"))


def scalars(events: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(name)]


@pytest.fixture(scope="module")
def stages() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def events(run: Run, tmp_path_factory: pytest.TempPathFactory, stages: list[tuple[str, int, int]]) -> EventAccumulator:
    folder = tmp_path_factory.mktemp("logs") / "new" / "run"
    arguments = {"layers": [HOSTILE_LAYER], "samples": [2], "n_clusters": 3}
    assert to_tensorboard(run, folder, **arguments, progress=lambda *stage: stages.append(stage)) == folder
    assert len(events_of(folder)) == 1
    return read(folder)


def test_metrics_are_scalars_at_their_optimizer_steps_and_those_not_recorded_are_left_out(events, run):
    assert scalars(events, "metrics/val_accuracy") == [(0, 0.25), (4, 0.5), (10, 0.75)]
    assert scalars(events, "metrics/loss") == [(4, 1.0), (10, 0.5)]
    assert scalars(events, "snapshot/epoch") == [(0, 0), (4, 1), (10, 1)]


@pytest.mark.parametrize("name", ["mean", "std", "zeros"])
def test_statistics_are_means_over_channels_and_histograms_of_them(events, run, name):
    layer = HOSTILE_LAYER
    by_step = run[layer].statistics.groupby("step")[name]
    logged = dict(scalars(events, f"{layer}/{name}"))
    assert list(logged) == [0, 4, 10]
    np.testing.assert_allclose(list(logged.values()), by_step.mean(), rtol=1e-6)
    for event, (step, values) in zip(events.Histograms(f"{layer}/{name} of channels"), by_step, strict=True):
        assert event.step == step
        assert event.histogram_value.num == run[layer].n_channels
        assert event.histogram_value.sum == pytest.approx(values.sum(), rel=1e-6)


def test_the_channel_grid_is_an_image_at_every_step_and_is_the_figure(events, run):
    images = events.Images(f"{HOSTILE_LAYER}/channels on sample 2")
    assert [image.step for image in images] == [0, 4, 10]
    for snapshot, image in enumerate(images):
        figure = plot.channel_grid(run[HOSTILE_LAYER], snapshot=snapshot, sample=2)
        np.testing.assert_array_equal(decoded(image), pixels_of(figure))
    assert not np.array_equal(decoded(images[0])[200:300], decoded(images[2])[200:300])


def test_every_picture_is_there_once_at_the_last_step_or_at_each(events):
    expected = {
        "channels on sample 2": [0, 4, 10],
        "embedding": [0, 4, 10],
        "evolution on sample 2": [10],
        "statistics": [10],
        "embeddings": [10],
        "trajectories": [10],
        "flow": [10],
        "churn of clusters": [10],
        "similarity of snapshots": [10],
    }
    names = {f"{HOSTILE_LAYER}/{picture}": steps for picture, steps in expected.items()}
    names |= {"diagnosis/convergence": [10], "diagnosis/channels": [10], "diagnosis/similarity of layers": [0, 4, 10]}
    assert {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]} == names
    for tag in names:
        for image in events.Images(tag):
            assert decoded(image).shape == (image.height, image.width, 3)
            assert decoded(image).std() > 5


def test_what_diagnose_measured_and_says_is_logged(events, run):
    findings = diagnose(run)
    for measure in ("dead", "duplicates", "drift", "cka_to_last", "effective_rank"):
        rows = findings.rows(measure, layer=HOSTILE_LAYER)
        steps, logged = zip(*scalars(events, f"{HOSTILE_LAYER}/{measure}"), strict=True)
        assert list(steps) == rows["step"].tolist()
        np.testing.assert_allclose(logged, rows["value"], rtol=1e-6)
    assert dict(scalars(events, f"{HOSTILE_LAYER}/dead")) == {0: 0, 4: 1, 10: 1}
    (event,) = events.Tensors("diagnosis/findings/text_summary")
    (said,) = tensor_util.make_ndarray(event.tensor_proto).tolist()
    lines = [line.removeprefix("- ") for line in said.decode().splitlines()]
    assert [html.unescape(re.sub(r"\\(.)", r"\1", line)) for line in lines] == str(findings).splitlines()
    assert HOSTILE_LAYER in str(findings)
    assert "<" not in said.decode()


def test_a_name_is_of_one_kind_so_that_it_can_be_a_key(events):
    tags = events.Tags()
    names = [name for kind in ("scalars", "images", "histograms", "tensors") for name in tags[kind]]
    assert len(names) == len(set(names)) > 30


def test_churn_is_a_scalar_at_the_step_it_leads_to(events):
    assert [step for step, _ in scalars(events, f"{HOSTILE_LAYER}/churn")] == [4, 10]
    assert all(0 <= value <= 1 for _, value in scalars(events, f"{HOSTILE_LAYER}/churn"))


def test_progress_counts_every_stage(events, stages):
    names, done, totals = zip(*stages, strict=True)
    assert done == tuple(range(len(stages)))
    assert set(totals) == {len(stages)}
    assert names[0] == "metrics and statistics"


def test_results_are_saved_beside_the_run_and_no_figure_is_left_in_pyplot(events, run, tmp_path):
    assert list(Path(f"{run.path}.results").iterdir())
    quick(run, tmp_path)
    assert plt.get_fignums() == []


def test_pixels_are_those_of_the_whole_figure_at_its_resolution():
    axes = plt.figure(figsize=(3, 2)).subplots()
    axes.set_position([0, 0, 1, 1])
    axes.set_axis_off()
    axes.imshow([[[255, 0, 0]]], aspect="auto")
    pixels = pixels_of(axes)
    assert pixels.shape == (2 * DPI, 3 * DPI, 3)
    assert (pixels[2:-2, 2:-2] == (255, 0, 0)).all()
    assert plt.get_fignums() == []


def quick(run: Run, folder: Path, **others: object) -> Path:
    return to_tensorboard(run, folder, layers=["fc"], samples=[], view="sample", diagnosis=False, **others)


def test_a_second_export_is_refused_and_overwrite_replaces_ours_alone(short, tmp_path):
    training = tmp_path / "events.out.tfevents.1.theirs"
    training.write_bytes(b"")
    quick(short, tmp_path)
    (first,) = set(events_of(tmp_path)) - {training}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        quick(short, tmp_path)
    assert events_of(tmp_path) == sorted([training, first])
    quick(short, tmp_path, overwrite=True)
    assert training.exists()
    assert not first.exists()
    assert len(events_of(tmp_path)) == 2


def test_an_export_that_fails_leaves_the_earlier_one_and_nothing_of_its_own(short, tmp_path):
    copy = Path(shutil.copytree(short.path, tmp_path / "copy.zarr"))
    quick(open_run(copy), tmp_path / "logs", cache=None)
    before = events_of(tmp_path / "logs")
    (copy / "layers/fc/activation/c.0.0.0").unlink()
    with pytest.raises(StoreError):
        quick(open_run(copy), tmp_path / "logs", cache=None, overwrite=True)
    assert events_of(tmp_path / "logs") == before
    with pytest.raises(StoreError):
        quick(open_run(copy), tmp_path / "others", cache=None)
    assert events_of(tmp_path / "others") == []


def test_nothing_is_there_to_be_shown_before_all_of_it_is(short, tmp_path):
    seen = []
    quick(short, tmp_path, progress=lambda *_: seen.append(list(GetLogdirSubdirectories(str(tmp_path)))))
    assert seen
    assert not any(seen)
    assert list(GetLogdirSubdirectories(str(tmp_path))) == [str(tmp_path)]
    assert len(list(tmp_path.iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == [events_of(tmp_path)[0].name]


def test_where_steps_do_not_tell_snapshots_apart_their_numbers_are_the_axis_and_this_is_said(tmp_path):
    run = record(tmp_path, steps=(0, 0))
    quick(run, tmp_path / "logs")
    events = read(tmp_path / "logs")
    assert scalars(events, "metrics/val_accuracy") == [(0, 0.25), (1, 0.5)]
    (event,) = events.Tensors("snapshot/steps/text_summary")
    assert b"snapshot numbers" in tensor_util.make_ndarray(event.tensor_proto).tolist()[0]


def test_a_run_of_one_snapshot_has_no_pictures_of_motion(short, tmp_path):
    to_tensorboard(short, tmp_path / "logs", layers=["conv1"], n_clusters=3)
    tags = read(tmp_path / "logs").Tags()["images"]
    assert {"conv1/channels on sample 0", "conv1/embedding", "conv1/embeddings"} < set(tags)
    assert not {"conv1/flow", "conv1/trajectories", "conv1/churn"} & set(tags)


def test_without_layers_the_statistics_of_all_are_logged(run, tmp_path):
    from fmcluster.export._collect import choose

    arguments = {"view": "channel", "n_clusters": 3, "reducer": None, "random_state": 0, "max_bytes": 1 << 30}
    wanted = choose(run, layers=None, samples=None, **arguments, diagnosis=False, cache=None)
    assert wanted.measured == tuple(run.layers)
    assert wanted.samples == (0,)
    assert {"conv1", HOSTILE_LAYER} <= set(wanted.drawn) < set(run.layers)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"layers": ["conv9"]}, KeyError, "did you mean conv1"),
        ({"layers": "conv1"}, TypeError, r"such as \['conv1'\]"),
        ({"layers": []}, ValueError, "layers is empty"),
        ({"samples": 3}, TypeError, r"such as \[3\]"),
        ({"samples": [99]}, ValueError, "no sample 99; expected one of the 12"),
        ({"view": "chanel"}, ValueError, "did you mean 'channel'"),
        ({"n_clusters": 0}, ValueError, "n_clusters is 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(run, tmp_path, wrong, error, said):
    with pytest.raises(error, match=said):
        to_tensorboard(run, tmp_path / "logs", **wrong)
    assert not (tmp_path / "logs").exists()


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(TypeError, match="received a str; expected a Run"):
        to_tensorboard("run.zarr", tmp_path / "logs")


def test_a_file_is_no_folder(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        quick(run, tmp_path / "file")


@pytest.mark.parametrize(
    ("package", "call"),
    [("tensorboard", "to_tensorboard"), ("tensorboard", "to_projector"), ("wandb", "to_wandb")],
)
def test_a_missing_package_is_an_import_error_that_names_the_extra(package, call, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(ImportError, match=re.escape(f"pip install 'fmcluster[{package}]'")):
        getattr(export, call)(None, "logs")


def test_nothing_is_imported_before_it_is_needed():
    script = "from fmcluster import export; dir(export); import sys; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"tensorboard", "wandb", "torch", "matplotlib"} & set(out.split())
