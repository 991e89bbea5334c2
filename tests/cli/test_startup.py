"""What commands do not load, as nobody waits for what is not used; `benchmarks/startup.py` measures what that takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.small_cli_run import write_run

# in one process, those that need more after those that need less
SCRIPT = """
import json, sys
from fmcluster.cli import main

loaded = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["fmcluster", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, arguments
    loaded.append(sorted(sys.modules))
print(json.dumps(loaded))
"""
COMPUTING = {"torch", "torchvision", "scipy", "sklearn", "umap", "openTSNE", "numba", "xarray", "plotly", "jinja2"}
OF_SEABORN = {"scipy"}
DRAWING = {"matplotlib", "seaborn", "PIL"}


@pytest.mark.slow
def test_commands_load_nothing_that_they_do_not_use(tmp_path: Path) -> None:
    run = str(write_run(tmp_path / "run.zarr", channels=3))
    picture = str(tmp_path / "picture.png")
    absent = {
        ("--help",): {"numpy", "importlib.metadata", "concurrent.futures", "rich.progress", "rich.table", "hashlib"},
        ("verify", run): COMPUTING | DRAWING,
        ("info", run): COMPUTING | DRAWING,
        ("plot", run, "grid", "--layer", "conv1", "-o", picture): COMPUTING - OF_SEABORN,
        ("plot", run, "metrics", "-o", picture): COMPUTING - OF_SEABORN,
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(absent))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for (arguments, unused), loaded in zip(absent.items(), found, strict=True):
        assert unused & set(loaded) == set(), arguments
