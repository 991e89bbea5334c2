"""Whatever is not finite, each verb, picture and page says what is left out and shows the rest; warnings are errors."""

import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.decomposition import PCA

import fmcluster as fm
from fmcluster import plot
from fmcluster.explore import build_app
from fmcluster.explore._chosen import ordinal_in
from fmcluster.explore._questions import ContentOf, OverviewOf, TopImagesOf
from fmcluster.explore._worker import Worker
from fmcluster.report import write_comparison
from fmcluster.report.content import choose_layers, part_with
from fmcluster.store import LayerSpec, Run, RunWriter, open_run
from tests.cli.test_odd_runs import measured
from tests.report.small_report import Parsed

N_SAMPLES, N_SNAPSHOTS = 12, 4
SPECS = [LayerSpec(n, (6, 5, 4), "float32", "Conv2d", gradient=True) for n in ("conv", "mid")] + [
    LayerSpec("fc", (3,), "float32", "Linear", gradient=True)
]
NAN, INF = np.nan, np.inf
Change = Callable[[str, int, np.ndarray], np.ndarray]


def as_it_is(name: str, snapshot: int, values: np.ndarray) -> np.ndarray:
    return values


def put(values: np.ndarray, where: object, what: float) -> np.ndarray:
    values[where] = what
    return values


def write(path: Path, *, maps: Change = as_it_is, slopes: Change = as_it_is, metrics: str = "finite") -> Run:
    """Write a run of three layers with gradients, whose maps move a little from snapshot to snapshot."""
    rng = np.random.default_rng(0)
    held = {spec.name: rng.standard_normal((N_SAMPLES, *spec.shape)) for spec in SPECS}
    of_metrics = {"finite": [0.4, 0.3, 0.2, 0.1], "not finite": [NAN, INF, -INF, NAN]}[metrics]
    with RunWriter(path) as writer:
        writer.create(SPECS, n_samples=N_SAMPLES, shard_samples=N_SAMPLES, kind="probe")
        pictures = rng.integers(0, 256, (N_SAMPLES, 8, 8, 3)).astype(np.uint8)
        writer.add_static("samples/sample", np.arange(N_SAMPLES), dimensions=("item",))
        writer.add_static("samples/label", np.arange(N_SAMPLES) % 2, dimensions=("item",))
        writer.add_static("inputs/display", pictures, dimensions=("item", "row", "column", "rgb"))
        for now in range(N_SNAPSHOTS):
            statistics = {}
            for name, values in held.items():
                held[name] = 0.8 * values + 0.6 * rng.standard_normal(values.shape)
                both = {"activation": maps(name, now, held[name].copy())}
                both["gradient"] = slopes(name, now, 0.01 * rng.standard_normal(values.shape))
                for quantity, each in both.items():
                    each = each.astype(np.float32)
                    writer.write(name, offset=0, values=each, quantity=quantity)
                    with np.errstate(invalid="ignore"):
                        statistics[name, quantity] = measured(each.astype(np.float64))
            loss = {"loss": of_metrics[now]}
            index = np.arange(N_SAMPLES)
            writer.commit(epoch=now, step=10 * now, index=index, statistics=statistics, metrics=loss, clipped={})
    return open_run(path)


CASES: dict[str, dict[str, object]] = {
    "a layer": {"maps": lambda name, at, x: x * NAN if name == "mid" else x},
    "all from snapshot 2 on": {"maps": lambda name, at, x: x * NAN if at >= 2 else x},
    "a channel": {"maps": lambda name, at, x: put(x, np.s_[:, 1], NAN) if name == "mid" else x},
    "a sample": {"maps": lambda name, at, x: put(x, np.s_[0], NAN)},
    "inf at times": {"maps": lambda name, at, x: put(x, np.s_[3, 0], INF) if at in (1, 3) else x},
    "all but the last snapshot": {"maps": lambda name, at, x: x if at == 3 else x * NAN},
    "all but the first snapshot": {"maps": lambda name, at, x: x * NAN if at else x},
    "gradients": {"slopes": lambda name, at, x: x * NAN},
    "gradients of a layer": {"slopes": lambda name, at, x: x * NAN if name == "mid" else x},
    "gradients from snapshot 2 on": {"slopes": lambda name, at, x: x * INF if at >= 2 else x},
    "gradients of a sample": {"slopes": lambda name, at, x: put(x, np.s_[2], NAN)},
    "metrics": {"metrics": "not finite"},
}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write(tmp_path_factory.mktemp("usual") / "usual.zarr")


