"""Every command at runs that lie, are damaged, or hold what is seldom: an answer, or one sentence and no file."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fmcluster as fm
from fmcluster.cli import main
from fmcluster.cli._pictures import OF_THE_RUN, Picture
from fmcluster.store import escape
from fmcluster.store.format._chunk_file import write_chunk

from ..store.sealing import seal
from .conftest import Tally
from .small_runs import LAYERS, Net, Pictures, trained
from .test_hostile import CONV, LIES, Root, about, change, nodes

FEW = ["--layer", "conv", "--clusters", "2"]
COMMANDS = {
    "info": ["info", "RUN"],
    "info --json": ["info", "RUN", "--json"],
    "verify": ["verify", "RUN"],
    "analyze": ["analyze", "RUN", *FEW, "--components", "3", "-o", "OUT/tables"],
    "diagnose": ["diagnose", "RUN", "-o", "OUT/tables"],
    "compare": ["compare", "RUN", "OTHER", "-o", "OUT/both.png"],
    "compare, the other way": ["compare", "OTHER", "RUN", "-o", "OUT/both.html"],
    "report": ["report", "RUN", "--clusters", "2", "-o", "OUT/page.html"],
    "export tensorboard": ["export", "RUN", "tensorboard", *FEW, "--no-diagnosis", "-o", "OUT/logs"],
    "export projector": ["export", "RUN", "projector", *FEW, "-o", "OUT/logs"],
    "explore": ["explore", "RUN", "--port", "0", "--no-browser"],
    "plan": ["plan", "RUN", "--weights", "OTHER", "-o", "OUT/plan.yaml"],
    "copy": ["copy", "RUN", "file://OUT/copy.zarr"],
} | {
    f"plot {each}": ["plot", "RUN", each, *([] if each in OF_THE_RUN else FEW), "-o", "OUT/picture.png"]
    for each in Picture
}
SLOW_PICTURES = {"channel_grid", "top_images", "embedding", "flow", "similarity", "metrics"}
ODD = "\x1b[31m[bold]x[/red]\u202e<script>alert(1)</script>$\\frac{1}{"


def odd_words(run: Path) -> None:
    """Have all that is said in words steer a terminal, be markup, or be half of a formula."""
    metric = f"metrics/{escape(ODD)}"
    (run / "metrics/loss").rename(run / metric)

    def how(root: Root) -> None:
        about(root)["classes"] = [ODD, "", "a\nb"]
        about(root)["sessions"][0].update(
            model=ODD, notes={ODD: ODD}, missing=[{"epoch": 1, "step": 1, "reason": ODD}], left_out={ODD: ODD}
        )
        nodes(root)["layers/conv"]["attributes"]["module"] = ODD
        nodes(root)[metric] = nodes(root).pop("metrics/loss") | {"attributes": {"name": ODD}}

    change(run, how)


def unknown_samples(run: Path) -> None:
    """Have the index name samples of which the run says nothing."""
    root = json.loads((run / "zarr.json").read_bytes())
    shape = tuple(nodes(root)["index"]["chunk_grid"]["configuration"]["chunk_shape"])
    for file in (run / "index").glob("c.*"):
        write_chunk(file, np.arange(100, 100 + shape[1])[None], chunk=shape, level=1)
    seal(run)


def metrics_of(run: Path, values: list[float]) -> None:
    """Change a metric."""
    for snapshot, value in enumerate(values):
        write_chunk(run / f"metrics/loss/c.{snapshot}", np.array([value]), chunk=(1,), level=1)
    seal(run)


def fifo(run: Path) -> None:
    """Leave a FIFO in the place of feature maps: opening it waits for a writer that never comes."""
    file = run / CONV / "c.1.0.0.0.0"
    file.unlink()
    os.mkfifo(file)


def cut(run: Path) -> None:
    """Cut the end off feature maps."""
    file = run / CONV / "c.1.0.0.0.0"
    file.write_bytes(file.read_bytes()[:-7])


RUNS: dict[str, Callable[[Path], Any]] = {
    "that lies": lambda run: change(run, LIES["a layer that is not there"]),
    "whose feature maps are a FIFO": fifo,
    "whose feature maps are cut": cut,
    "of samples that it does not describe": unknown_samples,
    "of odd words": odd_words,
    "that no session describes": lambda run: change(run, lambda root: about(root).update(sessions=[])),
    "of metrics that are not finite": lambda run: metrics_of(run, [np.nan, np.inf, -np.inf]),
}


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another network, of the same probe."""
    path, model = tmp_path_factory.mktemp("other") / "other.zarr", Net()
    with fm.Recorder(model, path, layers=LAYERS, probe=Pictures(0), batch_size=4) as recorder:
        for epoch in range(3):
            model.load_state_dict(trained(9, epoch).state_dict())
            recorder.snapshot(epoch=epoch, step=epoch * 5, metrics={"loss": 1.0})
    return path


