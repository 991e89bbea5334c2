"""Numbers in the docs are those of the benchmarks' results, and so is the page that lists them."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from tests.cli.small_cli_run import write_run

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
VERBS = ("open", "info", "commit", "pca", "similarity", "diagnose", "top_images")


@pytest.fixture(scope="module")
def claims(import_benchmark: Callable[[str], Any]) -> Any:
    return import_benchmark("claims")


def results(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def words(page: str) -> str:
    """The text of a page of the docs, without its line breaks."""
    return " ".join((ROOT / "docs" / page).read_text().split())


def test_the_page_of_benchmarks_is_made_of_the_results(claims):
    assert (ROOT / "benchmarks" / "README.md").read_text() == claims.rendered(RESULTS)


def test_every_result_is_on_the_page_and_every_script_exists(claims):
    listed = {file.name for claim in claims.CLAIMS for file in RESULTS.glob(claim.results)}
    assert listed == {file.name for file in RESULTS.glob("*.json")}
    assert all((ROOT / "benchmarks" / claim.command[0]).is_file() for claim in claims.CLAIMS)


def test_scripts_take_the_options_that_they_are_given(claims):
    for claim in claims.CLAIMS:
        text = (ROOT / "benchmarks" / claim.command[0]).read_text()
        text += (ROOT / "benchmarks" / "setting.py").read_text()
        options = [part for part in (*claim.command, *(claim.quick or ()), "--output") if part.startswith("--")]
        assert [option for option in options if f'"{option}"' not in text] == [], claim.title


def test_what_recording_costs_is_what_was_measured(claims):
    text = words("architecture.md")
    rows = {row["contender"]: row for row in results("capture-cpu")["rows"]}
    for name, begin in {"fmcluster": "on the disk takes", "clones + np.save": "float16 clones takes"}.items():
        assert f"{begin} {claims.spread(rows[name]['ratio'])}" in text, name
    assert f"`torch.save` {median(rows['torch.save']['ratio']):.2f}" in text
    for name, word in {"Captum AV": "activation vectors", "h5py": "h5py", "TorchLens + np.save": "TorchLens"}.items():
        assert f"{word} {median(rows[name]['ratio']):.1f}" in text, name
    bare, recorded = (results("capture-profile-cpu")["rows"][name] for name in ("bare", "recorded"))
    parts = {name: value for name, value in recorded.items() if name != "wall clock"}
    forward = parts.pop("forward pass and hooks")
    assert f"takes {bare['forward pass and hooks']:.2f} processor seconds and a recorded one" in text
    assert f"a recorded one {forward + sum(parts.values()):.2f}: " in text
    assert f"{parts['encoding, writing, commit']:.2f} for encoding and writing" in text
    more = forward - bare["forward pass and hooks"]
    assert f"{parts['cast and sums']:.2f} for cast and sums, and {more:.2f} more in the forward pass" in text
    large, small = (row["above_bare"] for row in results("capture-memory-cpu")["rows"])
    for above in (large, small):
        low, high = (each(above) / (1 << 20) for each in (min, max))
        assert f"{low:.0f} to {high:.0f} MiB" in text
    rows = results("capture-memory-cpu")["rows"]
    assert f"with up to {rows[0]['peak_pending_bytes'] / (1 << 20):.0f} MiB waiting" in text
    assert f"where the goal was {rows[1]['allowed'] / (1 << 20):.0f}." in text
    (mapped,) = {round(row["of_which_mapped_files"][-1] / (1 << 20)) for row in rows}
    assert f"In both, {mapped} MiB are code of the compiler" in text


def test_what_analysis_costs_is_what_was_measured(claims):
    text, measured = words("architecture.md"), results("analysis")
    beside = measured["beside"]
    assert f"take {claims.spread(beside['seconds']['pca'])} s and {beside['peak']['pca'] / (1 << 20):.0f} MiB" in text
    assert f"takes {median(beside['seconds']['read']):.2f} s by as many threads" in text
    assert f"alone {median(beside['seconds']['products']):.2f} s: {claims.spread(beside['over'])} times" in text
    assert f"take {claims.spread(beside['script_over_pca'], 1)} times as long" in text
    assert f"and {beside['script_over_pca_memory']:.1f} times the memory" in text


def test_the_table_of_embeddings_is_what_was_measured():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = {(row["method"], row["view"].split(":")[1]): row for row in results("embeddings-cifar")["rows"]}
    names = {"a UMAP for each snapshot, turned to fit": "separate UMAPs"}
    found = re.findall(
        r"^\| \**`?([^|`*]+)`?\**(?:, the default)? \| ([\d.]+) / ([\d.]+) / ([\d.]+) \| (.+) \|$", text, re.M
    )
    assert len(found) == 11
    for name, *channels, samples in found:
        method = names.get(name, name)
        parameters = re.fullmatch(r"FusedEmbedding\((?:loss=\"(\w+)\"|(motion)=([\d.]+))?\)", name)
        if parameters:
            word = parameters[1] or (f"motion {parameters[3]}" if parameters[2] else "(default)")
            method = f"FusedEmbedding {word}"
        for view, shown in (("channel", channels), ("sample", samples.split(" / "))):
            row = rows[method, view]
            assert shown == [
                f"{median(row[key]):.{digits}f}" for key, digits in (("kept", 2), ("motion", 2), ("seconds", 1))
            ]


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (
            True,
            "the default keeps {0}, {1} and {2} of what separate UMAPs keep, at motion {3}, {4} and {5} where a joint "
            "UMAP has {6}, {7} and {8}: the first misses the goal.",
        ),
        (
            False,
            "it keeps {0}, {1} and {2}, at motion {3}, {4} and {5} where a joint UMAP has {6}, {7} and {8}.",
        ),
    ],
)
def test_other_runs_are_told_as_they_were_measured(chosen, sentence):
    rows = {}
    for row in results("embeddings-others")["rows"]:
        if row["chosen"] == chosen:
            rows.setdefault(row["method"], []).append(row)
    ours, apart, joint = (rows[name] for name in ("FusedEmbedding (default)", "separate UMAPs", "joint UMAP"))
    shares = [median(a["kept"]) / median(b["kept"]) for a, b in zip(ours, apart, strict=True)]
    moved = [f"{median(row['motion']):.2f}" for row in (*ours, *joint)]
    assert sentence.format(*(f"{100 * share:.1f} %" for share in shares), *moved) in words("architecture.md")
    assert [share < 0.98 for share in shares] == [chosen, False, False]


def test_how_large_and_fast_a_report_is_is_what_was_measured(claims):
    text, measured = words("report.md"), results("report")
    assert f"the file has {measured['bytes'] / 1e6:.1f} MB" in text
    assert f"loaded after {claims.spread(measured['opened']['loaded'])} s" in text
    assert f"its last chart stands after {claims.spread(measured['opened']['everything'])} s" in text
    assert f"Writing it takes {measured['written']['first']:.0f} s" in text
    assert f"from saved results, {measured['written']['again']:.0f} s" in text
    assert f"has {measured['bytes'] / 1e6:.1f} MB" in words("analysis.md")


def test_rates_of_compression_are_what_was_measured():
    rows = {row["codec"]: row for row in results("codecs")["rows"]}
    own, level_1, zarrs = (rows[name] for name in ("own, zstd -7", "own, zstd 1", "zarrs, zstd -7"))
    seconds = [f"{row['write_processor_s_per_gb']:.2g}" for row in (own, level_1, zarrs)]
    text = words("architecture.md")
    assert (
        f"{own['size_ratio']:.2f} of the size of the demo's feature maps at {seconds[0]} processor seconds a GB" in text
    )
    assert f"level 1 {level_1['size_ratio']:.2f} at {float(seconds[1]):.1f}" in text
    assert f"takes {float(seconds[2]):.1f} processor seconds a GB of the demo's feature maps, ours {seconds[0]}" in text
    assert f"{own['size_ratio']:.2f} of the bytes after compression, and {seconds[0]} processor seconds" in words(
        "scaling.md"
    )


def test_a_spread_is_the_median_and_a_range_where_there_is_one(claims):
    assert claims.spread([3, 1, 2]) == "2.00 (1.00 to 3.00)"
    assert claims.spread([0.501, 0.499], 1) == "0.5"


@pytest.mark.slow
def test_one_command_runs_the_scripts_and_keeps_nothing_of_a_trial():
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--quick", "--only"]
    before = {file: file.read_bytes() for file in (*RESULTS.glob("*.json"), ROOT / "benchmarks" / "README.md")}
    done = subprocess.run([*command, "products.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^== Precision of a Gram matrix: \d+ s$", done.stdout, re.MULTILINE)
    assert {file: file.read_bytes() for file in before} == before
    refused = subprocess.run([*command, "nothing.py"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--only names none of advice" not in refused.stderr
    assert "--only names none of analysis.py, capture.py" in refused.stderr


def tried(script: str, *options: str, folder: Path, results: str) -> dict[str, Any]:
    """Run a script with `--quick`, and return the results of a name that it wrote into a folder."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *options, "--quick", "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / f"{results}.json").read_text())


