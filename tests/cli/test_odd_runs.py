"""Runs as they seldom are: the commands give what the documentation says, without a warning (which tests make errors).

A run of usual maps, multiplied by a power of two, says the same of everything that has no unit.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans

import fmcluster as fm
from fmcluster.cli import main
from fmcluster.store import LayerSpec, Run, RunWriter, open_run
from tests.faults.test_hostile import change, described

N_SAMPLES = 12
# the largest are near 1e37; the least normal number of float32 is 2 ** -126: all of the last are below it
FACTORS = {"large": 2.0**121, "small": 2.0**-80, "denormal": 2.0**-131}
CONV, FC = LayerSpec("conv", (6, 5, 4), "float32", "Conv2d"), LayerSpec("fc", (3,), "float32", "Linear")


def write(
    path: Path,
    specs: list[LayerSpec],
    *,
    factor: float = 1.0,
    classes: tuple[str, ...] = ("a", "b"),
    broken: int | None = None,
    never: str = "",
) -> Run:
    """Write a run of three snapshots, in each of which a part of the maps is what it was before.

    At one of them, one map of the first layer may be broken; one layer may be so at all, and altogether.
    """
    rng = np.random.default_rng(0)
    maps = {spec.name: rng.standard_normal((N_SAMPLES, *spec.shape)) for spec in specs}
    with RunWriter(path) as writer:
        writer.create(specs, n_samples=N_SAMPLES, shard_samples=4, kind="probe")
        writer.attributes["classes"] = list(classes)
        pictures = rng.integers(0, 256, (N_SAMPLES, 8, 8, 3)).astype(np.uint8)
        writer.add_static("samples/sample", np.arange(N_SAMPLES), dimensions=("item",))
        writer.add_static("samples/label", np.arange(N_SAMPLES) % 2, dimensions=("item",))
        writer.add_static("inputs/display", pictures, dimensions=("item", "row", "column", "rgb"))
        writer.describe_session(
            {"model": "m.Net", "device": "cpu", "dtype": "float32", "batch_size": 4, "versions": {}, "notes": {}}
        )
        for epoch in range(3):
            statistics = {}
            for spec in specs:
                maps[spec.name] = 0.8 * maps[spec.name] + 0.6 * rng.standard_normal(maps[spec.name].shape)
                values = (maps[spec.name] * factor).astype(np.float32)
                if (epoch, spec) == (broken, specs[0]):
                    values[3, 2] = np.nan
                if spec.name == never:
                    values[:] = np.nan
                for offset in range(0, N_SAMPLES, 4):
                    writer.write(spec.name, offset=offset, values=values[offset : offset + 4])
                statistics[spec.name, "activation"] = measured(values.astype(np.float64))
            metrics = {"val_accuracy": epoch / 2}
            index = np.arange(N_SAMPLES)
            writer.commit(epoch=epoch, step=epoch, index=index, statistics=statistics, metrics=metrics, clipped={})
    return open_run(path)


def measured(values: np.ndarray) -> np.ndarray:
    axes = (0, *range(2, values.ndim))
    of = [values.mean(axes), values.std(axes), values.min(axes), values.max(axes), (values == 0).mean(axes)]
    return np.stack([*of, (~np.isfinite(values)).sum(axes)])


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A function that runs a command, and returns its exit code and what it printed."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["fmcluster", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out + told.err

    return run


@pytest.mark.slow
def test_classes_of_any_name(tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    names = ("x" * 300, "line\nbreak\tand \u202egnp.exe \u2066\x00\x1b[31m <b>&'\"" + "y" * 300)
    run = write(tmp_path / "run.zarr", [CONV, FC], classes=names)
    assert run.classes == names
    long, turned = "x" * 39 + "…", "line break and gnp.exe [31m <b>&'\"yyyyyy…"
    code, said = call("info", run.path)
    assert code == 0
    assert f"of 2 classes ({long}, {turned[:39]}" in said
    page = tmp_path / "page.html"
    for view in ("channel", "sample"):
        command = ["report", run.path, "-o", page, "--layer", "conv", "--view", view, "--clusters", 2]
        assert call(*command, "--no-diagnosis")[0] == 0
        text = page.read_text()
        assert f"sample 0 ({long})" in text
        assert "x" * 40 not in text
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", text.partition("plotly.js v")[0])
        assert "<b>&'" not in text.partition("plotly.js v")[0]
    for picture in ("top_images", "channel_grid", "channel_evolution"):
        assert call("plot", run.path, picture, "--layer", "conv", "-o", tmp_path / "p.png")[0] == 0
    from fmcluster.explore._figures import sample_names

    assert [each["label"] for each in sample_names(run)][:1] == [f"0 ({long})"]


@pytest.mark.parametrize(
    "said", [{"output": True}, {"output": [6, "x", 4]}, {"channel_axis": "x"}, {"crop": 7}], ids=str
)
def test_info_says_nothing_of_a_run_before_it_refuses_it(
    said: dict[str, object], tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    path = tmp_path / "run.zarr"
    write(path, [CONV, FC])
    change(path, described(**said))
    code, answer = call("info", path)
    assert code == 2
    assert re.fullmatch(r"error: .* is damaged: the (output|channel_axis|crop) of layer 'conv' is .*\n", answer)


@pytest.mark.slow
def test_one_layer_of_one_channel(tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    """Three rows of the channel view make no embedding, and the errors say so; other views have enough."""
    run = write(tmp_path / "run.zarr", [LayerSpec("conv", (1, 5, 4), "float32", "Conv2d")])
    page = tmp_path / "page.html"
    assert call("info", run.path)[0] == 0
    code, said = call("analyze", run.path, "--layer", "conv")
    assert (code, said.count("\n")) == (2, 1)
    assert "an embedding takes at least 4 rows, and there are 3: take more snapshots or rows" in said
    for view in ("sample", "feature_map", "position"):
        code, said = call("analyze", run.path, "--layer", "conv", "--view", view, "--clusters", 2)
        assert code == 0
        assert f"conv, {view} view" in said
    code, said = call("diagnose", run.path)
    assert code == 0
    findings = fm.diagnose(run)
    assert findings.rows("dead")["value"].tolist() == [0, 0, 0]
    np.testing.assert_allclose(findings.rows("effective_rank")["value"], 1)
    assert findings.layers["noise_floor"].isna().all()  # one channel has no halves
    code, said = call("report", run.path, "-o", page)
    assert code == 2
    assert "no layer of" in said
    assert "name a layer, and take another view of it, such as sample" in said
    assert call("report", run.path, "-o", page, "--layer", "conv", "--view", "sample", "--clusters", 2)[0] == 0
    assert "</html>" in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "codes"),
    [("long names", (0, 0, 0)), ("one channel", (0, 2, 2)), *((size, (0, 0, 0)) for size in FACTORS)],
)
def test_odd_runs_are_compared_and_exported(
    kind: str, codes: tuple[int, ...], tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    """Where there are too few rows for an embedding, one sentence says so, and nothing is left of an export."""
    specs = [LayerSpec("conv", (1, 5, 4), "float32", "Conv2d")] if kind == "one channel" else [CONV, FC]
    classes = ("a" * 5000, "\u202eb\x1b[2J<script>") if kind == "long names" else ("a", "b")
    run, other = (write(tmp_path / name, specs, factor=FACTORS.get(kind, 1.0), classes=classes) for name in "xy")
    page, out = tmp_path / "both.html", tmp_path / "out"
    assert call("compare", run.path, other.path, "-o", page)[0] == codes[0]
    assert "</html>" in page.read_text()
    assert call("compare", run.path, other.path, "-o", tmp_path / "both.png")[0] == codes[0]
    for target, code in zip(("tensorboard", "projector"), codes[1:], strict=True):
        found, said = call("export", run.path, target, "-o", out, "--layer", "conv", "--clusters", 2)
        assert found == code, said
        if code:
            assert "\n" not in said.strip()
            assert not list(out.rglob("*")) if out.exists() else True
        else:
            assert any(each.is_file() for each in out.rglob("*"))


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write(tmp_path_factory.mktemp("usual") / "run.zarr", [CONV, FC])


@pytest.mark.slow
@pytest.mark.parametrize("size", FACTORS)
def test_maps_of_any_size_say_the_same(size: str, usual: Run, tmp_path: Path) -> None:
    """Float32 holds them; what has no unit does not depend on it, but for the rounding of denormal numbers."""
    run, near = write(tmp_path / "run.zarr", [CONV, FC], factor=FACTORS[size]), 1e-3 if size == "denormal" else 1e-5
    largest = np.abs(run["conv"].read()).max()
    assert {"large": 5e36 < largest < 5e37, "small": largest < 1e-22, "denormal": largest < 2.0**-126}[size]
    found, expected = fm.diagnose(run), fm.diagnose(usual)
    for table in ("frame", "channels", "layers"):
        words = ["evidence"] if table == "frame" else []
        pd.testing.assert_frame_equal(
            getattr(found, table).drop(columns=words),
            getattr(expected, table).drop(columns=words),
            rtol=near,
            atol=near,
        )
    assert [each.text for each in found.advice] == [each.text for each in expected.advice]
    for metric in ("cka", "rbf_cka", "procrustes", "svcca", "pwcca"):
        options = {"metric": metric, "layers": ["conv"], "n_directions": 3 if metric == "svcca" else None}
        pd.testing.assert_frame_equal(
            fm.similarity(run, **options).frame, fm.similarity(usual, **options).frame, rtol=near, atol=near
        )
    for view, scaling in (("channel", "none"), ("sample", "centered"), ("position", "unit"), ("feature_map", "unit")):
        mine, other = (each["conv"].vectors(view, scaling=scaling) for each in (run, usual))
        scores, plain = fm.pca(mine, n_components=3), fm.pca(other, n_components=3)
        factor = 1.0 if scaling == "unit" else FACTORS[size]
        np.testing.assert_allclose(scores.explained_variance_ratio, plain.explained_variance_ratio, rtol=near)
        np.testing.assert_allclose(np.abs(scores.values / factor), np.abs(plain.values), rtol=near, atol=near)
        labels, same = (fm.cluster(each, KMeans(2, n_init=2, random_state=0)).labels for each in (scores, plain))
        np.testing.assert_array_equal(labels, same)


@pytest.mark.slow
@pytest.mark.parametrize("size", FACTORS)
def test_the_commands_of_maps_of_any_size(size: str, tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    run, page = write(tmp_path / "run.zarr", [CONV, FC], factor=FACTORS[size]), tmp_path / "page.html"
    for view in ("channel", "sample"):
        assert call("analyze", run.path, "--layer", "conv", "--view", view, "--clusters", 2)[0] == 0
    assert call("diagnose", run.path)[0] == 0
    assert call("report", run.path, "-o", page, "--layer", "conv", "--clusters", 2)[0] == 0
    assert "</html>" in page.read_text()
    for picture in ("channel_grid", "channel_evolution", "top_images", "statistics", "drift", "similarity"):
        assert call("plot", run.path, picture, "--layer", "conv", "-o", tmp_path / "p.png")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (("explained_variance", "--layer", "conv"), "where it gave NaN or infinite values."),
        (("drift", "--layer", "conv"), "where it gave NaN or infinite values."),
        (("similarity",), "where 1 of 2 layers gave NaN or infinite values, conv first."),
        (("channels_per_layer",), "where 1 of 2 layers gave NaN or infinite values, conv first."),
        (("position_clusters", "--layer", "conv"), "where it gave NaN or infinite values."),
        (("explained_variance", "--layer", "fc"), ""),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_pictures_of_a_run_that_diverged_say_what_is_left_out(
    picture: tuple[str, ...], told: str, tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    run = write(tmp_path / "run.zarr", [CONV, FC], broken=2)
    code, said = call("plot", run.path, *picture, "-o", tmp_path / "p.png")
    assert code == 0
    left_out = f"Left out: epoch 2 (snapshot 2), {told}\n" if told else ""  # on the error stream, read after the other
    assert said == f"Drawn in {tmp_path / 'p.png'}\n{left_out}"


@pytest.mark.slow
def test_commands_on_a_run_of_which_a_layer_was_never_finite_say_so_and_go_on(
    tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    run = write(tmp_path / "run.zarr", [CONV, FC, LayerSpec("head", (8,), "float32", "Linear")], never="head")
    said = "Left out: layer head, which gave NaN or infinite values at every snapshot."
    page, picture = tmp_path / "page.html", tmp_path / "p.png"
    for command in (
        ("diagnose", run.path),
        ("report", run.path, "-o", page, "--clusters", 2),
        ("compare", run.path, run.path, "-o", tmp_path / "both.html"),
        ("plot", run.path, "similarity", "-o", picture),
        ("plot", run.path, "channels_per_layer", "-o", picture),
        ("export", run.path, "projector", "-o", tmp_path / "logs", "--clusters", 2),
    ):
        code, told = call(*command)
        assert code == 0, told
        assert said in told
    for command in (("analyze", run.path, "--layer", "head"), ("plot", run.path, "drift", "--layer", "head")):
        code, told = call(*command, "-o", tmp_path / "x.png")
        assert code == 2
        assert "at each of the 3 snapshots, layer 'head' gave NaN or infinite values" in told


def test_a_diagnosis_says_which_snapshots_are_left_out(tmp_path: Path) -> None:
    findings = str(fm.diagnose(write(tmp_path / "run.zarr", [CONV, FC], broken=1)))
    assert findings.startswith("Left out: epoch 1 (snapshot 1), where 1 of 2 layers gave NaN or infinite values, conv")
    assert findings.count("Left out") == 1
