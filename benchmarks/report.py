"""How large is a report, how long does it take to write, and how soon can it be read?

    python benchmarks/report.py --folder /a/folder/with/6/GB
    python benchmarks/report.py --folder /a/folder/with/6/GB --long

Makes a run of 20 snapshots (a ResNet-18 at 224 px, ten children, 40 photographs, a training step apart) and keeps it
in the folder. The report is written twice: the second time from saved results. Then it is opened in headless Chromium,
each time in a new page: until it has loaded (findings, pictures and tables can be read), until the first chart stands,
and until all do. Best with nothing else running.

`--long` does it with runs of 200 and 1,000 snapshots, a training step apart, of convolutions on the digits of
scikit-learn (two layers of 64 and 256 channels, and five of 512), 40 images: of these the page shows 40 snapshots.

Prints a table and writes results/report.json, or results/report-long.json.
"""

import argparse
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any
from urllib.request import Request, urlopen

from analysis import make_run
from results import FOLDER, machine, write

N_SNAPSHOTS, N_SAMPLES = 20, 40
LONG = {  # channels of the layers, side of their maps, snapshots
    "200 snapshots, 64 and 256 channels": ((64, 256), 14, 200),
    "1,000 snapshots, 64 and 256 channels": ((64, 256), 14, 1000),
    "200 snapshots, five layers of 512 channels": ((512,) * 5, 4, 200),
}


def written(path: Path, page: Path) -> float:
    """Return the seconds that writing the report takes."""
    import fmcluster as fm

    start = perf_counter()
    fm.write_report(fm.open_run(path), page)
    return perf_counter() - start


def opened(page: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds from asking for a page until it has loaded, its first chart stands, and all of them do.

    Nothing is attached to the browser: a copy of the page notes its own times and puts them into its title. (With a
    debugger attached, as Playwright does, V8 parses plotly.js several times over to place the exceptions it throws.)
    """
    found: dict[str, list[float]] = {"loaded": [], "first chart": [], "everything": []}
    with TemporaryDirectory() as folder, _chromium(Path(folder)) as address:
        copy = Path(folder) / page.name
        copy.write_text(page.read_text(encoding="utf-8").replace("<body>", f"<body><script>{STOPWATCH}</script>", 1))
        for _ in range(rounds + 1):
            tab = _asked(f"{address}/json/new?{copy.as_uri()}", method="PUT")["id"]
            title = ""
            while not title.startswith("seconds"):
                sleep(0.25)
                title = next(each["title"] for each in _asked(f"{address}/json/list") if each["id"] == tab)
            for name, value in zip(found, title.split()[1:], strict=True):
                found[name].append(float(value))
            urlopen(f"{address}/json/close/{tab}").close()
    return {name: values[1:] for name, values in found.items()}  # the first one warms up


STOPWATCH = """
const root = document.documentElement, at = {};
addEventListener("load", () => { at.loaded = performance.now(); });
addEventListener("drawn", () => { at.first ??= performance.now(); }, true);
new MutationObserver(() => {
  if (!root.dataset.drawn) return;
  at.drawn ??= performance.now();
  setTimeout(() => { document.title = ["seconds", at.loaded / 1e3, at.first / 1e3, at.drawn / 1e3].join(" "); }, 500);
}).observe(root, { attributes: true });
"""


@contextmanager
def _chromium(folder: Path) -> Iterator[str]:
    """Start a browser, and give the address at which it says what it shows."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("there is no Chromium on this machine")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,900"]
    flags += [f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", "about:blank"]
    with subprocess.Popen([program, *flags], stderr=subprocess.PIPE, text=True) as browser:
        assert browser.stderr is not None
        try:
            line = next(line for line in browser.stderr if "DevTools listening" in line)
            sleep(2)  # it has more to do when it starts
            yield "http://" + line.split("ws://")[1].split("/")[0]
        finally:
            browser.terminate()
            browser.communicate()


def _asked(address: str, *, method: str = "GET") -> Any:
    with urlopen(Request(address, method=method)) as answer:
        return json.load(answer)


def make_long_run(path: Path, *, widths: Sequence[int], side: int, n_snapshots: int) -> None:
    """Train convolutions on digits, and record them after each step."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    import fmcluster as fm

    torch.manual_seed(0)
    pixels, labels = (torch.from_numpy(each) for each in load_digits(return_X_y=True))
    images = nn.functional.interpolate(pixels.float().view(-1, 1, 8, 8) / 16, size=(side, side), mode="bilinear")
    blocks: list[nn.Module] = []
    for before, after in zip((1, *widths[:-1]), widths, strict=True):
        blocks.append(nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()))
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    probe = list(zip(images[:N_SAMPLES], labels[:N_SAMPLES].tolist(), strict=True))
    layers = [str(number) for number in range(len(widths))]
    with fm.Recorder(model, path, layers=layers, probe=probe, mode="w") as recorder:
        for step in range(n_snapshots):
            chosen = torch.arange(64 * step, 64 * step + 64) % len(images)
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            recorder.snapshot(epoch=step, metrics={"train_loss": float(loss.detach())})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def made(path: Path, make: Callable[[Path], None]) -> Path:
    """Return a run that is made once, and kept."""
    if not path.exists():
        unfinished = path.with_name(f"unfinished-{path.name}")
        make(unfinished)
        unfinished.rename(path)
    shutil.rmtree(f"{path}.results", ignore_errors=True)
    return path


def measured_page(path: Path, page: Path, *, rounds: int) -> dict[str, Any]:
    seconds = {"first": written(path, page), "again": written(path, page)}
    found = opened(page, rounds)
    print(f"{page.stat().st_size / 1e6:.1f} MB; written in {seconds['first']:.0f} s, again in {seconds['again']:.0f} s")
    for name, values in found.items():
        print(f"  {name:12s} {median(values):.2f} ({min(values):.2f} to {max(values):.2f}) s")
    return {"bytes": page.stat().st_size, "written": seconds, "opened": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the run is made, and found again")
    parser.add_argument("--long", action="store_true", help="runs of 200 and 1,000 snapshots")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    page = arguments.folder / "report.html"
    if arguments.long:
        found = {}
        for name, (widths, side, n_snapshots) in LONG.items():
            make = partial(make_long_run, widths=widths, side=side, n_snapshots=n_snapshots)
            path = made(arguments.folder / f"long-{len(widths)}-{n_snapshots}.zarr", make)
            print(name, flush=True)
            found[name] = measured_page(path, page, rounds=arguments.rounds)
        measured = {"machine": machine(), "samples": N_SAMPLES, "pages": found}
        write("report-long", measured, folder=arguments.output)
        return
    make = partial(make_run, n_samples=N_SAMPLES, size=224, n_snapshots=N_SNAPSHOTS)
    found = measured_page(made(arguments.folder / "report.zarr", make), page, rounds=arguments.rounds)
    measured = {"machine": machine(), "snapshots": N_SNAPSHOTS, "samples": N_SAMPLES, **found}
    write("report", measured, folder=arguments.output)


if __name__ == "__main__":
    main()
