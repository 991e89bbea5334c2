"""What the page says of the whole run: the findings with their evidence, and how alike the layers are."""

import os
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

import fmcluster as fm
from fmcluster.analysis import Advice, Findings, Thresholds
from fmcluster.report.content._diagnosis import advice_lines, layer_evidence
from tests.report.small_report import HOSTILE_LAYER, Parsed, Written, record


@pytest.fixture(scope="module")
def findings(written: Written) -> Findings:
    return fm.diagnose(written.run)


def test_each_advice_is_told_with_a_link_to_its_evidence(written: Written, findings: Findings) -> None:
    ids = {attributes.get("id") for _, attributes in written.parsed.tags}
    links = [attributes["href"] for tag, attributes in written.parsed.tags if tag == "a"]
    for each in findings.advice:
        assert " ".join(each.text.split()) in written.parsed.text
    for each in advice_lines(findings):
        assert f"#{each.anchor}" in links
        assert each.anchor in ids
    assert len(findings.advice) or "Nothing was found" in written.parsed.text


def test_what_one_would_do_comes_before_what_one_should_know(written: Written) -> None:
    found = fm.diagnose(written.run, thresholds=Thresholds(dead=1))
    layer, none = written.run.layers[0], pd.DataFrame()
    measured = tuple(Advice(layer, action, action, none) for action in ("kernel", "freeze"))
    findings = replace(found, advice=(*found.advice, *measured))
    actions = [each.action for each in advice_lines(findings)]
    assert actions[:2] == ["freeze", "kernel"]
    assert set(actions[2:]) == {"dead channels"}
    for each, told_of in zip(
        sorted(a.text for a in findings.advice), sorted(t.text for t in advice_lines(findings)), strict=True
    ):
        assert told_of == f"{each}."
    cut = replace(findings, advice=(Advice(layer, "duplicate", "0 = 4 ...", none),))
    assert [each.text for each in advice_lines(cut)] == ["0 = 4 ..."]


def test_the_evidence_is_what_was_measured(written: Written, findings: Findings) -> None:
    layers = layer_evidence(findings)
    assert [each.name for each in layers] == written.run.layers
    for each in layers:
        measured = {one.name: one for one in each.measured}
        rank = findings.rows("effective_rank", layer=each.name)
        assert measured["effective rank"].values == tuple(f"{value:.0f}" for value in rank["value"])
        assert measured["effective rank"].threshold == ""
        drift = findings.rows("drift", layer=each.name)["value"]
        assert measured["drift from the first"].values == tuple(f"{value:.3f}" for value in drift)
        cka = findings.rows("cka_to_last", layer=each.name)
        assert measured["CKA to the last snapshot"].values == tuple(f"{value:.2f}" for value in cka["value"])
        assert each.last("effective rank") == f"{rank['value'].iloc[-1]:.0f}"
        assert all(value in written.parsed.text for one in each.measured for value in one.values)


@pytest.mark.slow
def test_the_evidence_that_advice_rests_on_is_marked(written: Written) -> None:
    findings = fm.diagnose(written.run, thresholds=Thresholds(dead=1))
    assert findings.advice
    expected = {(a.layer, m) for a in findings.advice for m in a.evidence["measure"]}
    names = {"cka_to_last": "CKA to the last snapshot", "drift": "drift from the first"}
    cited = {(layer.name, one.name) for layer in layer_evidence(findings) for one in layer.measured if one.cited}
    assert {(layer, names[measure]) for layer, measure in expected if measure in names} <= cited
    assert not any(one.cited for layer in layer_evidence(findings) if not layer.advised for one in layer.measured)


@pytest.mark.slow
def test_the_heat_maps_hold_the_similarity_of_all_layers_at_all_snapshots(written: Written) -> None:
    cka, charts = fm.similarity(written.run), written.parsed.data["similarity"]
    for snapshot in range(3):
        stage = np.array(charts["layers"]["stages"][snapshot], dtype=np.float64)
        np.testing.assert_allclose(stage, cka.between_layers(snapshot), atol=5.1e-4)
    for place, name in enumerate(written.run.layers):
        stage = np.array(charts["snapshots"]["stages"][place], dtype=np.float64)
        np.testing.assert_allclose(stage, cka.between_snapshots(name), atol=5.1e-4)
        known = stage[np.isfinite(stage)]
        start = charts["snapshots"]["starts"][place]
        assert start <= known.min(initial=0.9) + 5.1e-4
        assert start in (0, pytest.approx(known.min(initial=0))) or known.min() - start < 0.1 + 5.1e-4
    assert len(set(charts["layers"]["starts"])) == 1  # snapshots are compared
    ticks = charts["layers"]["figure"]["layout"]["xaxis"]["ticktext"]
    assert ticks == [escape(name) for name in written.run.layers]
    assert escape(HOSTILE_LAYER) in ticks


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: os.fstat(handle))


def write(run: object, path: Path, **options: object) -> Parsed:
    page = fm.write_report(run, path, layers=["conv1"], n_clusters=2, reducer=PCA(2), **options)
    return Parsed(page.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_second_report_uses_the_findings_that_were_saved(tmp_path: Path, quick_disk: None) -> None:
    run = record(tmp_path)
    first = write(run, tmp_path / "one.html")
    saved = {path.name: path.stat().st_mtime_ns for path in Path(f"{run.path}.results").iterdir()}
    assert "diagnose" in {name.rsplit("-", 2)[1] for name in saved}
    second = write(fm.open_run(run.path), tmp_path / "two.html")
    assert {path.name: path.stat().st_mtime_ns for path in Path(f"{run.path}.results").iterdir()} == saved
    assert second.text == first.text
    assert second.data == first.data


@pytest.mark.slow
def test_without_a_diagnosis_the_page_says_so_and_has_no_evidence(tmp_path: Path, quick_disk: None) -> None:
    parsed = write(record(tmp_path), tmp_path / "page.html", diagnosis=False)
    assert "This run was not diagnosed." in parsed.text
    assert parsed.data["similarity"] == {}
    assert "evidence" not in {attributes.get("id") for _, attributes in parsed.tags}


@pytest.mark.slow
def test_a_run_that_cannot_be_diagnosed_gets_a_page_that_says_why(tmp_path: Path, quick_disk: None) -> None:
    import torch
    from torch import nn

    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 6, 3))
    path = tmp_path / "few.zarr"
    with fm.Recorder(model, path, layers="children", probe=[(torch.rand(3, 8, 8), 0) for _ in range(3)]) as recorder:
        recorder.snapshot(epoch=0)
    parsed = write(fm.open_run(path), tmp_path / "page.html")
    assert "This run was not diagnosed: diagnose received 3 samples; debiased CKA needs at least 4." in parsed.text


@pytest.mark.slow
def test_a_run_of_one_snapshot_has_layers_against_layers_alone(tmp_path: Path, quick_disk: None) -> None:
    parsed = write(record(tmp_path, snapshots=1), tmp_path / "page.html")
    assert list(parsed.data["similarity"]) == ["layers"]
    assert "similarity-snapshot" not in {attributes.get("id") for _, attributes in parsed.tags}
