"""A report of a training that diverged: what is finite is shown, what is not is named, and nothing is claimed of it."""

import json

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.report.content import choose_layers
from fmcluster.store import Run
from tests.report.small_report import Parsed


def record(path, *, broken, metrics=None) -> Run:
    """Four snapshots; at those of `broken`, the second convolution's weights hold a NaN."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3))
    probe = TensorDataset(torch.rand(8, 3, 12, 12))
    with fm.Recorder(model, path, probe=probe) as recorder:
        for epoch in range(4):
            kept = model[2].weight.detach().clone()
            if epoch in broken:
                model[2].weight.data[0, 0] = float("nan")
            recorder.snapshot(epoch=epoch, metrics={"loss": np.inf if epoch in broken else 1.0 / (epoch + 1)})
            model[2].weight.data.copy_(1.1 * kept)
    return fm.open_run(path)


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "named"), [((3,), "epoch 3"), ((1,), "epoch 1"), ((2, 3), "epoch 2")])
def test_snapshots_that_are_not_finite_are_left_out_and_named(broken, named, tmp_path) -> None:
    run = record(tmp_path / "run.zarr", broken=broken)
    assert run.finite_snapshots() == [number for number in range(4) if number not in broken]
    page = fm.write_report(run, tmp_path / "report.html", n_clusters=2, reducer=PCA(2, random_state=0)).read_text()
    parsed = Parsed(page)
    assert f"At {len(broken)} of 4 snapshots, layers gave NaN or infinite values" in parsed.text
    assert f"{named}: 1 of 3 layers, the first is 2" in parsed.text
    assert "This run was not diagnosed" not in page
    assert parsed.data["titles"] == [f"epoch {epoch}" for epoch in run.finite_snapshots()]
    assert "null" in json.dumps(parsed.data["metrics"])
    findings = fm.diagnose(run)
    assert sorted(findings.frame["snapshot"].unique()) == run.finite_snapshots()
    assert findings.left_out["snapshot"].tolist() == list(broken)
    assert findings.left_out["first"].tolist() == ["2"] * len(broken)
    assert sorted(fm.similarity(run).rows["snapshot"].unique()) == run.finite_snapshots()


@pytest.mark.slow
def test_a_finite_run_says_nothing_of_it(tmp_path) -> None:
    run = record(tmp_path / "run.zarr", broken=())
    page = fm.write_report(run, tmp_path / "report.html", n_clusters=2, reducer=PCA(2, random_state=0)).read_text()
    assert "diverged" not in page.split("<script")[0].split("</style>")[1]
    assert len(fm.diagnose(run).left_out) == 0


@pytest.mark.slow
def test_of_one_finite_snapshot_layers_of_few_channels_are_not_drawn(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 6, 3))
    with fm.Recorder(model, tmp_path / "run.zarr", probe=TensorDataset(torch.rand(8, 3, 12, 12))) as recorder:
        recorder.snapshot(epoch=0)
        model[1].weight.data[0, 0] = float("nan")
        recorder.snapshot(epoch=1)
    run = fm.open_run(tmp_path / "run.zarr")
    assert choose_layers(run) == ["1"]
    page = fm.write_report(run, tmp_path / "report.html", n_clusters=2, reducer=PCA(2, random_state=0)).read_text()
    assert "At 1 of 2 snapshots, layers gave NaN or infinite values" in Parsed(page).text


def test_a_run_without_anything_finite_is_refused_in_one_sentence(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    model[0].weight.data[:] = float("nan")
    with fm.Recorder(model, tmp_path / "run.zarr", probe=TensorDataset(torch.rand(8, 3, 12, 12))) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    said = r"at the one snapshot, layers gave NaN or infinite values \(at the first, '0' before others\)"
    for verb in (fm.diagnose, fm.similarity, lambda each: fm.write_report(each, tmp_path / "report.html")):
        with pytest.raises(ValueError, match=said):
            verb(run)


@pytest.mark.slow
def test_a_layer_that_was_never_finite_is_left_out_by_name(tmp_path) -> None:
    run = record(tmp_path / "run.zarr", broken=(0, 1, 2, 3))
    said = "Left out: layer 2, which gave NaN or infinite values at every snapshot"
    with pytest.raises(ValueError, match=r"or pass layers that stayed finite, such as '0', '1'$"):
        fm.diagnose(run, layers=["0", "1", "2"])
    findings, whole = fm.diagnose(run), fm.diagnose(run, layers=["0", "1"])
    assert findings.layers["layer"].tolist() == ["0", "1"]
    np.testing.assert_array_equal(findings.frame["value"], whole.frame["value"])
    assert str(findings).startswith(said)
    similar = fm.similarity(run)
    assert similar.not_finite[0].layers["layer"].tolist() == ["2"]
    np.testing.assert_array_equal(similar.values, fm.similarity(run, layers=["0", "1"]).values)
    both = fm.compare(run, run)
    assert list(both.scores) == ["0", "1"]
    assert [line.partition(",")[0] for line in both.left_out] == [f"Run {n}: {said.partition(',')[0]}" for n in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("layers", [None, ["0"]])
def test_layers_that_stayed_finite_have_a_page_where_others_never_were(layers, tmp_path) -> None:
    run = record(tmp_path / "run.zarr", broken=(0, 1, 2, 3))
    findings = fm.diagnose(run, layers=["0", "1"])
    assert np.isfinite(findings.rows("drift")["value"]).all()
    page = fm.write_report(
        run, tmp_path / "report.html", layers=layers, n_clusters=2, reducer=PCA(2, random_state=0)
    ).read_text()
    parsed = Parsed(page)
    assert (
        "At 4 of 4 snapshots, layers gave NaN or infinite values. Here stand layers that stayed finite" in parsed.text
    )
    assert "Left out: layer 2, which gave NaN or infinite values at every snapshot, in at least 1 of 8" in parsed.text
    assert "This run was not diagnosed" not in page
    assert parsed.data["titles"] == [f"epoch {epoch}" for epoch in range(4)]


def record_image(path, *, broken: int) -> Run:
    """Two snapshots of a probe with one image that holds a NaN."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3))
    images = torch.rand(8, 3, 12, 12)
    images[broken, 0, 3, 3] = float("nan")
    with fm.Recorder(model, path, probe=TensorDataset(images)) as recorder:
        for epoch in range(2):
            recorder.snapshot(epoch=epoch)
            model[2].weight.data *= 1.1
    return fm.open_run(path)


