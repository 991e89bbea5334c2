import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA

import fmcluster as fm
from fmcluster.analysis import Damage
from fmcluster.report.content import _choose_layers as choose
from fmcluster.store import FinitePart, NotFinite
from tests.report.small_report import HOSTILE, HOSTILE_LAYER, Parsed, Written, record

FAST = PCA(2, random_state=0)


@pytest.mark.slow
def test_the_same_run_and_seed_give_the_same_file(written: Written, tmp_path: Path) -> None:
    again = fm.write_report(written.run, str(tmp_path / "again.html"), n_clusters=3, reducer=FAST)
    assert again == tmp_path / "again.html"
    assert again.read_bytes() == written.path.read_bytes()


def test_progress_counts_every_stage_in_words(written: Written) -> None:
    names, done, totals = zip(*written.stages, strict=True)
    assert list(done) == list(range(len(names)))
    assert set(totals) == {len(names)}
    stages = ("principal components", "clusters", "noise floor", "top_images", "embed")
    assert names[:5] == tuple(f"fc: {stage}" for stage in stages)
    drawn = [name for name in names if name.endswith(": pictures")]
    assert names[-2 - len(drawn) :] == ("diagnosis of all layers", *drawn, "page")


@pytest.mark.slow
def test_an_existing_report_is_replaced_whole_or_not_at_all(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match=r"(?i)no space left"):
            fm.write_report(written.run, target, layers=["conv1"], reducer=FAST, cache=None)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    fm.write_report(written.run, target, layers=["conv1"], reducer=FAST)
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_bad_arguments_are_refused_before_anything_is_computed(written: Written, tmp_path: Path) -> None:
    stages: list[object] = []

    def write(path: Path = tmp_path / "r.html", **how: object) -> None:
        fm.write_report(written.run, path, reducer=FAST, progress=lambda *stage: stages.append(stage), **how)

    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write(tmp_path / "no" / "r.html")
    with pytest.raises(IsADirectoryError, match="pass the path of a file"):
        write(tmp_path)
    with pytest.raises(KeyError, match="did you mean conv1"):
        write(layers=["conv2"])
    with pytest.raises(ValueError, match="no layer was asked for"):
        write(layers=[])
    with pytest.raises(ValueError, match="did you mean 'channel'"):
        write(view="chanel")
    with pytest.raises(ValueError, match=r"expected one of the 12 samples that every snapshot holds \(0 to 11\)"):
        write(sample=12)
    with pytest.raises(ValueError, match="expected at least 1"):
        write(n_clusters=0)
    assert stages == []
    assert list(tmp_path.iterdir()) == []


def test_an_empty_run_is_refused(tmp_path: Path) -> None:
    run = record(tmp_path, snapshots=0)
    with pytest.raises(fm.StoreError, match="holds no whole snapshot yet"):
        fm.write_report(run, tmp_path / "missing" / "r.html")


def test_nothing_is_loaded_from_anywhere(written: Written) -> None:
    loading = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}
    for tag, attributes in written.parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in loading & attributes.keys():
            assert re.match(r"data:image/webp;base64,|#", attributes[name] or ""), (tag, name)
        assert "http" not in (attributes.get("style") or "")
    page = written.path.read_text(encoding="utf-8")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert page.count("<script>") == 2
    assert len(page) < 15e6


def test_names_are_text_and_never_markup(written: Written) -> None:
    parsed = written.parsed
    assert f"bees & <i>wasps</i>, {HOSTILE}" in parsed.text
    assert HOSTILE_LAYER in parsed.text
    assert {"b", "i"}.isdisjoint(tag for tag, _ in parsed.tags)
    scripts = [attributes for tag, attributes in parsed.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}, {}]
    assert any(HOSTILE in (attributes.get("alt") or "") for tag, attributes in parsed.tags if tag == "img")


def test_every_picture_has_a_text_and_every_label_its_target(written: Written) -> None:
    ids = [attributes["id"] for _, attributes in written.parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in written.parsed.tags:
        if tag == "img":
            assert attributes["alt"]
            assert attributes["width"]
            assert attributes["height"]
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids


def test_the_page_says_how_the_maps_were_made_and_how_far_to_believe_them(written: Written) -> None:
    text = written.parsed.text
    assert "for 1 epoch: validation accuracy went from 25.0% to 75.0%" in text
    assert text.count("fitted on all snapshots together (pooled)") == 4
    scores = fm.pca(written.run["conv1"].vectors("channel"))
    told = fm.embed(scores, FAST).faithfulness
    assert f"neighbor recall {told.neighbor_recall:.2f} (chance {told.neighbor_recall_chance:.2f})" in text
    assert f"motion {told.motion:.2f}" in text
    assert "torch " in text
    assert "Sequential" in text


@pytest.mark.slow
def test_one_snapshot_and_no_metrics_make_a_page_too(tmp_path: Path) -> None:
    run = record(tmp_path, snapshots=1, metrics=False)
    path = fm.write_report(run, tmp_path / "r.html", layers=["conv1"], reducer=FAST)
    parsed = Parsed(path.read_text(encoding="utf-8"))
    assert list(parsed.data["layers"][0]) == ["embedding"]
    assert "No metrics were recorded" in parsed.text
    assert "motion: not available" in parsed.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "name"), [("sample", f"sample 0 ({HOSTILE})"), ("feature_map", f"sample 0 ({HOSTILE}), channel 0")]
)
def test_other_views_make_a_page_too(written: Written, tmp_path: Path, view: str, name: str) -> None:
    path = fm.write_report(written.run, tmp_path / "r.html", layers=["conv1"], view=view, sample=3, reducer=FAST)
    parsed = Parsed(path.read_text(encoding="utf-8"))
    shown = parsed.data["layers"][0]["embedding"]["names"][0]
    assert not {"<", "$"} & set(shown)  # neither markup nor mathematics
    assert unescape(shown) == name
    assert "sample 3" in parsed.text


