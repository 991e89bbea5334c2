"""Results beside a run, crafted by one who has the key: what does not fit is computed again, and nothing else is shown.

What fits in its types, shapes and ranges cannot be told from a result; so no mutation here is one.
"""

import dataclasses
import io
import json
import pickle
import random
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA

import fmcluster as fm
from fmcluster.analysis import (
    Clusters,
    Embedding,
    Findings,
    NoiseFloor,
    ResultCache,
    Scores,
    Similarity,
    TopImages,
    analyze,
    noise_floor,
    top_images,
)
from fmcluster.analysis._saved_result import digest_of
from fmcluster.cli._analyze import analyze as analyze_command
from fmcluster.store import Run, open_run
from fmcluster.vectors import Vectors

from .conftest import Tally, rounds

Arrays = dict[str, np.ndarray]
About = dict[str, Any]
Mutation = Callable[[Arrays, About, random.Random], None]


def made(run: Run) -> dict[str, tuple[type, Vectors | list[Vectors], Any]]:
    """Return a result of each class, its class, and the vectors that it is of."""
    vectors = run["conv"].vectors("channel")
    samples, every = run["conv"].vectors("sample"), [run[name].vectors("sample") for name in run.layers]
    done = analyze(vectors, n_clusters=2, n_components=3, reducer=PCA(2))
    whole = fm.pca(vectors, n_components=2, components=True)
    return {
        "Scores": (Scores, vectors, done.scores),
        "Scores with components": (Scores, vectors, whole),
        "Embedding": (Embedding, vectors, done.embedding),
        "Clusters": (Clusters, vectors, fm.cluster(done.scores, KMeans(3, n_init=1, random_state=0))),
        "TopImages": (TopImages, samples, top_images(run["conv"], k=3)),
        "Similarity": (Similarity, every, fm.similarity(run)),
        "Findings": (Findings, every, fm.diagnose(run)),
        "NoiseFloor": (NoiseFloor, vectors, noise_floor(vectors, KMeans(2, n_init=1), n_splits=2)),
    }


def same(one: object, other: object) -> bool:
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, pd.DataFrame):
        return isinstance(other, pd.DataFrame) and one.astype(object).equals(other.astype(object))
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    return one == other or (one != one and other != other)


# what is done to one of the arrays


