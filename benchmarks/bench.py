"""Runs the benchmarks one after the other, and writes benchmarks/README.md from their results.

    python benchmarks/bench.py            all but those that take an hour, or a CUDA device
    python benchmarks/bench.py --quick    tries out the scripts that can be; no results are kept
    python benchmarks/bench.py --page     writes the page from the results that there are

Best with nothing else running. FMCLUSTER_DATA names the folder with images, weights and others' data; scripts that
need it are left out without, and said.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from claims import CLAIMS, Claim, rendered
from results import FOLDER

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
NEED_DATA = ("embeddings.py", "dynamic_projections.py")


def command_of(claim: Claim, *, folder: str, quick: bool, output: Path) -> list[str]:
    script, *options = (part.format(folder=folder) for part in claim.command)
    options = [*options, *(claim.quick or ())] if quick else options
    return [sys.executable, str(HERE / script), *options, "--output", str(output)]


def run(claims: list[Claim], *, quick: bool) -> list[str]:
    """Run the scripts; return those that failed."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for claim in claims:
            if (
                claim.command[0] in NEED_DATA
                and "FMCLUSTER_DATA" not in os.environ
                and claim.command[1:] not in (("--scaling",), ("--others",))
            ):
                print(f"== {claim.title}: left out, FMCLUSTER_DATA is not set", flush=True)
                continue
            command = command_of(claim, folder=folder, quick=quick, output=Path(folder) if quick else FOLDER)
            print(f"== {claim.title}: {' '.join(command[1:])}", flush=True)
            start = perf_counter()
            ended = subprocess.run(command, check=False, cwd=HERE.parent).returncode
            print(f"== {claim.title}: {perf_counter() - start:.0f} s{'' if ended == 0 else ', FAILED'}", flush=True)
            if ended:
                failed.append(claim.title)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="try the scripts out, keep no results")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--only", nargs="+", metavar="SCRIPT", help="such as capture.py")
    arguments = parser.parse_args()
    failed: list[str] = []
    if not arguments.page:
        chosen = [claim for claim in CLAIMS if claim.here and (claim.quick is not None or not arguments.quick)]
        chosen = [claim for claim in chosen if arguments.only is None or claim.command[0] in arguments.only]
        if not chosen:
            parser.error(
                f"--only names none of {', '.join(sorted({claim.command[0] for claim in CLAIMS if claim.here}))}"
            )
        failed = run(chosen, quick=arguments.quick)
    if not arguments.quick:
        PAGE.write_text(rendered(FOLDER))
        print(f"written to {PAGE}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