@pytest.mark.slow
def test_wide_views_are_drawn_from(written: Written, tmp_path: Path) -> None:
    path = fm.write_report(written.run, tmp_path / "r.html", layers=["conv1"], view="position", reducer=FAST)
    parsed = Parsed(path.read_text(encoding="utf-8"))
    frames = parsed.data["layers"][0]["embedding"]["frames"]
    assert [len(frame["x"]) for frame in frames] == [2048] * 3
    assert "2048 of 3072, drawn at random" in parsed.text


@pytest.mark.slow
def test_of_many_snapshots_fewer_rows_are_drawn_but_never_fewer_channels(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmcluster.report.content._layer_content.ROWS_IN_ALL", 900)
    monkeypatch.setattr("fmcluster.report.content._layer_content.ROWS_PER_SNAPSHOT", 400)
    for view, expected in (("position", 300), ("channel", 10)):
        path = fm.write_report(written.run, tmp_path / "r.html", layers=["conv1"], view=view, reducer=FAST)
        frames = Parsed(path.read_text(encoding="utf-8")).data["layers"][0]["embedding"]["frames"]
        assert [len(frame["x"]) for frame in frames] == [expected] * 3


@pytest.mark.slow
def test_fewer_rows_make_fewer_clusters(written: Written, tmp_path: Path) -> None:
    path = fm.write_report(written.run, tmp_path / "r.html", layers=["fc"], n_clusters=8, reducer=FAST)
    parsed = Parsed(path.read_text(encoding="utf-8"))
    labels = {label for frame in parsed.data["layers"][0]["embedding"]["frames"] for label in frame["cluster"]}
    assert labels == {0, 1}
    assert "2 clusters rather than 8" in parsed.text


class FakeLayer:
    def __init__(self, module: str, channels: int, side: int) -> None:
        self.module, self.n_channels = module, channels
        self.feature_map_shape = (channels, side, side)
        self.shape = (3, 5, channels, side, side)


class FakeRun(dict[str, FakeLayer]):
    @property
    def layers(self) -> list[str]:
        return list(self)

    def finite_part(self) -> FinitePart:
        return FinitePart(self.layers, [0, 1, 2], None, NotFinite())


def test_the_layers_chosen_by_default_make_new_maps_and_span_the_depth() -> None:
    resnet = FakeRun(conv1=FakeLayer("Conv2d", 64, 32), bn1=FakeLayer("BatchNorm2d", 64, 32))
    resnet |= FakeRun(relu=FakeLayer("ReLU", 64, 32), maxpool=FakeLayer("MaxPool2d", 64, 16))
    resnet |= FakeRun({f"layer{i}": FakeLayer("Sequential", 64, 8) for i in (1, 2, 3, 4)})
    resnet |= FakeRun(avgpool=FakeLayer("AdaptiveAvgPool2d", 512, 1), fc=FakeLayer("Linear", 5, 1))
    blocks = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert choose.choose_layers(resnet) == blocks
    leaves = FakeRun({f"layer{i}.{j}.conv1": FakeLayer("Conv2d", 64, 8) for i in (1, 2, 3, 4) for j in (0, 1)})
    assert choose.choose_layers(FakeRun({**resnet, **leaves})) == blocks
    only = choose.choose_layers(leaves)
    assert len(only) == 5
    assert (only[0], only[-1]) == ("layer1.0.conv1", "layer4.1.conv1")
    few = FakeRun(conv=FakeLayer("Conv2d", 8, 4), relu=FakeLayer("ReLU", 8, 4), conv2=FakeLayer("Conv2d", 8, 4))
    few |= FakeRun(pool=FakeLayer("AvgPool2d", 8, 1), fc=FakeLayer("Linear", 3, 1))
    assert choose.choose_layers(few) == ["conv", "relu", "conv2", "fc"]


def test_pictures_show_the_stored_maps(written: Written) -> None:
    import base64
    import io

    from PIL import Image

    from fmcluster.plot.drawing._tiles import scale_of

    strips = [a for tag, a in written.parsed.tags if tag == "img" and "Feature maps of channel" in (a["alt"] or "")]
    first = strips[0]
    match = re.search(r"channel (\d+) of conv1", first["alt"] or "")
    assert match
    maps = written.run["conv1"].read(samples=0, channels=int(match[1]))[:, 0, 0].astype(np.float32)
    scale = scale_of(maps, signed=True)
    with Image.open(io.BytesIO(base64.b64decode((first["src"] or "").split(",")[1]))) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (64, 3 * 68 - 4, 3)
    for snapshot, tile in enumerate(maps):
        expected = scale.colors(scale.norm(tile), bytes=True)[..., :3]
        shown = pixels[2::4, 68 * snapshot + 2 : 68 * snapshot + 64 : 4]
        np.testing.assert_array_equal(shown, expected)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(TypeError, match="received a str; expected a Run, made by open_run"):
        fm.write_report("run.zarr", tmp_path / "report.html")


def test_a_run_without_a_layer_of_enough_channels_is_refused_in_words(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3))
    with fm.Recorder(
        model, tmp_path / "run.zarr", probe=torch.utils.data.TensorDataset(torch.rand(8, 3, 8, 8))
    ) as each:
        each.snapshot(epoch=0)
    with pytest.raises(ValueError, match=r"no layer of .* has 4 channels, counted over its finite snapshots \(1\)"):
        fm.write_report(fm.open_run(tmp_path / "run.zarr"), tmp_path / "report.html")


