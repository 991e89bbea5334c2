"""Comparison page: it says what `compare` found, loads nothing, and escapes what it is told."""

import re
from dataclasses import replace

import numpy as np
import pytest

import fmcluster as fm
from fmcluster.analysis.diagnosis import leave_one_out_accuracy
from fmcluster.report import write_comparison
from fmcluster.report.content import right_by_neighbors
from tests.analysis.planted_runs import N_SAMPLES, head, moving, write_run
from tests.report.small_report import Parsed


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    runs = [
        write_run(folder / name, {"conv1": ("Conv2d", moving(seed)), "fc": ("Linear", head(moving(seed)))})
        for seed, name in enumerate(["a&b.zarr", "other.zarr"])
    ]
    return fm.compare(*runs)


def test_every_number_is_the_comparisons(comparison, tmp_path):
    page = write_comparison(comparison, tmp_path / "both.html").read_text()
    frame = comparison.frame
    last = frame[(frame["snapshot"] == frame["snapshot"].max()) & (frame["other_snapshot"] == frame["snapshot"].max())]
    for layer in ("conv1", "fc"):
        cka = float(last.set_index("layer")["cka"][layer])
        row = re.search(rf"<tr><th>{layer}</th>.*?</tr>", page)[0]
        assert f"<td>{cka:.3f}</td>" in row
        of_layer = comparison.matches[comparison.matches["layer"] == layer]
        assert f"<td>{of_layer['correlation'].notna().sum()} of {len(of_layer)}</td>" in row
        assert f"<td>{np.nanmedian(of_layer['correlation']):.3f}</td>" in row
    by_layer = last.set_index("layer")["cka"]
    expected = f"{by_layer.idxmax()} is most similar (CKA {by_layer.max():.3f}) and {by_layer.idxmin()} least"
    assert expected in Parsed(page).text
    assert f"{N_SAMPLES} images" in page


def test_it_opens_with_the_result_of_each_run(comparison, tmp_path):
    shown = replace(comparison, metrics=comparison.metrics.assign(accuracy=0.5 + 0.1 * comparison.metrics["run"]))
    page = Parsed(write_comparison(shown, tmp_path / "both.html").read_text())
    assert "The last accuracy is 50.0% in run 0 and 60.0% in run 1. Between run 0 and run 1" in page.text


def test_it_loads_nothing_and_escapes_names(comparison, tmp_path):
    page = write_comparison(comparison, tmp_path / "both.html").read_text()
    assert "a&amp;b.zarr and other.zarr compared" in page
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", page) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "both.html"]


def test_bad_arguments(comparison, tmp_path):
    with pytest.raises(TypeError, match="expected a Comparison, made by compare"):
        write_comparison("run.zarr", tmp_path / "both.html")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_comparison(comparison, tmp_path / "no" / "both.html")


@pytest.mark.slow
def test_runs_of_one_name_are_told_apart_and_equal_numbers_rank_no_layer(tmp_path):
    maps = {"conv1": ("Conv2d", moving(0)), "fc": ("Linear", head(moving(0)))}
    runs = [write_run(tmp_path / folder / "run.zarr", maps) for folder in "ab"]
    page = write_comparison(fm.compare(*runs), tmp_path / "both.html").read_text()
    assert f"{tmp_path}/a/run.zarr and {tmp_path}/b/run.zarr compared" in page
    assert "all layers have a CKA of 1.000." in Parsed(page).text
    assert "most similar" not in page


@pytest.mark.slow
def test_layers_are_compared_across_with_what_similarity_gives(comparison, tmp_path):
    page = write_comparison(comparison, tmp_path / "both.html").read_text()
    runs = [fm.open_run(path) for path in comparison.runs["path"]]
    expected = fm.similarity(*runs)
    ends = [side["snapshot"] == side["snapshot"].max() for side in (expected.rows, expected.columns)]
    table = page[page.index("Layers of run 0 against layers of run 1") :].partition("</table>")[0]
    shown = [float(value) for value in re.findall(r">(-?\d\.\d{3})</td>", table)]
    np.testing.assert_allclose(shown, expected.values[np.ix_(*ends)].ravel(), atol=5.1e-4)


def test_images_that_one_run_alone_tells_are_counted_image_by_image():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    rows = rng.normal(size=(40, 6)) + 1.2 * np.eye(6)[labels]
    right = right_by_neighbors(rows @ rows.T, labels, n_neighbors=5)
    accuracy, _, _ = leave_one_out_accuracy(rows @ rows.T, labels, n_neighbors=5)
    assert right.mean() == accuracy
    for index in range(40):
        far = np.linalg.norm(rows - rows[index], axis=1)
        near = labels[np.argsort(far)[1:6]].tolist()
        most = max(near.count(label) for label in near)
        assert right[index] == (next(label for label in near if near.count(label) == most) == labels[index])


def test_runs_that_are_gone_leave_a_page_without_images(comparison, tmp_path):
    gone = replace(comparison, runs=comparison.runs.assign(path=["gone/a.zarr", "gone/b.zarr"]))
    page = write_comparison(gone, tmp_path / "both.html").read_text()
    assert "no longer lie where they were compared" in page
    assert "Layers of run 0 against layers of run 1" in page