@pytest.mark.slow
def test_every_way_to_compare_all_pairs_finds_the_same(tmp_path):
    measured = tried("similarity.py", folder=tmp_path, results="similarity")
    assert (measured["representations"], measured["pairs"]) == (20, 210)
    assert [row["way"] for row in measured["rows"]] == [
        "fm.similarity",
        "loop",
        "loop, NumPy",
        "loop, Gram matrices once",
    ]
    assert all(row["difference"] < 1e-6 and min(row["seconds"]) > 0 for row in measured["rows"])


@pytest.mark.slow
def test_the_embedding_is_measured_on_networks_that_are_trained_for_it(tmp_path):
    rows = tried("embeddings.py", "--others", folder=tmp_path, results="embeddings-others")["rows"]
    assert [row["shape"][:2] for row in rows] == [[3, 64]]
    assert all(0 < row["chance"] < row["kept"][0] < 15 and len(row["processor_seconds"]) == 1 for row in rows)


@pytest.mark.slow
def test_starting_commands_is_measured_beside_what_they_need(tmp_path):
    run = write_run(tmp_path / "run.zarr", channels=3)
    measured = tried("startup.py", str(run), "--layer", "conv1", folder=tmp_path, results="startup")
    rows = {row["command"]: row for row in measured["rows"]}
    assert {name: row["goal"] for name, row in rows.items() if row["goal"]} == {"--help": 1, "info": 2, "plot grid": 4}
    assert all(row["times"] == [row["seconds"][0] / row["needs_seconds"][0]] for row in rows.values())
    assert all(row["seconds"][0] > 0 for row in rows.values())