# of the others, what differs from these is tested by itself below
ALIKE = {"all but the first snapshot", "gradients of a layer", "gradients from snapshot 2 on", "gradients of a sample"}


@pytest.mark.slow
@pytest.mark.parametrize("case", [each for each in CASES if each not in ALIKE])
def test_no_verb_refuses_what_can_be_shown(case: str, usual: Run, tmp_path: Path) -> None:
    run = write(tmp_path / "run.zarr", **CASES[case])
    part = run.finite_part()
    findings = fm.diagnose(run)
    assert findings.layers["layer"].tolist() == part.layers
    assert sorted(findings.frame["snapshot"].unique()) == part.snapshots
    for line in part.left_out.lines:
        assert line in str(findings)
    for other in (fm.diagnose(run, at_rest=usual), fm.diagnose(usual, at_rest=run)):
        assert not [each for each in other.advice if each.action == "freeze" and each.layer not in part.layers]
    similar = fm.similarity(run)
    for draw in (plot.convergence, plot.channels_per_layer):
        draw(findings)
    plot.similarity(similar)
    if case == "metrics":
        with pytest.raises(
            ValueError, match=r"the run's metrics \(loss\) hold no finite value: there is nothing to draw"
        ):
            plot.metrics(run.metrics)
    else:
        plot.metrics(run.metrics)
    for name in part.layers:
        plot.drift(findings, name)
    for name in run.layers:
        for layer in (run[name], run[name].gradient):
            plot.channel_grid(layer)
            plot.channel_evolution(layer)
            plot.statistics(layer, what=["mean", "std", "zeros", "nonfinite"])
            plot.top_images(fm.top_images(layer, k=3), layer)
    for pair in ((run, usual), (usual, run)):
        both = fm.compare(*pair)
        plot.compare(both)
        text = write_comparison(both, tmp_path / "both.html").read_text()
        assert all(line.partition(":")[0] in text for line in both.left_out)
    page = fm.write_report(run, tmp_path / "run.html", n_clusters=2, reducer=PCA(2, random_state=0)).read_text()
    assert "This run was not diagnosed" not in page
    assert Worker(run).shown["snapshot"].tolist() == part.snapshots
    assert OverviewOf().answer(run, print).findings is not None
    for name in part.layers:
        asked = ContentOf(name, view="sample" if name == "fc" else "channel", n_clusters=2)
        assert asked.answer(run, print).scores.rows["snapshot"].unique().tolist() == part.snapshots
        TopImagesOf(name, "gradient").answer(run, print)
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "snapshot", "layers", "n_samples"),
    [
        ("gradients of a layer", 3, ["conv", "fc"], N_SAMPLES),
        ("gradients from snapshot 2 on", 1, ["conv", "mid", "fc"], N_SAMPLES),
        ("gradients of a sample", 3, ["conv", "mid", "fc"], N_SAMPLES - 1),
        ("all from snapshot 2 on", 1, ["conv", "mid", "fc"], N_SAMPLES),
    ],
)
def test_damage_is_predicted_of_the_gradients_that_are_finite(
    case: str, snapshot: int, layers: list[str], n_samples: int, tmp_path: Path
) -> None:
    run = write(tmp_path / "run.zarr", **CASES[case])
    found = fm.predict_damage(run)
    assert (found.snapshot, found.n_samples) == (snapshot, n_samples)
    assert np.isfinite(found.frame["predicted"]).all()
    assert set(found.frame["layer"]) <= set(layers)
    gone = found.skipped[found.skipped["intervention"] == "all"]
    assert gone["layer"].tolist() == [name for name in run.layers if name not in layers]
    if case == "gradients from snapshot 2 on":
        assert found.passed_over == (2, 3)
        assert "Left out: snapshot 3, where no layer has finite gradients." in str(found)


