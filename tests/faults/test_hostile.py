"""Runs that lie: sealed by one who means harm, or with something else in the place of a file. Refused in words."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmcluster import StoreError
from fmcluster.cli import main
from fmcluster.store import RunWriter, escape, open_run, verify
from fmcluster.store.format._chunk_file import write_chunk

from ..store.format.test_check_root import bomb
from ..store.sealing import seal
from .small_runs import parts_of, record_probe

CONV = "layers/conv/activation"
Root = dict[str, Any]


def nodes(root: Root) -> dict[str, Any]:
    return root["consolidated_metadata"]["metadata"]


def about(root: Root) -> dict[str, Any]:
    return root["attributes"]["fmcluster"]


def change(run: Path, how: Callable[[Root], object]) -> None:
    """Change a root, and have its commits vouch for what came of it."""
    root = json.loads((run / "zarr.json").read_bytes())
    how(root)
    (run / "zarr.json").write_text(json.dumps(root))
    seal(run)


def axis(path: str, number: int, length: int, *, chunk: int | None = None) -> Callable[[Root], None]:
    def how(root: Root) -> None:
        nodes(root)[path]["shape"][number] = length
        if chunk is not None:
            nodes(root)[path]["chunk_grid"]["configuration"]["chunk_shape"][number] = chunk

    return how


def described(**said: Any) -> Callable[[Root], None]:
    return lambda root: nodes(root)["layers/conv"]["attributes"].update(said)


def committed(number: int, **said: Any) -> Callable[[Root], None]:
    return lambda root: about(root)["commits"][number].update(said)


def drop(path: str) -> Callable[[Root], object]:
    return lambda root: nodes(root).pop(path)


def of_type(path: str, dtype: str, fill: Any) -> Callable[[Root], None]:
    return lambda root: nodes(root)[path].update(data_type=dtype, fill_value=fill)


LIES: dict[str, Callable[[Root], object]] = {
    "a layer that is named twice": lambda root: about(root).update(layers=["conv", "conv", "fc"]),
    "a layer that is not there": lambda root: about(root).update(layers=["conv", "fc", "gone"]),
    "no layers": lambda root: about(root).update(layers=[]),
    "a layer of another name": described(name="fc"),
    "a layer without maps": drop(CONV),
    "a layer without statistics": drop("layers/conv/statistics"),
    "a layer without a group": drop("layers/conv"),
    "a group in place of maps": lambda root: nodes(root).update(
        {CONV: {"zarr_format": 3, "node_type": "group", "attributes": {}}}
    ),
    "fewer samples than the index": axis(CONV, 1, 3),
    "more samples than the index": axis(CONV, 1, 9),
    "fewer channels than statistics": axis(CONV, 2, 2),
    "no channels": axis(CONV, 2, 0),
    "a hundred million channels": axis(CONV, 2, 10**8),
    "statistics of too few kinds": axis("layers/conv/statistics", 1, 3),
    "an index of nothing": axis("index", 1, 0),
    "an index of 10^9 samples": axis("index", 1, 10**9, chunk=10**9),
    "an index of 10^14 samples": axis("index", 1, 10**14),
    "labels of 10^12 samples": axis("samples/label", 0, 10**12),
    "labels of other samples": axis("samples/label", 0, 3),
    "names in chunks of 10^12": axis("samples/path", 0, 10**12, chunk=10**12),
    "digests of one byte": axis("samples/digest", 1, 1),
    "pictures of nine colors": axis("inputs/display", 3, 9),
    "pictures of no height": axis("inputs/display", 1, 0),
    "pictures of a great height": axis("inputs/display", 1, 10**5),
    "an index of fractions": of_type("index", "float64", "NaN"),
    "epochs that are fractions": of_type("epoch", "float64", "NaN"),
    "statistics that are integers": of_type("layers/conv/statistics", "int64", -1),
    "pictures of fractions": of_type("inputs/display", "float64", "NaN"),
    "an epoch below zero": committed(0, epoch=-7),
    "an epoch beyond 64 bits": committed(2, epoch=10**30),
    "a step beyond 64 bits": committed(2, step=2**70),
    "epochs that go back": committed(0, epoch=9),
    "steps that go back": committed(0, step=99),
    "sessions that left out words": lambda root: about(root)["sessions"][0].update(missing="abc"),
    "sessions that left out numbers": lambda root: about(root)["sessions"][0].update(left_out=[1]),
    "a module that is a list": described(module=["a"]),
    "an axis that is a list": described(channel_axis=[1]),
    "a scale that is a word": described(quantization={"scale": "x", "zero_point": 0}),
    "a scale without a zero point": described(quantization=[1]),
    "a crop of numbers": described(crop=[1, 2, 3]),
    "a crop of nothing": described(crop=[[5, 2], [3, 1]]),
    "an output that is a word": described(output="abc"),
    "an output of one axis": described(output=[4]),
    "an output beyond all numbers": described(output=[10**30, 6, 6]),
    "rows folded by a word": described(rows_folded="x"),
    "a stream that is a number": described(stream=7),
    "a kernel that is a word": described(kernel="k"),
    "notes that are a number": lambda root: about(root)["sessions"][0].update(notes=7),
    "versions that are words": lambda root: about(root)["sessions"][0].update(versions="abc"),
    "a model that is a list": lambda root: about(root)["sessions"][0].update(model=[1]),
    "layers that vary by number": lambda root: about(root)["sessions"][0].update(varying=[7]),
    "a type of a million letters": of_type(CONV, "x" * 10**6, "NaN"),
    "a name too long for a file": lambda root: nodes(root).update({f"layers/{'x' * 300}": nodes(root)["layers/conv"]}),
}


@pytest.mark.parametrize("what", LIES)
def test_a_run_that_lies_is_refused_in_one_sentence(
    what: str, originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(originals("probe", 0))
    change(path, LIES[what])
    with pytest.raises(StoreError, match="is damaged") as refused:
        read_all(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500 + len(str(path))


def read_all(path: Path) -> None:
    """Read what a run holds and what it says of its layers."""
    run = open_run(path)
    dict(parts_of(path))
    for layer in map(run.__getitem__, run.layers):
        for name in ("module", "channel_axis", "channel_axis_source", "quantization", "rows_folded", "crop", "stream"):
            getattr(layer, name)
        assert layer.output_shape
        assert layer.kernel is None or layer.kernel.groups


@pytest.mark.parametrize("values", [[0, 0, 1, 2, 3, 4], [-3, -2, -1, 0, 1, 2]], ids=["twice", "negative"])
def test_samples_that_cannot_be_are_refused(
    values: list[int], originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(originals("probe", 0))
    root = json.loads((path / "zarr.json").read_bytes())
    (chunk,) = nodes(root)["samples/sample"]["chunk_grid"]["configuration"]["chunk_shape"]
    for number, file in enumerate(sorted((path / "samples/sample").glob("c.*"))):
        write_chunk(file, np.array(values[number * chunk :][:chunk], np.int64), chunk=(chunk,), level=1)
    seal(path)
    with pytest.raises(StoreError, match="negative or there twice"):
        assert open_run(path).samples is not None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 1, 2, 3, 4, -1], "a slot without a sample"),
        ([0, 0, 1, 2, 3, 4], "a sample twice"),
        ([0, 1, 2, 3, 4, 77], "holds the sample 77, of which the run says nothing"),
    ],
    ids=["empty", "twice", "unknown"],
)
def test_an_index_of_what_is_no_sample_is_refused(
    values: list[int], said: str, originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(originals("probe", 0))
    root = json.loads((path / "zarr.json").read_bytes())
    shape = nodes(root)["index"]["chunk_grid"]["configuration"]["chunk_shape"]
    for file in (path / "index").glob("c.1.*"):
        first = int(file.name.rpartition(".")[2]) * shape[1]
        write_chunk(file, np.array([values[first : first + shape[1]]]), chunk=tuple(shape), level=1)
    seal(path)
    run = open_run(path)
    assert run["conv"].read(snapshot=0) is not None
    with pytest.raises(StoreError, match=said):
        run["conv"].read(snapshot=1)


def test_a_probe_without_digests_is_read_and_not_gone_on_with(
    originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(originals("probe", 0))
    change(path, drop("samples/digest"))
    assert open_run(path)["conv"].read(snapshot=1).shape == (6, 4, 6, 6)
    with pytest.raises(StoreError, match="cannot be resumed: it holds no digests of its samples"):
        record_probe(path, seed=0, mode="a", epochs=range(3, 4))


def test_epochs_that_other_programs_would_read_are_compared_with_the_commits(
    originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(originals("probe", 0))
    write_chunk(path / "epoch/c.1", np.array([77]), chunk=(1,), level=1)
    seal(path)
    assert open_run(path).epochs == [0, 1, 2]
    assert verify(open_run(path)) == [f"{path} is damaged: the array epoch is not what the commits say."]


def test_a_chunk_that_its_array_says_is_huge_takes_no_memory(
    originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    """It unpacks to what is declared, so that nothing but the size itself tells."""
    path, count = copy_of(originals("probe", 0)), 3 * 10**8
    change(path, axis("samples/label", 0, count, chunk=count))
    (path / "samples/label/c.0").write_bytes(bomb(8 * count))
    seal(path)
    with pytest.raises(StoreError, match="has chunks of 2,288 MiB"):
        open_run(path)


NAMES = {
    "colors": "\x1b[31mred\x1b[0m",
    "a title": "\x1b]0;owned\x07",
    "C1": "a\x9b31m",
    "turned around": "a\u202egnp.exe",
    "markup": "[bold]x[/bold]",
    "an end of markup": "a[/red]b",
    "lines": "a\nerror: b",
    "half a letter": "x\udce9y",
}


@pytest.mark.parametrize("what", NAMES)
def test_no_name_steers_the_terminal(
    what: str,
    originals: Callable[[str, int], Path],
    copy_of: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, name = copy_of(originals("probe", 0)), NAMES[what]
    here = f"layers/{escape(name)}" if what != "half a letter" else "layers/conv"

    def how(root: Root) -> None:
        for old in [each for each in nodes(root) if each == "layers/conv" or each.startswith("layers/conv/")]:
            nodes(root)[here + old.removeprefix("layers/conv")] = nodes(root).pop(old)
        if here != "layers/conv":
            nodes(root)[here]["attributes"]["name"] = name
            about(root)["layers"] = [name, "fc"]
            nodes(root)[f"metrics/{escape(name)}"] = nodes(root).pop("metrics/loss") | {"attributes": {"name": name}}
        nodes(root)[here]["attributes"]["module"] = name
        about(root)["classes"] = [name, "b", "c"]
        about(root)["sessions"][0].update(
            missing=[{"epoch": 1, "step": 1, "reason": name}], left_out={name: f"because {name}"}
        )

    if here != "layers/conv":
        (path / "layers/conv").rename(path / here)
        (path / "metrics/loss").rename(path / f"metrics/{escape(name)}")
    change(path, how)
    monkeypatch.setattr(sys, "argv", ["fmcluster", "info", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert said.err == ""
    lines = said.out.splitlines()
    assert not any(line.startswith("error:") for line in lines)
    assert all(each.isprintable() or each == "\u200d" for line in lines for each in line)
    if "markup" in what:
        assert name in said.out


STANDS = {
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "link": lambda path: path.symlink_to(path.name),
    "socket": lambda path: bind(path),
}
WHERE = ["zarr.json", f"{CONV}/c.1.0.0.0.0", "index/c.1.0", "checksums/c.1", "samples/label/c.0", "metrics/loss/c.1"]


def bind(path: Path) -> None:
    """Leave a socket behind, by a name that is short enough for one."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs")