@pytest.mark.slow
def test_an_image_that_is_never_finite_is_left_out_by_its_index(tmp_path) -> None:
    run = record_image(tmp_path / "run.zarr", broken=5)
    rest = [number for number in range(8) if number != 5]
    findings, similar = fm.diagnose(run), fm.similarity(run)
    assert findings.not_finite.samples.tolist() == [5]
    assert str(findings).startswith("Left out: sample 5, of which layers gave NaN or infinite values.")
    np.testing.assert_array_equal(similar.values, fm.similarity(run, samples=rest).values)
    np.testing.assert_array_equal(findings.frame["value"], fm.diagnose(run, samples=rest).frame["value"])
    assert fm.compare(run, run).samples.tolist() == rest
    with pytest.raises(ValueError, match=r"holds NaN or infinite values, first at .* sample 5"):
        fm.similarity(run, samples=[0, 1, 2, 5])


@pytest.mark.slow
def test_a_page_without_the_image_that_is_never_finite(tmp_path) -> None:
    run = record_image(tmp_path / "run.zarr", broken=0)
    page = fm.write_report(run, tmp_path / "report.html", n_clusters=2, reducer=PCA(2, random_state=0)).read_text()
    text = Parsed(page).text
    assert "The images of which they did are left out of everything else" in text
    assert "Left out: sample 0, of which layers gave NaN or infinite values." in text
    assert "This run was not diagnosed" not in page
    assert "sample 1" in page


@pytest.mark.slow
def test_a_layer_of_which_a_channel_is_never_finite_has_a_page_where_it_is_asked_for(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3))
    model[0].weight.data[2] = float("nan")
    with fm.Recorder(model, tmp_path / "run.zarr", probe=TensorDataset(torch.rand(8, 3, 12, 12))) as recorder:
        for epoch in range(2):
            recorder.snapshot(epoch=epoch)
    run = fm.open_run(tmp_path / "run.zarr")
    page = fm.write_report(run, tmp_path / "report.html", layers=["0"], n_clusters=2, reducer=PCA(2, random_state=0))
    assert "Left out: 1 of 6 rows of the channel view of 0 (channel 2)" in Parsed(page.read_text()).text


@pytest.mark.slow
def test_runs_are_compared_at_their_last_finite_snapshots(tmp_path) -> None:
    whole, broken = record(tmp_path / "a.zarr", broken=()), record(tmp_path / "b.zarr", broken=(3,))
    found = fm.compare(whole, broken)
    assert sorted(found.frame["other_snapshot"].unique()) == [0, 1, 2]
    alive = found.matches["correlation"].notna()
    np.testing.assert_allclose(found.matches["correlation"][alive], 1, atol=1e-3)  # scaled alone
    assert np.isfinite(found.scores["2"].values).all()


def test_a_snapshot_that_was_asked_for_is_still_an_error(tmp_path) -> None:
    run = record(tmp_path / "run.zarr", broken=(3,))
    with pytest.raises(ValueError, match="NaN"):
        fm.diagnose(run, snapshots=[0, 3])
