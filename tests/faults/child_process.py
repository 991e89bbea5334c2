"""A process that does one thing after another in children of its own, each killed at a moment of choice, or limited.

Run as ``python -m tests.faults.child_process`` it reads requests, one JSON a line, forks for each, and answers with how
the child ended, and how many changes of files it made. It forks before any thread is started.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # imported once, here, and not by each child

import fmcluster as fm
from fmcluster import CaptureError, StoreError
from fmcluster.cli import main
from fmcluster.cli._analyze import analyze
from fmcluster.cli._app import console
from fmcluster.store import copy_run, open_run
from fmcluster.store.files import _disk

from .small_runs import EPOCHS, LAYERS, RECORD, Net, Pictures, trained

REFUSED = 3


def replay(path: Path, *, seed: int) -> None:
    """Record from the states of the network, or go on with it."""
    states = {epoch: trained(seed, epoch).state_dict() for epoch in range(EPOCHS)}
    fm.replay(Net(), path, checkpoints=states, layers=LAYERS, probe=Pictures(seed), batch_size=4, mode="a")


def command(arguments: list[str]) -> None:
    """Do what a command line says."""
    sys.argv = ["fmcluster", *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise OSError from ended


def do(what: str, path: Path, *, killer: "Killer", arguments: list[str]) -> None:
    """Do what is asked for; go on with what is there."""
    if what == "command":
        command(arguments)
    elif what == "copy":  # of which no file is seen here: obstore sends them
        copy_run(path, arguments[0], progress=lambda done, total: killer.tick())
    elif what == "analyze":
        analyze(str(path), layers=["conv"], clusters=2, components=3, output=path.with_name("tables"))
    elif what == "report":
        fm.write_report(open_run(path), path.with_name("report.html"), layers=["conv"], n_clusters=2)
    elif what == "replay":
        replay(path, seed=0)
    else:
        try:
            done = len(open_run(path))
        except (FileNotFoundError, StoreError):
            done = 0
        RECORD[what](path, seed=0, mode="a", epochs=range(done, EPOCHS))


class Killer:
    """Ends the process right before the k-th change of a file."""

    def __init__(self, below: Path, k: int | None) -> None:
        self.below, self.k, self.count = str(below), k, 0
        flush = os.fsync

        def watched(handle: int) -> None:
            self.tick()
            flush(handle)

        os.fsync = watched  # type: ignore[assignment]
        flush_file_system = _disk._flush_file_system

        def watched_at_once(folder: Path) -> None:
            self.tick()
            flush_file_system(folder)

        _disk._flush_file_system = watched_at_once
        sys.addaudithook(self.audit)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """See whether an event changes a file."""
        if event == "open":
            if isinstance(args[0], str | os.PathLike) and os.fspath(args[0]).startswith(self.below):
                by_mode = isinstance(args[1], str) and args[1][0] in "wxa"
                if by_mode or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
                    self.tick()
        elif event in ("os.rename", "os.remove", "os.rmdir") and self.below in str(args[0]):
            self.tick()

    def tick(self) -> None:
        """Count a change, or end here."""
        if self.count == self.k:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


def serve() -> None:
    """Answer requests until there are no more."""
    torch.set_num_threads(1)
    console.quiet = True  # what this prints is answers
    for name in ("Recorder", "BatchRecorder", "replay", "write_report", "with_index"):
        getattr(fm, name)  # imported once, here, and not by each child
    for line in sys.stdin:
        request = json.loads(line)
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                path = Path(request["path"])
                os.environ.update(request.get("environment", {}))
                if limit := request.get("limit"):
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                killer = Killer(path.parent, request.get("k"))
                do(request["what"], path, killer=killer, arguments=request.get("arguments", []))
                os.write(send, str(killer.count).encode())
                status = 0
            except (StoreError, CaptureError, OSError):
                status = REFUSED
            finally:
                os._exit(status)
        os.close(send)
        with os.fdopen(receive) as pipe:
            count = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps({"status": status, "changes": int(count or 0)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