@pytest.mark.parametrize("what", STANDS)
@pytest.mark.parametrize("where", WHERE)
def test_what_stands_where_a_file_should_is_called_what_it_is(
    where: str, what: str, originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    """Opening a FIFO waits for a writer that never comes; that would end in this test's timeout."""
    path = copy_of(originals("probe", 0))
    (path / where).unlink()
    STANDS[what](path / where)
    with pytest.raises(StoreError, match=rf"is a {what}, not a file"):
        dict(parts_of(path))
    if where != "zarr.json":
        assert any(f"is a {what}, not a file" in line for line in verify(open_run(path)))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs")
@pytest.mark.parametrize("what", ["FIFO", "link", "socket"])
@pytest.mark.parametrize("where", ["zarr.json.partial", "epoch/zarr.json.partial", f"{CONV}/c.3.0.0.0.0", "stray"])
def test_a_writer_neither_waits_for_what_is_no_file_nor_writes_through_it(
    where: str, what: str, originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(originals("probe", 0))
    STANDS[what](path / where)
    with pytest.raises(StoreError, match=f"is a {what}, and a run has none"):
        RunWriter(path, mode="a")
    RunWriter(path, mode="w").close()
    assert not path.exists()


def test_a_run_that_is_replaced_is_not_written_through_a_link(
    originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    path, victim = copy_of(originals("probe", 0)), tmp_path / "victim"
    victim.write_text("precious")
    (path / "zarr.json.partial").symlink_to(victim)
    RunWriter(path, mode="w").close()
    assert victim.read_text() == "precious"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs")
@pytest.mark.parametrize("what", ["FIFO", "folder", "link", "socket"])
def test_a_lock_that_is_no_file_is_refused_by_writers_and_none_to_readers(
    what: str, originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(originals("probe", 0))
    lock = path.with_name(f"{path.name}.lock")
    lock.unlink(missing_ok=True)
    STANDS[what](lock)
    with pytest.raises(StoreError, match=f"is a {what}, and the run's lock has to be a file"):
        RunWriter(path, mode="a")
    assert not open_run(path).is_being_written
    assert verify(open_run(path)) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of paths that are too long for one call")
def test_folders_deep_in_one_another_are_refused(
    originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(originals("probe", 0))
    here = os.open(path, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("a", dir_fd=here)
        here, above = os.open("a", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    try:
        with pytest.raises(StoreError, match="deep in one another"):
            RunWriter(path, mode="a")
        with pytest.raises(StoreError, match="deep in one another"):
            assert open_run(path).nbytes_stored
    finally:
        os.system(f"rm -r '{path}'")


def test_a_run_whose_folder_is_read_while_it_is_renamed_is_whole(
    originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was listed and is gone before its size is asked for is none of the run's."""
    path = copy_of(originals("probe", 0))
    whole = open_run(path).nbytes_stored
    (path / "zarr.json.partial").write_bytes(b"1234")
    scan = os.scandir

    def vanishing(folder: str) -> Any:
        found = scan(folder)
        (path / "zarr.json.partial").unlink(missing_ok=True)
        return found

    entries = [entry for entry in scan(path) if entry.name == "zarr.json.partial"]
    monkeypatch.setattr(os, "scandir", lambda folder: contextual(vanishing(folder), entries))
    assert open_run(path).nbytes_stored == whole
    shutil.rmtree(path, ignore_errors=True)


class contextual:
    """Entries of a folder, and some that are gone."""

    def __init__(self, found: Any, more: list[Any]) -> None:
        self.entries = [*found, *more]

    def __enter__(self) -> list[Any]:
        return self.entries

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""