@pytest.mark.slow
def test_the_explorer_shows_a_gradient_where_it_is_finite(tmp_path: Path) -> None:
    run = write(tmp_path / "run.zarr", **CASES["gradients from snapshot 2 on"])
    content = ContentOf("fc", "gradient", view="sample", n_clusters=2).answer(run, print)
    assert content.scores.rows["snapshot"].unique().tolist() == [0, 1]
    shown = Worker(run).shown
    assert [ordinal_in(content, shown, ordinal=each) for each in range(4)] == [0, 1, 1, 1]
    whole = write(tmp_path / "whole.zarr", **CASES["gradients of a sample"])
    content = ContentOf("fc", "gradient", view="sample", n_clusters=2).answer(whole, print)
    assert content.scores.rows["snapshot"].unique().tolist() == [0, 1, 2, 3]
    assert 2 not in content.scores.rows["sample"].tolist()


@pytest.mark.slow
def test_what_is_not_finite_at_rest_is_left_out_and_named(usual: Run, tmp_path: Path) -> None:
    rest = write(tmp_path / "rest.zarr", **CASES["a layer"])
    findings = fm.diagnose(usual, at_rest=rest)
    assert "Run at rest: Left out: layer mid, which gave NaN or infinite values at every snapshot." in str(findings)
    known = findings.rows("change_to_end").groupby("layer")["noise_floor"].count()
    assert known.to_dict() == {"conv": 4, "mid": 0, "fc": 4}
    alone = fm.diagnose(usual, layers=["conv", "fc"], at_rest=rest)
    for name in ("conv", "fc"):
        one, other = (each.rows("change_to_end", layer=name) for each in (findings, alone))
        np.testing.assert_array_equal(one[["value", "noise_floor"]], other[["value", "noise_floor"]])
    sample = write(tmp_path / "sample.zarr", **CASES["a sample"])
    without = fm.diagnose(usual, at_rest=sample)
    assert without.not_finite_at_rest.samples.tolist() == [0]
    assert without.similarity.n_samples == N_SAMPLES - 1
    assert without.rows("change_to_end")["noise_floor"].notna().any()


@pytest.mark.slow
def test_of_runs_without_a_finite_epoch_in_common_the_last_snapshots_are_compared(tmp_path: Path) -> None:
    early = write(tmp_path / "early.zarr", **CASES["all from snapshot 2 on"])
    late = write(tmp_path / "late.zarr", maps=lambda name, at, x: x * NAN if at < 2 else x)
    both = fm.compare(early, late)
    said = "run 0 and run 1 have no epoch in common at which both are finite (epochs 0, 1; epochs 2, 3)"
    assert both.apart(1) == said
    table = both.side_by_side(1)
    assert table.columns.tolist() == [(1, 3)]
    similar = fm.similarity(early, late)
    here, there = similar.rows["snapshot"] == 1, similar.columns["snapshot"] == 3
    np.testing.assert_allclose(table[1, 3], np.diag(similar.values[here][:, there]))
    text = Parsed(write_comparison(both, tmp_path / "both.html").read_text()).text
    assert f"R{said[1:]}: compared are their last snapshots." in text
    assert "Between the last snapshots of run 0 (epoch 1) and run 1 (epoch 3), " in text
    assert all(f"{value:.3f}" in text for value in table[1, 3])
    with pytest.raises(ValueError, match="have no epoch in common at which both are finite"):
        both.by_epoch(1)


@pytest.mark.slow
def test_where_no_layer_is_finite_as_a_whole_the_reason_is_one_sentence_and_names_what_can_be_shown(
    tmp_path: Path,
) -> None:
    run = write(tmp_path / "run.zarr", maps=lambda name, at, x: put(x, np.s_[:, 1], NAN))
    said = "layers gave NaN or infinite values .* Most channels of 'conv' are finite, and shown by a report"
    for verb in (fm.diagnose, part_with):
        with pytest.raises(ValueError, match=said):
            verb(run, *([()] if verb is part_with else []))
    with pytest.raises(ValueError, match="at each of the 4 snapshots, layer 'conv' gave NaN or infinite values: there"):
        fm.diagnose(run, layers=["conv"])
    page = fm.write_report(run, tmp_path / "run.html", n_clusters=2, diagnosis=False)
    text = Parsed(page.read_text()).text
    assert "Left out: 1 of 6 rows of the channel view of conv (channel 1)" in text
    assert "Here stand the channels of conv that stayed finite, and nothing else" in text
    assert choose_layers(run) == ["conv"]
    assert ContentOf("conv").answer(run, lambda stage: None).vectors.excluded["channel"].unique().tolist() == [1]
    assert re.search(said, OverviewOf().answer(run, lambda stage: None).refused)
    assert build_app(run).layout is not None
