"""The claims of benchmarks/README.md: which script measures each, and the table that its numbers make."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import dynamic_projections
from results import spread

Measured = dict[str, Any]
MIB, MB = 1 << 20, 1e6


@dataclass(frozen=True)
class Claim:
    """What is asked, and how it is answered.

    Attributes
    ----------
    title, question : str
        Its heading, and what the numbers say.
    command : tuple of str
        A script of this folder and its options.
    quick : tuple of str, optional
        Its options where it only has to be seen to run; None: left out then.
    results : str
        Pattern of the files that the script writes.
    table : callable
        Makes lines of Markdown from one file's content.
    here : bool
        Whether it is measured with the others, or takes hours, or a CUDA device, and has a command of its own.
    """

    title: str
    question: str
    command: tuple[str, ...]
    quick: tuple[str, ...] | None
    results: str
    table: Callable[[Measured], list[str]]
    here: bool = True


def rows_of(columns: list[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """Return a table of Markdown: the first column is words, the others are numbers."""
    ruler = ["---", *["---:"] * (len(columns) - 1)]
    return ["| " + " | ".join(str(cell) for cell in row) + " |" for row in (columns, ruler, *rows)]


def capture(measured: Measured) -> list[str]:
    rows = []
    for row in measured["rows"]:
        if not row.get("installed", True):
            rows.append((row["contender"], "not installed", "", "", ""))
        elif "ratio" in row:
            wrong = row.get("wrong")
            said = "" if wrong is None else ", ".join(wrong) or "none"
            rows.append((row["contender"], row.get("keeps", ""), spread(row["seconds"]), spread(row["ratio"]), said))
    shown = f"{measured['images']} images in batches of {measured['batch_size']}"
    size = f", averaged to {measured['max_size']} x {measured['max_size']}" if measured.get("max_size") else ""
    lines = rows_of(["contender", "keeps", "seconds", "times the bare pass", "layers that are wrong"], rows)
    return [f"{shown}{size}, {measured['stored_bytes'] / MB:.0f} MB of values.", "", *lines]


def memory(measured: Measured) -> list[str]:
    rows = []
    for row in measured["rows"]:
        if row.get("installed", True):
            above = [each / MIB for each in row["above_bare"]]
            allowed = f"{row['allowed'] / MIB:.0f}" if "allowed" in row else ""
            rows.append((row["contender"], len(above), spread(above, 0), f"{above[-1]:.0f}", allowed))
    return rows_of(["contender", "snapshots", "MiB above the bare pass", "at the last", "allowed"], rows)


def profile(measured: Measured) -> list[str]:
    bare, recorded = (measured["rows"][name] for name in ("bare", "recorded"))
    rows = [(part, f"{bare.get(part, 0):.2f}", f"{value:.2f}") for part, value in recorded.items()]
    return rows_of(["seconds; all but the first are the processor's", "a bare pass", "a recorded pass"], rows)


def training(measured: Measured) -> list[str]:
    rows = [
        (row["contender"], spread(row["seconds"]), spread(row["ratio"], 3), measured["goals"][row["question"]])
        if row.get("installed", True)
        else (row["contender"], "not installed", "", "")
        for row in measured["rows"]
    ]
    return rows_of(["an epoch with", "seconds", "times the bare one", "goal"], rows)


def kernel(measured: Measured) -> list[str]:
    times: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in measured["rows"]:
        key = tuple(row[name] for name in ("dtype", "layout", "size"))
        for_way = times.setdefault((*key, row["layer"]), {})
        for_way[row["way"]] = median(row["milliseconds"])
    faster: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for (*key, _layer), ways in times.items():
        faster.setdefault(tuple(key), []).append((ways["torch"] / ways["fused"], ways["fused"] / ways["copy"]))
    rows = [
        (
            dtype.removeprefix("torch."),
            layout,
            size or "whole",
            *(spread(each, 1) for each in zip(*values, strict=True)),
        )
        for (dtype, layout, size), values in faster.items()
    ]
    columns = ["dtype", "layout", "maps", "times as fast as torch's operations, over layers", "times a copy's time"]
    return rows_of(columns, rows)


def codecs(measured: Measured) -> list[str]:
    rows = [
        (
            row["codec"],
            f"{row['size_ratio']:.2f}",
            f"{row['write_processor_s_per_gb']:.2f}",
            "" if row["read_gb_s"] is None else f"{row['read_gb_s']:.2f}",
        )
        for row in measured["rows"]
    ]
    return rows_of(["codec", "size, compressed", "processor seconds a GB written", "GB a second read"], rows)


def products(measured: Measured) -> list[str]:
    rows = [
        (
            f"{row['rows']:,} x {row['features']:,}",
            *(f"{row[dtype]['second_over_first']:.0e}" for dtype in ("float32", "float64")),
            *(f"{row[dtype]['seconds']:.3f}" for dtype in ("float32", "float64")),
        )
        for row in measured["rows"]
    ]
    columns = ["rows x features", "error in float32", "in float64", "seconds in float32", "in float64"]
    return rows_of(columns, rows)


def analysis(measured: Measured) -> list[str]:
    beside, flat = measured["beside"], measured["flat"]
    rows = [
        (name, spread(values), f"{beside['peak'][name] / MIB:,.0f}")
        for name, values in beside["seconds"].items()
        if name in beside["peak"]
    ]
    kept = [row["within"] for row in (*measured["budgets"], *measured["verbs"]) if "within" in row]
    return [
        f"Rows x features: {beside['shape'][0]:,} x {beside['shape'][1]:,}.",
        "",
        *rows_of(["what", "seconds", "peak, MiB"], rows),
        "",
        f"- Over the larger of reading and products: {spread(beside['over'])} (goal 1.5).",
        f"- A script takes {spread(beside['script_over_pca'], 1)} times as long (goal 5) and "
        f"{beside['script_over_pca_memory']:.1f} times the memory (goal 8).",
        f"- Seconds per GB over size: slope {flat['slope']:.2f} ± {flat['slope_half_width_95']:.2f} "
        f"(95 %): {flat['verdict'].lower()}.",
        f"- {sum(kept)} of {len(kept)} verbs and views kept to their budget of memory.",
    ]


def similarity(measured: Measured) -> list[str]:
    rows = [
        (row["way"], spread(row["seconds"]), spread(row["times"], 1), f"{row['difference']:.0e}")
        for row in measured["rows"]
    ]
    shown = (
        f"{measured['pairs']:,} pairs of {measured['representations']} representations of {measured['samples']} images"
    )
    return [f"{shown}.", "", *rows_of(["way", "seconds", "times as long", "largest difference"], rows)]


def embeddings(measured: Measured) -> list[str]:
    rows = [
        (
            row["method"],
            row["view"],
            f"{median(row['kept']):.2f}",
            f"{median(row['motion']):.2f}",
            spread(row["seconds"], 1),
        )
        for row in measured["rows"]
    ]
    return rows_of(["method", "view", "neighbors kept of 15", "motion", "seconds"], rows)


def other_embeddings(measured: Measured) -> list[str]:
    apart = {row["run"]: median(row["kept"]) for row in measured["rows"] if row["method"] == "separate UMAPs"}
    rows = [
        (
            row["run"],
            "yes" if row["chosen"] else "no",
            row["method"],
            spread(row["kept"]),
            f"{median(row['kept']) / apart[row['run']]:.1%}",
            spread(row["motion"]),
            spread(row["processor_seconds"], 1),
        )
        for row in measured["rows"]
    ]
    shares = ["neighbors kept of 15", "of what separate UMAPs keep"]
    return rows_of(["run", "chosen on it", "method", *shares, "motion", "processor seconds"], rows)


def embedding_scale(measured: Measured) -> list[str]:
    rows = [(f"{row['rows']:,}", f"{row['tsne']:.1f}", f"{row['umap']:.1f}") for row in measured["rows"]]
    return rows_of(["rows of each of 20 snapshots", "processor seconds, t-SNE's loss", "UMAP's loss"], rows)


def page(measured: Measured) -> list[str]:
    opened = {name: spread(values) for name, values in measured["opened"].items()}
    rows = [
        ("megabytes", f"{measured['bytes'] / MB:.1f}"),
        ("seconds to write it", f"{measured['written']['first']:.0f}"),
        ("again, from saved results", f"{measured['written']['again']:.0f}"),
        *((f"seconds until: {name}", value) for name, value in opened.items()),
    ]
    return rows_of([f"{measured['snapshots']} snapshots of {measured['samples']} photographs", ""], rows)


def scale(measured: Measured) -> list[str]:
    grown, workers, ranks = measured["measured"], measured["workers"], measured["ranks"]
    lines = rows_of(
        ["cost", "from", "to", "seconds", "exponent", "why over 1.1"],
        (
            (name, row["sizes"][0], row["sizes"][-1], f"{row['seconds'][0]:.2g} to {row['seconds'][-1]:.2g}",
             f"{row['exponent']:.2f}", row.get("why", ""))
            for name, row in grown.items()
        ),
    )  # fmt: skip
    beside = [
        (f"`{verb}`, Dask workers (a run of {workers['stored'] / MB:.0f} MB)", workers[verb])
        for verb in ("pca", "diagnose")
    ]
    beside.append(("an epoch that all ranks record", ranks))
    lines += ["", *rows_of(
        ["by one and by two", "seconds, one", "two", "efficiency", "cores busy, one", "two", "MB sent, one", "two"],
        (
            (name, *(f"{each:.2f}" for each in row["seconds"]), f"{row['efficiency']:.2f}",
             *(f"{each:.1f}" for each in row.get("cores", ())), *("" for _ in range(2 - len(row.get("cores", ())))),
             *(f"{each / MB:.1f}" for each in row["moved"]))
            for name, row in beside
        ),
    )]  # fmt: skip
    paper = measured["paper"]
    columns = ["ImageNet on paper", *next(iter(paper.values()))]
    on_paper = ((name, *(f"{value:,.4g}" for value in row.values())) for name, row in paper.items())
    return [*lines, "", *rows_of(columns, on_paper)]


def startup(measured: Measured) -> list[str]:
    rows = [
        (row["command"], spread(row["seconds"]), f"`import {row['needs']}`", spread(row["times"]), row["goal"] or "")
        for row in measured["rows"]
    ]
    return rows_of(["command", "seconds of the processor", "what it needs", "times that", "goal"], rows)


def long_pages(measured: Measured) -> list[str]:
    rows = [
        (
            name,
            f"{row['bytes'] / MB:.1f}",
            f"{row['written']['first']:.0f}",
            f"{row['written']['again']:.0f}",
            spread(row["opened"]["loaded"]),
            spread(row["opened"]["everything"]),
        )
        for name, row in measured["pages"].items()
    ]
    return rows_of(["run", "megabytes", "seconds to write it", "again", "until loaded", "until all is drawn"], rows)


def elsewhere(name: str) -> Callable[[Measured], list[str]]:
    return lambda _measured: [f"Tables and sentences: [docs/{name}](../docs/{name})."]


CLAIMS = (
    Claim("Recording a probe", "What a recorded pass takes beside a bare one and beside what others keep; goal 1.15.",
          ("capture.py",), ("--quick",), "capture-cpu.json", capture),
    Claim("Profile of a recorded pass", "Where the processor time of a pass goes, by what the threads are for.",
          ("capture.py", "--profile"), ("--quick",), "capture-profile-cpu.json", profile),
    Claim("Memory of a recorder", "Whether memory above the bare pass is flat, and within what is allowed.",
          ("capture.py", "--memory", "--only", "fmcluster", "fmcluster 64 MiB"), ("--quick",),
          "capture-memory-cpu.json", memory),
    Claim("Recording while training", "What an epoch takes with a probe at its end, or with every batch recorded.",
          ("training.py",), ("--quick",), "training-*.json", training),
    Claim("Compression", "Size and speed of feature maps of the demo's network.",
          ("codecs.py", "demo/run.zarr"), ("--repeats", "1"), "codecs.json", codecs),
    Claim("Precision of a Gram matrix", "The error of a singular value that is zero, over the largest, and seconds.",
          ("products.py",), (), "products.json", products),
    Claim("Principal components out of core", "`pca` and k-means of the largest layer, beside its parts and a script.",
          ("analysis.py", "--folder", "{folder}"), ("--small", "--rounds", "1"), "analysis.json", analysis),
    Claim("Similarity of all layers and snapshots", "From one pass, beside loops over pairs; goal 5 times as fast.",
          ("similarity.py",), ("--quick",), "similarity.json", similarity),
    Claim("Embeddings of snapshots", "Neighbors kept within a snapshot, and rank correlation of movements.",
          ("embeddings.py",), None, "embeddings-cifar.json", embeddings),
    Claim("Embeddings of other runs", "Three runs on which the default was chosen, and three tried after "
          "that; goals: 98 % of what separate UMAPs keep, and a joint UMAP's motion.",
          ("embeddings.py", "--others"), ("--quick",), "embeddings-others.json", other_embeddings),
    Claim("Embeddings of more rows", "Processor seconds of the default embedding.",
          ("embeddings.py", "--scaling"), None, "embeddings-scaling.json", embedding_scale),
    Claim("Embeddings of others' data", "By the scores, and beside 13 methods, of Vernier et al. (2020).",
          ("dynamic_projections.py",), ("--sets", "cartolastd", "--methods", "PCA of all"),
          "dynamic_projections.json", lambda measured: dynamic_projections.rendered(measured).splitlines()),
    Claim("The report", "Size, seconds to write, and seconds until it stands in Chromium.",
          ("report.py", "--folder", "{folder}"), None, "report.json", page),
    Claim("Reports of long runs", "Whether a page stays small, and is soon there, however many snapshots there are.",
          ("report.py", "--folder", "{folder}", "--long"), None, "report-long.json", long_pages, here=False),
    Claim("Starting a command", "What a command takes from its start to its end, beside the imports that it needs.",
          ("startup.py", "demo/run.zarr"), ("--quick",), "startup.json", startup),
    Claim("Growth", "Exponents of processor time over a range of sizes (1 is proportional; at most 1.1, or why), what "
          "two workers and ranks save and send, and what ImageNet would take.",
          ("scale.py",), ("--quick",), "scale.json", scale),
    Claim("What is said of layers and channels", "Planted faults, controls, rankings; an hour.",
          ("advice.py",), None, "advice.json", elsewhere("evidence.md"), here=False),
    Claim("Whether a plan pays", "Five tasks and smaller networks, arms at equal cost; hours.",
          ("decide.py",), None, "decide.json", elsewhere("proof.md"), here=False),
    Claim("Recording on a CUDA device", "`make gpu`: the same pass on a card.",
          ("capture.py",), None, "capture-nvidia-*.json", capture, here=False),
    Claim("The fused kernel", "`make gpu`: one pass over a layer's output beside torch's operations.",
          ("kernel.py",), None, "kernel-nvidia-*.json", kernel, here=False),
)  # fmt: skip


def rendered(folder: Path) -> str:
    """Return benchmarks/README.md, from the results in a folder."""
    out = [HEAD]
    for claim in CLAIMS:
        out += [f"## {claim.title}", "", claim.question, ""]
        files = sorted(folder.glob(claim.results))
        if not files:
            out += ["Not measured yet.", ""]
        for file in files:
            measured = json.loads(file.read_text())
            machine = measured["machine"]
            when = f", {measured['date']}" if "date" in measured else ""
            device = measured.get("device", "cpu")
            on = "" if device == "cpu" else f", {device}"
            command = " ".join(claim.command).replace("{folder}", "FOLDER")
            out += [
                f"`python benchmarks/{command}` on {machine['cores']} cores of {machine['cpu']}, "
                f"{machine['memory_gib']} GiB{on}{when} (`results/{file.name}`).",
                "",
                *claim.table(measured),
                "",
            ]
    return "\n".join(out).rstrip() + "\n"


HEAD = """# Benchmarks

`make bench` runs what is below, one script after the other, and writes this page; `make bench ARGS=--quick` only tries
the scripts out, and writes nothing here. Contenders take turns in one run; numbers are medians, with their range where
it shows. Where a goal is named and missed, [the architecture](../docs/architecture.md) says why. Results without a
date are older than the dates.
"""