def another_type(arrays: Arrays, about: About, draw: random.Random) -> None:
    """Objects, which only pickle can hold, words, complex numbers, records, times, bytes, other numbers."""
    name = draw.choice(sorted(arrays))
    values = arrays[name]
    kinds = ["O", "S9", "c16", "M8[s]", "V8", "i1", "f2", "f4", "?"]
    if values.dtype.kind != "U":  # other words may well be
        kinds += ["U4", values.dtype.newbyteorder(">").str]
    records = np.zeros(values.shape, [("a", "f8"), ("b", "i8")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that not all of it fits
        others = [records, *(np.zeros(values.shape, kind) for kind in kinds)]
    others.append(np.full(values.shape, np.nan))  # labels that are NaN
    arrays[name] = draw.choice([other for other in others if other.dtype != values.dtype])


def another_shape(arrays: Arrays, about: About, draw: random.Random) -> None:
    """No axis, another one, none of its rows, some, more of them, all in one axis, axes in another order."""
    name = draw.choice(sorted(arrays))
    values = arrays[name]
    others = [np.zeros((), values.dtype), values[None], values[..., None], values[:0], values[:-1], values[1:]]
    others += [np.concatenate([values, values]), values.ravel(), values.T]
    arrays[name] = draw.choice([other for other in others if other.shape != values.shape])


def impossible(arrays: Arrays, about: About, draw: random.Random) -> None:
    """Numbers that cannot be: infinite ones, and integers that count nothing."""
    kinds = {name: values.dtype.kind for name, values in arrays.items() if values.size}
    names = [name for name, kind in kinds.items() if kind in "if" and "." not in name]
    floats = ("frame", "channels.5", "channels.6")  # of tables
    name = draw.choice(names or [name for name, kind in kinds.items() if kind == "f" and name.startswith(floats)])
    values = arrays[name].copy()
    values.flat[draw.randrange(values.size)] = np.inf if values.dtype.kind == "f" else draw.choice([-7, 10**9])
    arrays[name] = values


def lacking(arrays: Arrays, about: About, draw: random.Random) -> None:
    del arrays[draw.choice(sorted(arrays))]


def more(arrays: Arrays, about: About, draw: random.Random) -> None:
    arrays[draw.choice(["another", "rows.99", "advice/99/evidence.0", "../victim", "layer"])] = np.zeros(3)


def no_array(arrays: Arrays, about: About, draw: random.Random) -> None:
    """A field that is an array said to be something else."""
    name = draw.choice(sorted(name for name in arrays if "." not in name) or sorted(arrays))
    del arrays[name]
    about["plain"][name] = draw.choice([1.0, "x", [1, 2], {"a": 1}] + [None] * (name != "components"))


# what is done to the rest


def another_column(arrays: Arrays, about: About, draw: random.Random) -> None:
    tables = {name: columns for name, columns in about["tables"].items() if columns}
    columns = tables[draw.choice(sorted(tables))]
    number = draw.randrange(len(columns))
    how = draw.randrange(4)
    if how == 0:
        columns[number] = [draw.choice(["x", "", columns[number - 1][0]]), columns[number][1]]
    elif how == 1:
        kinds = ["category", "complex128", "datetime64[ns]", "Sparse[int]", "int8", "nonsense", "V8", "O", "Float64"]
        columns[number] = [columns[number][0], draw.choice(kinds)]
    elif how == 2:
        del columns[number]
    else:
        columns.append(["more", "int64"])


def another_word(arrays: Arrays, about: About, draw: random.Random) -> None:
    """Plain values of another type."""
    where = draw.choice([part for part in ("plain", "inner") if about[part]])
    held = about[where] if where == "plain" else draw.choice(list(about["inner"].values()))
    name = draw.choice(sorted(held))
    others = [{"a": 1}, [1], {}, True, "10" * 3000]
    held[name] = draw.choice([other for other in others if type(other) is not type(held[name])])


def no_field(arrays: Arrays, about: About, draw: random.Random) -> None:
    part = draw.choice([part for part in ("tables", "inner", "several", "plain") if about[part]])
    del about[part][draw.choice(sorted(about[part]))]


def no_part(arrays: Arrays, about: About, draw: random.Random) -> None:
    part = draw.choice(["tables", "inner", "several", "plain", "key", "digest"])
    if draw.random() < 0.5:
        about.pop(part, None)
        about["unsealed"] = True
    else:
        about[part] = draw.choice([None, [], 3, "x", [[[]]]])


def another_row(arrays: Arrays, about: About, draw: random.Random) -> None:
    """The labels of rows, snapshots or channels of another result: in another order, or other numbers."""
    tables = [name for name, columns in about["tables"].items() if columns and len(arrays[f"{name}.0"]) > 1]
    table = draw.choice(sorted(tables))
    labels = [n for n, (name, _) in enumerate(about["tables"][table]) if name in ("snapshot", "channel", "layer")]
    name = f"{table}.{draw.choice(labels)}"
    values = arrays[name]
    arrays[name] = np.concatenate([values[-1:], values[:-1]]) if values[0] != values[-1] else values[::-1].copy()
    if np.array_equal(arrays[name], values):
        arrays[name] = np.full_like(values, 77) if values.dtype.kind == "i" else np.full_like(values, "x")


def not_sealed(arrays: Arrays, about: About, draw: random.Random) -> None:
    """Numbers that may well be, in a file whose digest is that of others."""
    name = draw.choice(sorted(name for name, values in arrays.items() if values.size and values.dtype.kind in "if"))
    arrays[name] = arrays[name][::-1] + 1
    about["unsealed"] = True


MUTATIONS: list[Mutation] = [
    *(another_type, another_shape, impossible, lacking, more, no_array, another_column, another_word, no_field),
    *(no_part, another_row, not_sealed),
]


def content_of(file: Path) -> tuple[Arrays, About]:
    with np.load(file, allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    return arrays, json.loads(str(arrays.pop("about")))


def npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, values, allow_pickle=True)
    return out.getvalue()


def members_of(arrays: Arrays, about: About) -> dict[str, bytes]:
    whole = {"about": np.array(json.dumps(about))} | arrays
    return {f"{name}.npy": npy(values) for name, values in whole.items()}


def put(file: Path, members: dict[str, bytes], *, twice: str = "") -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # that a name is there twice
        for name, content in members.items():
            archive.writestr(name, content)
        if twice:
            archive.writestr(twice, members[twice])


def seal(file: Path, arrays: Arrays, about: About) -> None:
    """Write a file as one would who knows how."""
    if not about.pop("unsealed", False) and isinstance(about.get("digest"), str):
        del about["digest"]
        about["digest"] = digest_of(arrays, about)
    put(file, members_of(arrays, about))


@pytest.fixture(scope="module")
def run(originals: Callable[[str, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(originals("probe", 0))


@pytest.fixture(scope="module")
def results(run: Run) -> dict[str, tuple[type, Vectors | list[Vectors], Any]]:
    return made(run)


class Saved:
    """One result in a folder, and how often it was computed."""

    def __init__(self, folder: Path, kind: type, vectors: Vectors | list[Vectors], truth: Any) -> None:
        self.cache, self.kind, self.vectors, self.truth = ResultCache(folder), kind, vectors, truth
        self.computed = 0
        self.use()
        (self.file,) = folder.iterdir()
        self.content = self.file.read_bytes()
        self.computed = 0

    def make(self) -> Any:
        self.computed += 1
        return self.truth

    def use(self) -> Any:
        return self.cache.use(self.make, self.kind, verb="made", vectors=self.vectors, parameters={})

    def find(self) -> str:
        """Use what lies there, and say what came of it."""
        before = self.computed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it cannot be read, and is computed again
            found = self.use()
        if not same(found, self.truth):
            return "wrong"
        return "found" if self.computed > before else "harmless"


@pytest.fixture
def saved(results: dict[str, Any], tmp_path: Path) -> Callable[[str], Saved]:
    return lambda what: Saved(tmp_path / "results", *results[what])


RESULTS = ("Scores", "Scores with components", "Embedding", "Clusters", "TopImages", "Similarity")
WHAT = [*RESULTS, "Findings", "NoiseFloor"]


@pytest.mark.parametrize("what", WHAT)
def test_what_was_saved_is_read_as_it_was(what: str, saved: Callable[[str], Saved]) -> None:
    it = saved(what)
    assert same(it.use(), it.truth)
    assert it.computed == 0
    it.file.unlink()
    assert it.find() == "found"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["probe", "live"])
def test_no_result_of_any_layer_view_and_snapshots_is_refused(
    kind: str, originals: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """A warning, such as that one is computed again, is an error here."""
    run = open_run(originals(kind, 0))
    layers = [*(run[name] for name in run.layers), *([run["conv"].gradient] if kind == "live" else [])]
    cache = ResultCache(tmp_path / "results")

    def twice(truth: Any, vectors: Vectors | list[Vectors], **parameters: object) -> Any:
        use = partial(cache.use, kind=type(truth), verb="made", vectors=vectors, parameters=parameters)
        use(lambda: truth)
        assert same(use(lambda: pytest.fail("it was computed again")), truth)
        return truth

    for layer in layers:
        for snapshots in (None, [1], [0, 2]):
            for view in ("channel", "sample", "feature_map", "position"):
                vectors = layer.vectors(view, snapshots=snapshots, n_rows=20)
                scores = twice(fm.pca(vectors, n_components=3), vectors, what="pca")
                if len(scores.rows) < 4:
                    continue
                clusterer, epoch = KMeans(2, n_init=1, random_state=0), int(scores.rows["epoch"].iloc[0])
                for fit in ({}, {"fit": "each"}, {"fit_epoch": epoch}):
                    twice(fm.cluster(scores, clusterer, **fit), vectors, what="cluster", **fit)
                twice(fm.cluster(scores, DBSCAN(eps=1e-9), fit="each"), vectors, what="noise")
                if scores.values.shape[1] > 1:
                    twice(fm.embed(scores, PCA(2)), vectors, what="embed")
            samples = layer.vectors("sample", snapshots=snapshots)
            for by in ("max", "mean"):
                twice(top_images(layer, k=9, snapshots=snapshots, by=by), samples, what=by)
    every = [run[name].vectors("sample") for name in run.layers]
    for metric in ("cka", "rbf_cka", "procrustes"):
        twice(fm.similarity(run, metric=metric), every, what=metric)
    some = [run[name].vectors("sample", snapshots=[0]) for name in run.layers]
    twice(fm.diagnose(run, snapshots=[0]), some, what="diagnose")


@pytest.mark.slow
@pytest.mark.parametrize("what", WHAT)
def test_what_was_crafted_is_computed_again(what: str, saved: Callable[[str], Saved], tally: Tally) -> None:
    it = saved(what)
    for seed in range(rounds(60, among=len(WHAT))):
        draw = random.Random(f"{what} {seed}")
        mutate = MUTATIONS[seed % len(MUTATIONS)]
        it.file.write_bytes(it.content)
        arrays, about = content_of(it.file)
        mutate(arrays, about, draw)
        seal(it.file, arrays, about)
        came = it.find()
        tally["a saved result is crafted", what, came] += 1
        assert came == "found", f"{what}, {mutate.__name__}, seed {seed}: {came}"
        assert it.find() == "harmless", "what was computed again was saved again"


def test_a_name_that_is_there_twice_is_computed_again(saved: Callable[[str], Saved]) -> None:
    it = saved("Scores")
    members = members_of(*content_of(it.file))
    put(it.file, members)
    assert it.find() == "harmless"
    for name in members:
        put(it.file, members, twice=name)
        assert it.find() == "found"


def header(shape: str, dtype: str = "<f8") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        header("(1000000000000000,)"),
        header("(10000000000, 3)") + bytes(100),
        header("(-5, 3)"),
        header("(True, 3)"),
        header("(99999999999999999999999, 3)"),
        header("(0, 3)"),
        header("(3,)", "|O") + pickle.dumps([1, 2, 3]),
        header("(" * 900 + ")" * 900),
        b"\x93NUMPY\x09\x00",
        b"",
        b"not an array",
    ],
    ids=lambda content: str(content[10:70]),
)
def test_arrays_that_say_too_much_of_themselves_are_computed_again(
    content: bytes, saved: Callable[[str], Saved]
) -> None:
    it = saved("Scores")
    members = members_of(*content_of(it.file))
    for name in ("values", "rows.0", "about"):
        put(it.file, members | {f"{name}.npy": content})
        assert it.find() == "found"


def test_a_file_that_unpacks_to_more_than_is_read_is_computed_again(
    saved: Callable[[str], Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros pack by a thousand; the size that the file says is compared before anything is unpacked."""
    it = saved("Scores")
    with zipfile.ZipFile(it.file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("values.npy", header(f"({3 << 17},)") + bytes(3 << 20))
    monkeypatch.setattr("fmcluster.analysis._saved_result.MAX_BYTES", 1 << 20)
    monkeypatch.setattr(np.lib.format, "read_array", None)  # nothing of it is read
    with pytest.warns(UserWarning, match=r"it says that it takes 3 MiB\); the result is computed again"):
        it.use()


def test_json_that_is_too_deep_is_computed_again(saved: Callable[[str], Saved]) -> None:
    it = saved("Scores")
    put(it.file, {"about.npy": npy(np.array("[" * 100_000))})
    assert it.find() == "found"


class Runs:
    """An object whose pickle runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of a saved result ran",))


def test_no_pickle_is_read(saved: Callable[[str], Saved]) -> None:
    it = saved("Scores")
    arrays, about = content_of(it.file)
    for name in ("values", "rows.0"):
        seal(it.file, arrays | {name: np.array([Runs()], object)}, about | {"unsealed": True})
        assert it.find() == "found"
    it.file.write_bytes(pickle.dumps(Runs()))
    assert it.find() == "found"


def test_no_result_is_saved_through_a_link(saved: Callable[[str], Saved], tmp_path: Path, run: Run) -> None:
    it, victim = saved("Scores"), tmp_path / "victim"
    victim.write_bytes(it.content)
    it.file.unlink()
    it.file.symlink_to(victim)
    victim.write_text("precious")
    assert it.find() == "found"
    assert victim.read_text() == "precious"
    assert not it.file.is_symlink()
    assert it.find() == "harmless"


def test_a_link_in_the_place_of_the_results_is_not_followed(
    originals: Callable[[str, int], Path], tmp_path: Path
) -> None:
    path, victim = tmp_path / "run.zarr", tmp_path / "victim"
    shutil.copytree(originals("probe", 0), path)
    victim.mkdir()
    path.with_name("run.zarr.results").symlink_to(victim)
    with pytest.warns(UserWarning, match=r"run.zarr.results is a link, not a folder"):
        assert ResultCache.beside(open_run(path)) is None
    with pytest.raises(FileExistsError, match="a link; name the folder of the tables with -o"):
        analyze_command(str(path), layers=["conv"], clusters=2, components=3)
    assert not list(victim.iterdir())
