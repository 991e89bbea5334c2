"""How large is a report, how long does it take to write, and how soon can it be read?

    python benchmarks/report.py --folder /a/folder/with/6/GB

Makes a run of 20 snapshots (a ResNet-18 at 224 px, ten children, 40 photographs, a training step apart) and keeps it
in the folder. The report is written twice: the second time from saved results. Then it is opened in headless Chromium,
each time in a new page: until it has loaded, until the first chart stands, and until the last one does and pointing at
a channel works. Best with nothing else running.

Prints a table and writes results/report.json.
"""

import argparse
import shutil
from pathlib import Path
from statistics import median
from time import perf_counter

from analysis import make_run
from results import FOLDER, machine, write

N_SNAPSHOTS, N_SAMPLES = 20, 40


def written(path: Path, page: Path) -> float:
    """Return the seconds that writing the report takes."""
    import fmcluster as fm

    start = perf_counter()
    fm.write_report(fm.open_run(path), page)
    return perf_counter() - start


def opened(page: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds until the page has loaded, its first chart stands, and its last one does."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    found: dict[str, list[float]] = {"loaded": [], "first chart": [], "everything": []}
    with sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(rounds + 1):
            tab = browser.new_page()
            start = perf_counter()
            tab.goto(page.resolve().as_uri())
            found["loaded"].append(perf_counter() - start)
            tab.wait_for_selector(".chart .main-svg")
            found["first chart"].append(perf_counter() - start)
            tab.wait_for_selector("html[data-joined]", state="attached")
            found["everything"].append(perf_counter() - start)
            tab.close()
        browser.close()
    return {name: values[1:] for name, values in found.items()}  # the first one warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the run is made, and found again")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path, page = arguments.folder / "report.zarr", arguments.folder / "report.html"
    if not path.exists():
        unfinished = path.with_name("unfinished-report.zarr")
        make_run(unfinished, n_samples=N_SAMPLES, size=224, n_snapshots=N_SNAPSHOTS)
        unfinished.rename(path)
    shutil.rmtree(f"{path}.results", ignore_errors=True)
    seconds = {"first": written(path, page), "again": written(path, page)}
    found = opened(page, arguments.rounds)
    print(f"{page.stat().st_size / 1e6:.1f} MB; written in {seconds['first']:.0f} s, again in {seconds['again']:.0f} s")
    for name, values in found.items():
        print(f"  {name:12s} {median(values):.2f} ({min(values):.2f} to {max(values):.2f}) s")
    measured = {
        "machine": machine(),
        "snapshots": N_SNAPSHOTS,
        "samples": N_SAMPLES,
        "bytes": page.stat().st_size,
        "written": seconds,
        "opened": found,
    }
    write("report", measured, folder=arguments.output)


if __name__ == "__main__":
    main()
