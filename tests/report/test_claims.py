"""Every number in a judging sentence of the page, against the results that it comes from; and claims against others.

The results are taken again with the public verbs, and by NumPy from what these return.
"""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import nn

import fmcluster as fm
from fmcluster.analysis import noise_floor
from fmcluster.report.content._tables import Moved
from fmcluster.report.content._what_changed_most import LayerChange, _clusters, _representation
from fmcluster.store import Run
from tests.report.small_report import Parsed, Written

N_IMAGES, K = 24, 8


class Claims(HTMLParser):
    """The sentences of a page that judge, by what they are about, and the cells of its tables of changes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, bool]] = []  # what about, the text, whether it is grayed out
        self.cells: dict[str, list[tuple[str, bool]]] = {}
        self._claim: list[str] | None = None
        self._about, self._gray, self._depth, self._table, self._cell = "", False, 0, "", None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        of = dict(attrs)
        kinds = (of.get("class") or "").split()
        if self._claim is not None:
            self._depth += tag not in ("img", "br")
        elif "data-claim" in of:
            self._claim, self._about, self._gray, self._depth = [], of["data-claim"], "under" in kinds, 1
        if tag == "section" or (tag == "table" and "small" in kinds):
            self._table = of.get("aria-labelledby", self._table) or self._table
        if tag in ("td", "th") and self._table in ("when", "change-title"):
            self._cell = (tag, "under" in kinds, [])

    def handle_endtag(self, tag: str) -> None:
        if self._claim is not None:
            self._depth -= 1
            if not self._depth:
                self.found.append((self._about, " ".join("".join(self._claim).split()), self._gray))
                self._claim = None
        if self._cell is not None and tag in ("td", "th"):
            self.cells.setdefault(self._table, []).append((" ".join("".join(self._cell[2]).split()), self._cell[1]))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._claim is not None:
            self._claim.append(data)
        if self._cell is not None:
            self._cell[2].append(data)

    def of(self, about: str) -> list[tuple[str, bool]]:
        return [(text, gray) for each, text, gray in self.found if each == about]


class Shapes(torch.utils.data.Dataset):
    """Images of two classes: a bright spot to the left, or to the right, in noise."""

    classes = ("left", "right")

    def __init__(self) -> None:
        self.images = 0.6 * torch.rand(N_IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        for index in range(N_IMAGES):
            self.images[index, :, 5:11, 1 + 9 * (index % 2) : 5 + 9 * (index % 2)] += 0.4

    def __len__(self) -> int:
        return N_IMAGES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], index % 2


def record(path: Path, *, scale: float = 1.0) -> Run:
    """Record a network at three snapshots.

    `conv2` changes a little; `conv3` looks at noise first, then at where the spots are; channels of `conv1` grow and
    shrink.
    """
    model = nn.Sequential()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model.add_module("conv1", nn.Conv2d(3, 24, 3, stride=2, padding=1))
        model.add_module("conv2", nn.Conv2d(24, 24, 3, stride=2, padding=1))
        model.add_module("conv3", nn.Conv2d(24, 32, 4))  # of maps of 4 x 4
    whole = model.conv3.weight.detach().clone()
    generator = torch.Generator().manual_seed(1)
    notes = {"model": "ToyNet", "start": "from random weights", "data": "7 shapes"}
    with fm.Recorder(model, path, layers="children", probe=Shapes(), notes=notes) as recorder:
        for epoch, rows in enumerate(([1, 0, 0, 0], [1, 0.3, 0.3, 0], [0, 1, 1, 0])):
            with torch.no_grad():
                model.conv3.weight.copy_(whole * torch.tensor(rows)[:, None])
            recorder.snapshot(epoch=epoch, step=9 * epoch, metrics={"val_accuracy": (0.2, 0.5, 0.875)[epoch]})
            with torch.no_grad():
                weight = model.conv2.weight
                weight += 0.05 * weight.std() * torch.randn(weight.shape, generator=generator)
                model.conv1.weight *= scale ** torch.linspace(-1, 1, 24)[:, None, None, None]
    return fm.open_run(path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Claims]:
    folder = tmp_path_factory.mktemp("claims")
    run = record(folder / "run.zarr")
    return run, write(run, folder)


def write(run: Run, folder: Path, **options: Any) -> Claims:
    file = fm.write_report(run, folder / "page.html", n_clusters=3, reducer=PCA(2, random_state=0), **options)
    return Claims(file.read_text(encoding="utf-8"))


def numbers(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", text)]


def changes(run: Run) -> dict[str, tuple[float, float, list[float]]]:
    """Return for each layer 1 - CKA from first to last, its noise floor, and those of the steps."""
    similarity, layers = fm.similarity(run), fm.diagnose(run).layers.set_index("layer")
    found = {}
    for name in run.layers:
        cka = similarity.between_snapshots(name).to_numpy()
        steps = [1 - cka[a, b] for a, b in pairwise(range(len(cka)))]
        found[name] = (1 - cka[0, -1], 1 - layers.loc[name, "noise_floor"], steps)
    return found


def moved(run: Run, name: str, *, scaling: str = "none") -> tuple[float, float, float]:
    """Return the share of channels that end in another cluster, the noise floor, and its limit."""
    vectors = run[name].vectors("channel", scaling=scaling)
    clusterer = KMeans(3, random_state=0, n_init=4)
    clusters = fm.cluster(fm.pca(vectors), clusterer)
    labels = clusters.labels.reshape(len(run), -1)
    frame = noise_floor(vectors, clusterer, clusters=clusters, n_splits=9).frame
    ends = frame[frame["snapshot"].isin([0, len(run) - 1])].groupby("split")["churn"].mean()
    return float((labels[0] != labels[-1]).mean()), float(ends.mean()), float(ends.max())


@pytest.mark.slow
def test_the_first_sentence_says_task_start_data_and_result(page: tuple[Run, Claims]) -> None:
    (story,) = page[1].of("story")
    assert story[0] == (
        "ToyNet, from random weights, was trained on 7 shapes for 2 epochs: "
        "validation accuracy went from 20.0% to 87.5%."
    )


def test_the_headline_is_of_what_changed_most_over_its_noise_floor(page: tuple[Run, Claims]) -> None:
    run, claims = page
    found = changes(run)
    over = {name: total for name, (total, floor, _) in found.items() if total > floor}
    assert 0 < len(over) < 3  # conv1 did not change
    most, least = max(over, key=over.__getitem__), min(over, key=over.__getitem__)
    total, floor, steps = found[most]
    step = int(np.argmax(steps))
    ((text, _),) = claims.of("change")
    assert text.startswith(f"{most} changed most, by {total:.3f} (noise floor {floor:.3f})")
    assert f"from epoch {step} to epoch {step + 1} ({steps[step]:.3f})" in text
    if len(over) > 1:
        total, floor, _ = found[least]
        assert f"{len(over)} of 3 layers changed" in text
        assert f"{least} least, by {total:.3f} (noise floor {floor:.3f})" in text
    under = [name for name in run.layers if name not in over]
    assert f"Not over the noise floor: {', '.join(under)}." in text


def test_the_heat_map_holds_the_changes_and_grays_what_is_not_over_the_noise_floor(page: tuple[Run, Claims]) -> None:
    run, claims = page
    cells = claims.cells["change-title"]
    cells = cells[[text for text, _ in cells].index("conv1") :]
    for number, (name, (total, floor, steps)) in enumerate(changes(run).items()):
        row = cells[number * 5 :][:5]
        assert [text for text, _ in row] == [name, *(f"{max(value, 0):.3f}" for value in (floor, total, *steps))]
        assert [gray for _, gray in row[2:]] == [value <= floor for value in (total, *steps)]


@pytest.mark.slow
def test_what_is_said_of_clusters_is_beside_its_noise_floor(page: tuple[Run, Claims]) -> None:
    run, claims = page
    known = {name: moved(run, name) for name in run.layers}
    for name, (text, gray) in zip(run.layers, claims.of("moved"), strict=True):
        share, floor, limit = known[name]
        count = run[name].n_channels
        assert numbers(text)[:4] == [round(100 * share), count, round(100 * floor), round(100 * limit)]
        assert gray == (share <= limit) == ("not more than two halves of the probe disagree" in text)
    over = {name: share for name, (share, _, limit) in known.items() if share > limit}
    ((text, _),) = claims.of("change")
    assert ("By clusters" in text) == bool(over)
    if over:
        name = max(over, key=over.__getitem__)
        share, floor, limit = known[name]
        said = f"By clusters, {name} changed most: {share:.0%} of its channels end in another one "
        assert f"{said}(noise floor {floor:.0%}, at most {limit:.0%})" in text
    found = changes(run)
    denied = [name for name in over if found[name][0] <= found[name][1]]
    assert ("The two disagree" in text) == bool(denied)


def test_what_channels_respond_to_is_beside_chance(page: tuple[Run, Claims]) -> None:
    run, claims = page
    found = fm.top_images(run["conv3"], k=K, snapshots=[0, 2])
    labels = run.samples["label"].to_numpy()[found.samples]
    kept = [len(np.intersect1d(a, b)) for a, b in zip(*found.samples, strict=True)]
    ((text, _),) = claims.of("responses")
    alike = [int((labels[end] == labels[end][:, :1]).all(axis=1).sum()) for end in (0, 1)]
    drawn = np.random.default_rng(0).permuted(np.tile(np.arange(N_IMAGES) % 2, (40_000, 1)), axis=1)[:, :K]
    chance = 32 * float((drawn == drawn[:, :1]).all(axis=1).mean())
    start = f"On average, the 32 channels of conv3 that respond at both snapshots kept {np.mean(kept):.1f} of"
    assert text.startswith(f"{start} their 8 top images (by chance {K * K / N_IMAGES:.1f})")
    assert f"those of {alike[1]} channels are all of one class at epoch 2, {alike[0]} at epoch 0" in text
    said = re.search(r"\((fewer than )?([\d.]+) by chance\)", text)
    assert said is not None
    assert chance == pytest.approx(float(said[2]), abs=0.06) or chance < 0.1
    gains = (labels == 1).sum(axis=2)
    gains = np.maximum(gains, K - gains)
    gained = gains[1] - gains[0]
    channels = claims.of("channel")
    assert len(channels) == 3
    order = []
    for line, _ in channels:
        parts = re.fullmatch(
            r"channel (\d+): class (\w+) in (\d) of 8, before class (\w+) in (\d); (\d) kept \(by chance 2.7\)", line
        )
        assert parts is not None, line
        channel = int(parts[1])
        order.append(gained[channel])
        for end, name, count in ((1, parts[2], parts[3]), (0, parts[4], parts[5])):
            assert int(count) == (labels[end, channel] == Shapes.classes.index(name)).sum() == gains[end, channel]
        assert int(parts[6]) == kept[channel]
    assert order == sorted(gained, reverse=True)[:3]


def test_captions_count_the_classes_of_what_members_answer_to(page: tuple[Run, Claims]) -> None:
    run, claims = page
    name = run.layers[0]
    clusters = fm.cluster(fm.pca(run[name].vectors("channel")), KMeans(3, random_state=0, n_init=4))
    last = clusters.labels.reshape(len(run), -1)[-1]
    top = fm.top_images(run[name], k=K, snapshots=[0, 2]).samples[-1]
    mixes = [text for text, _ in claims.of("mix")]
    for label, mix in zip(np.unique(last), mixes, strict=False):
        images = top[last == label]
        share = float((images[images >= 0] % 2 == 0).mean())
        assert f"left: {share:.0%} (probe 50%)" in mix or share == 0


def test_raw_pixels_stand_beside_the_accuracy_of_neighbors(page: tuple[Run, Claims]) -> None:
    run, claims = page
    ((text, _),) = claims.of("pixels")
    pixels = np.stack([run.display(index).astype(float) for index in range(N_IMAGES)]).repeat(2, 1).repeat(2, 2)
    rows = pixels.reshape(N_IMAGES, -1)
    away = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    np.fill_diagonal(away, np.inf)
    votes = (np.argsort(away, axis=1)[:, :10] % 2).mean(axis=1)
    right = np.where(votes == 0.5, np.argmin(away, axis=1) % 2, votes > 0.5) == np.arange(N_IMAGES) % 2
    assert text.startswith(f"{right.mean():.0%} (chance ")


@pytest.mark.slow
def test_a_layer_whose_scale_alone_changed_is_no_headline(tmp_path: Path) -> None:
    """Channels grow and shrink: clusters of rows as they are move, CKA and clusters of unit rows hardly."""
    run = record(tmp_path / "run.zarr", scale=3.0)
    share, _, limit = moved(run, "conv1")
    found = changes(run)
    assert share > limit
    claims = write(run, tmp_path)
    ((text, _),) = claims.of("change")
    over = {name: total for name, (total, floor, _) in found.items() if total > floor}
    assert text.startswith(f"{max(over, key=over.__getitem__)} changed most")
    assert not text.startswith("conv1")
    unit = write(run, tmp_path, scaling="unit")
    share, _, _ = moved(run, "conv1", scaling="unit")
    assert numbers(unit.of("moved")[0][0])[0] == round(100 * share)
    assert "activations grew" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_where_clusters_and_cka_disagree_the_page_says_so() -> None:
    """A layer whose clusters moved over their noise floor while its CKA did not, with both numbers."""
    steady = LayerChange("conv1", True, (0.004, 0.003), 0.0061, 0.0079, 2.7)
    torn = LayerChange("layer4", True, (0.3, 0.1), 0.4, 0.01, 1.0)
    found = [("conv1", Moved(0.88, 0.21, 0.31)), ("layer4", Moved(0.4, 0.1, 0.12)), ("layer3", Moved(0.3, 0.31, 0.4))]
    first, second = _clusters([steady, torn], found, noun="channels")
    assert first.startswith("By clusters, conv1 changed most: 88% of its channels end in another one (noise floor 21%")
    assert "disagree about conv1: 88% of its channels are in another cluster (noise floor 21%, at most 31%)" in second
    assert "spread became 2.7 times" in second
    assert len(_clusters([torn], found[1:], noun="channels")) == 1
    assert _clusters([torn], found[2:], noun="channels") == []


def test_no_layer_is_named_where_none_is_over_its_noise_floor() -> None:
    calm = [LayerChange("a", True, (0.01,), 0.0101, 0.0102, 1.0), LayerChange("b", True, (0.0,), 0.001, 0.1, 1.0)]
    (line,) = _representation(calm, ["epoch 0", "epoch 1"])
    assert "No layer changed by more than its noise floor" in line
    assert "a, 0.0101 (noise floor 0.0102)" in line  # rounding hides no margin


def test_a_lead_within_the_noise_floor_is_told_as_one() -> None:
    close = [LayerChange("a", True, (0.2,), 0.582, 0.021, 1.0), LayerChange("b", True, (0.3,), 0.580, 0.012, 1.0)]
    lines = _representation(close, ["epoch 0", "epoch 1"])
    assert lines[:2] == [
        "a changed most, by 0.582 (noise floor 0.021).",
        "It is no more than a noise floor ahead of b (0.580).",
    ]
    apart = [close[0], LayerChange("b", True, (0.3,), 0.5, 0.012, 1.0)]
    assert not any("ahead" in line for line in _representation(apart, ["epoch 0", "epoch 1"]))


@pytest.mark.slow
def test_evidence_has_what_it_is_judged_by_beside_each_measure(written: Written) -> None:
    tables = re.findall(
        r'<table>\s*<thead><tr><th scope="col">measure</th>(.*?)</tr>',
        written.path.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert tables
    for head in tables:
        first, second, *_ = (" ".join(Parsed(cell).text.split()) for cell in head.split("</th>"))
        assert (first, second) == ("threshold", "noise floor or null")