@pytest.mark.slow
def test_growth_is_measured_along_each_axis_and_with_two_workers_and_ranks(tmp_path):
    found = tried("scale.py", folder=tmp_path, results="scale")
    costs = {f"{verb} by {axis}" for verb in VERBS for axis in ("snapshots", "samples", "channels", "layers")}
    assert set(found["measured"]) == {*costs, "end of an epoch by ranks"}
    for row in found["measured"].values():
        first, last = row["seconds"]
        assert row["sizes"][1] == 2 * row["sizes"][0]
        assert row["exponent"] == pytest.approx(math.log2(last / first))
    for row in (found["workers"]["pca"], found["workers"]["diagnose"], found["ranks"]):
        one, two = row["seconds"]
        assert row["efficiency"] == pytest.approx(one / two / 2)
    assert min(found["workers"]["pca"]["moved"]) > found["workers"]["result"]


def test_what_grows_faster_than_what_it_is_of_says_why():
    rows = results("scale")["measured"]
    over = [name for name, row in rows.items() if row["exponent"] > 1.1]
    assert over
    assert [name for name in over if not rows[name].get("why")] == []


def test_how_embeddings_grow_is_told_as_it_was_measured():
    rows = results("embeddings-scaling")["rows"]
    counts, seconds = ([row[name] for row in rows] for name in ("rows", "tsne"))
    power = np.polyfit(np.log(counts), np.log(seconds), 1)[0]
    assert f"the power {power:.2f} of a snapshot's rows from {counts[0]} to {counts[-1]:,}" in words("scaling.md")
    assert f"the power {power:.2f} of the rows" in words("architecture.md")
    one = results("embeddings-scaling")["one"]
    alone = np.polyfit(*(np.log([row[name] for row in one]) for name in ("rows", "seconds")), 1)[0]
    assert f"the power {alone:.2f} of the rows of a single snapshot" in words("scaling.md")
    *kept, whole = (f"{row['recall']:.0%}"[:-1] for row in results("embeddings-scaling")["landmarks"])
    assert f"{' %, '.join(kept)} % and {whole} % are kept" in words("scaling.md")
    *first, last = (f"{each:.1f}" for each in seconds)
    assert f"take {', '.join(first)} and {last} s (`--scaling`)" in words("architecture.md")


def test_what_grows_is_told_as_it_was_measured():
    measured = results("scale")
    rows = measured["measured"]
    over = {name: row["exponent"] for name, row in rows.items() if row["exponent"] > 1.1}
    told = dict(re.findall(r"`(\w+)` by (\w+) \(", words("scaling.md")))
    assert {f"{verb} by {axis}" for verb, axis in told.items()} <= set(over)
    text = words("scaling.md")
    assert [f"by {name.split(' by ')[1]} ({power:.2f})" in text for name, power in over.items()] == [True] * len(over)
    workers, ranks = measured["workers"], measured["ranks"]
    assert f"each take {ranks['seconds'][1] / ranks['seconds'][0]:.2f} of the time of one" in text
    one, two = workers["diagnose"]["seconds"]
    assert f"take {two / one:.2f} of one's time for `diagnose`" in text
    assert f"sends {workers['diagnose']['moved'][1] / 1e6:.0f} MB" in text
    one, two = workers["pca"]["seconds"]
    assert f"and {two / one:.2f} for `pca`" in text
    assert f"sums of {workers['result'] / 1e6:.1f} MB ({workers['pca']['moved'][1] / 1e6:.0f} MB in all)" in text
    assert f"send {measured['ranks']['moved'][1] / 1e6:.1f} MB" in text