@pytest.mark.slow
def test_what_was_measured_on_the_model_stands_among_what_follows(written: Written, tmp_path: Path) -> None:
    """Each sentence holds its own evidence, and names a layer that need not be in the run."""
    losses = {"conv1": 0.004, f"deep.{HOSTILE}": 0.9, "never.recorded": 0.0, "bad": 0.9}
    rows = [{"layer": layer, "loss": loss} for layer, loss in losses.items()]
    frame = pd.DataFrame(rows).assign(
        what="3 x 3 to 1 x 1", how="", channels=[()] * 4, loss_se=0.001, kl=0.005, null_kl=0.2
    )
    frame = frame.assign(below_null=0.195, below_null_se=0.01, forward_share=0.05, parameters_share=0.1)
    frame["intervention"] = ["kernel size", "kernel size", "separable", "separable"]
    damage = Damage(frame.reindex(columns=Damage.COLUMNS), pd.DataFrame(), 0.3, 0.9, 12, {})
    path = tmp_path / "report.html"
    how = {"layers": ["conv1"], "n_clusters": 3, "reducer": FAST}
    fm.write_report(written.run, path, damage=damage, **how)
    page = path.read_text(encoding="utf-8")
    text = Parsed(page).text
    for said in (
        "kernel conv1, 3 x 3 to 1 x 1: costs 0.004 (0.002 to 0.006, for 2 changes at once) nats of loss on these 12 ",
        "separable never.recorded, 3 x 3 to 1 x 1: costs 0.000 (-0.002 to 0.002, for 2 changes at once) nats of loss",
    ):
        assert said in text
    advice = re.findall(r'<li><span class="action">(\w+)</span>.*?</li>', page)
    linked = re.findall(r'<li><span class="action">(\w+)</span>(?:(?!</li>).)*href="#evidence', page)
    assert {"kernel", "separable"} <= set(advice)
    assert not {"kernel", "separable"} & set(linked)
    unknowing = replace(damage, accuracy=0.5, majority=0.5)
    text = Parsed(fm.write_report(written.run, path, damage=unknowing, **how).read_text(encoding="utf-8")).text
    assert "not clearly better than always naming the most frequent class (0.500)" in text
    assert "3 x 3 to 1 x 1" not in text
    plain = fm.write_report(written.run, path, **how).read_text(encoding="utf-8")
    assert "most frequent class (" not in plain
    assert "never.recorded" not in plain  # what rests on damage was not saved for the next report
    for wrong, more, error, match in (
        (frame, {}, TypeError, r"damage is a DataFrame; expected a Damage, made by ablate\(model, probe\)"),
        (damage, {"diagnosis": False}, ValueError, "damage was passed with diagnosis=False"),
    ):
        with pytest.raises(error, match=match):
            fm.write_report(written.run, path, damage=wrong, **how, **more)


@pytest.mark.slow
def test_what_took_a_short_way_says_so_with_its_numbers(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmcluster.report.content._layer_content.MANY_PRODUCTS", 0)
    monkeypatch.setattr("fmcluster.report.content._layer_content.POSITIONS_IN_ALL", 50)
    monkeypatch.setattr("fmcluster.analysis.components._plan_reading.MANY_PRODUCTS", 0)
    run = fm.open_run(written.run.path)
    layer = next(run[name] for name in run.layers if min(run[name].feature_map_shape[1:]) > 3)
    path = fm.write_report(run, tmp_path / "r.html", layers=[layer.name], diagnosis=False, cache=None)
    text = Parsed(Path(path).read_text()).text
    n_images = len(run.common_samples(range(len(run))))
    _, height, width = layer.feature_map_shape
    count = 50 // n_images * n_images
    assert f"compared at {count} of {n_images * height * width:,} positions, drawn at random" in text
    assert f"(standard error of a correlation: {1 / np.sqrt(count):.4f} at most)" in text