class Asked:
    """In the place of the explorer's server: it is asked for the page, and then interrupted."""

    server_port = 1

    def __init__(self, _host: str, *, port: int, app: Any) -> None:
        self.client = app.test_client()

    def serve_forever(self) -> None:
        for path in ("/", "/_dash-layout", "/_dash-dependencies"):
            assert self.client.get(path, base_url="http://127.0.0.1").status_code == 200
        raise KeyboardInterrupt

    def server_close(self) -> None:
        """There is nothing to close."""


def tree(folder: Path) -> dict[str, str]:
    """Return what lies in a folder."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def faults(command: str, code: int, said: Any, out: Path) -> list[str]:
    """Return what is wrong with how a command ended."""
    expected = {"verify": (0, 1, 2), "explore": (130, 2)}.get(command, (0, 2))
    found = [] if code in expected else [f"exit code {code}"]
    if not all(each.isprintable() or each == "\n" for each in said.out + said.err):
        found.append("characters that steer the terminal")
    if code == 2:
        if not (said.err.startswith("error: ") and said.err.count("\n") == 1):
            found.append(f"it says {said.err!r}")
        if tree(out):
            found.append(f"it left {sorted(tree(out))}")
    elif said.err:
        found.append(f"it says {said.err!r}")
    if hidden := [name for name in tree(out) if "/." in f"/{name}"]:
        found.append(f"it left {hidden}")
    pages = [page.read_text() for page in out.rglob("*.html")]
    if any("<script>alert(1)" in page for page in pages):
        found.append("a page runs code")
    return found


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
@pytest.mark.slow
@pytest.mark.parametrize("what", RUNS)
def test_every_command_answers_or_says_one_sentence(
    what: str,
    other: Path,
    originals: Callable[[str, int], Path],
    copy_of: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tally: Tally,
) -> None:
    run = copy_of(originals("probe", 0))
    RUNS[what](run)
    before, answered, wrong = tree(run), set(), {}
    monkeypatch.setattr("fmcluster.explore._serve.BoundedServer", Asked)
    for command, arguments in COMMANDS.items():
        if what != "that lies" and command.startswith("plot ") and command.split()[1] not in SLOW_PICTURES:
            continue
        out = tmp_path / command.replace(" ", "-")
        out.mkdir()
        words = {"RUN": str(run), "OTHER": str(other)}
        given = [words.get(each, each.replace("OUT", str(out))) for each in arguments]
        monkeypatch.setattr("sys.argv", ["fmcluster", *given])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        found = faults(command, code, capsys.readouterr(), out)
        tally["a command is given a run ...", f"... {what}", "wrong" if found else "found"] += 1
        if found:
            wrong[command] = found
        if code in (0, 130):
            answered.add(command)
    assert not wrong
    assert tree(run) == before
    assert answered == set() if what == "that lies" else "info" in answered
