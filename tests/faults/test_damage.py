"""Files of a run flipped, cut, deleted, zeroed, swapped and replaced: found, and never read as wrong numbers."""

import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from fmcluster import StoreError, pca
from fmcluster.analysis import ResultCache, Scores
from fmcluster.store import open_run, verify

from .conftest import Tally, rounds
from .small_runs import parts_of

KINDS = {
    "feature maps": "layers/*/activation/c.*",
    "gradients": "layers/*/gradient/c.*",
    "statistics": "layers/*/*statistics/c.*",
    "weights": "weights/*/value/c.*",
    "norms of weights": "weight_norms/*/c.*",
    "index": "index/c.*",
    "epochs and steps": "[es]*/c.*",
    "metrics": "metrics/*/c.*",
    "samples": "samples/*/c.*",
    "pictures": "inputs/display/c.*",
    "checksums": "checksums/c.*",
    "node metadata": "*/**/zarr.json",
    "root": "zarr.json",
    "all of a snapshot": "checksums/c.*",
}


def flip(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Flip one bit."""
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def truncate(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Cut the end off."""
    file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])


def delete(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Remove the file."""
    file.unlink()


def zero(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Fill a stretch, or all of it, with zeros."""
    content = bytearray(file.read_bytes())
    start = draw.choice([0, draw.randrange(len(content))])
    content[start:] = bytes(len(content) - start)
    file.write_bytes(content)


def swap(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Exchange it with another file of its array, or of its name in another; a root, with a foreign one."""
    near = [other for other in sorted(file.parent.glob("c.*")) if other != file]
    alike = [other for other in sorted(run.rglob(file.name)) if other != file]
    if not (near or alike):
        return replace(file, draw, run, foreign)
    other = draw.choice(draw.choice([each for each in (near, alike) if each]))
    own = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(own)
    return None


def replace(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Put the same file of another run of the same shapes in its place."""
    shutil.copyfile(foreign / file.relative_to(run), file)


def replace_array(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Put all that lies in its folder in another run of the same shapes in the place of this folder."""
    shutil.rmtree(file.parent)
    shutil.copytree(foreign / file.parent.relative_to(run), file.parent)


def swap_arrays(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Exchange its folder with that of its name in another layer, or with one beside it; or else with a foreign one."""
    own = file.parent
    alike = [other for other in sorted(run.rglob(own.name)) if other.is_dir() and other != own]
    beside = [other for other in sorted(own.parent.iterdir()) if other.is_dir() and other != own]
    if not (alike or beside):
        return replace_array(file, draw, run, foreign)
    other = draw.choice(draw.choice([each for each in (alike, beside) if each]))
    aside = run / "aside"
    own.rename(aside)
    other.rename(own)
    aside.rename(other)
    return None


def snapshot_of(file: Path) -> str:
    """Return the number that the first axis has in the name of a chunk's file."""
    return file.name.split(".")[1]


def chunks_below(file: Path, run: Path) -> dict[Path, str]:
    """Return the chunks of its array, or of the whole run where a file of checksums was drawn."""
    folder = run if file.parent.name == "checksums" else file.parent
    return {each: snapshot_of(each) for each in sorted(folder.rglob("c.*")) if each.is_file()}


def replace_snapshot(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Put all chunks of a snapshot, as they are in another run, in their places."""
    for each, number in chunks_below(file, run).items():
        if number == snapshot_of(file):
            shutil.copyfile(foreign / each.relative_to(run), each)


def swap_snapshots(file: Path, draw: random.Random, run: Path, foreign: Path) -> None:
    """Exchange all chunks of two snapshots."""
    chunks = chunks_below(file, run)
    first = snapshot_of(file)
    others = sorted(set(chunks.values()) - {first})
    if not others:
        return replace_snapshot(file, draw, run, foreign)
    second = draw.choice(others)
    contents = {each: each.read_bytes() for each in chunks}
    for each, number in chunks.items():
        if number in (first, second):
            to = each.with_name(f"c.{second if number == first else first}{each.name.removeprefix(f'c.{number}')}")
            to.write_bytes(contents[each])
    return None


OF_FILES = {
    "a bit is flipped": flip,
    "a file is cut": truncate,
    "a file is deleted": delete,
    "a file is filled with zeros": zero,
    "two files are swapped": swap,
    "a file is replaced": replace,
}
OF_ARRAYS = {"an array is replaced": replace_array, "two arrays are swapped": swap_arrays}
OF_SNAPSHOTS = {"a snapshot is replaced": replace_snapshot, "two snapshots are swapped": swap_snapshots}
NOT_OF = {  # what a kind of fault cannot meet
    "a file": ("all of a snapshot",),
    "an array": ("root", "all of a snapshot"),
    "a snapshot": ("root", "node metadata", "checksums"),
}
TARGETS = {
    harm: [what for what in KINDS if what not in NOT_OF[kind]]
    for kind, harms in (("a file", OF_FILES), ("an array", OF_ARRAYS), ("a snapshot", OF_SNAPSHOTS))
    for harm in harms
}
HARMS = OF_FILES | OF_ARRAYS | OF_SNAPSHOTS
LIVE = ("gradients", "index", "weights", "norms of weights", "all of a snapshot")


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "what"), [(harm, what) for harm, targets in TARGETS.items() for what in targets])
def test_what_was_changed_is_found_and_no_wrong_number_is_read(
    harm: str,
    what: str,
    originals: Callable[[str, int], Path],
    copy_of: Callable[[Path], Path],
    tally: Tally,
) -> None:
    kind = "live" if what in LIVE else "probe"
    original, foreign = originals(kind, 0), originals(kind, 1)
    truth, whole = dict(parts_of(original)), files_of(original)
    for seed in range(rounds(1, among=len(TARGETS[harm]))):
        draw = random.Random(f"{what} {harm} {seed}")
        run = copy_of(original)
        file = draw.choice(sorted(path for path in run.glob(KINDS[what]) if path.is_file()))
        HARMS[harm](file, draw, run, foreign)
        about = f"{what}, {harm}, seed {seed}: {file.relative_to(run)}"
        try:
            found = verify(open_run(run))
        except (StoreError, FileNotFoundError) as error:  # of the root
            found = [str(error)]
        wrong = []
        try:
            for name, value in parts_of(run):
                if truth[name] != value:
                    wrong.append(name)
        except (StoreError, FileNotFoundError):
            assert found, f"{about}: reading says that it is damaged, and verify does not"
        outcome = "wrong" if wrong else "found" if found else "harmless"
        tally[harm, what, outcome] += 1
        assert not wrong, f"{about}: {wrong} are not what was recorded"
        if not found:
            assert files_of(run) == whole or file.name == "zarr.json", f"{about} was not found"


@pytest.mark.slow
@pytest.mark.parametrize("what", [harm for harm in OF_FILES if harm != "two files are swapped"])
def test_a_saved_result_that_was_changed_is_computed_again(
    what: str,
    originals: Callable[[str, int], Path],
    tmp_path: Path,
    tally: Tally,
) -> None:
    run, foreign = tmp_path / "a" / "run.zarr", tmp_path / "b" / "run.zarr"
    for path, seed in ((run, 0), (foreign, 1)):
        shutil.copytree(originals("probe", seed), path)
    truth, harm = scores_of(run), OF_FILES[what]
    scores_of(foreign)
    folder = run.with_name("run.zarr.results")
    (file,) = folder.iterdir()
    (other,) = foreign.with_name("run.zarr.results").iterdir()
    content = file.read_bytes()
    for seed in range(rounds(6, among=len(TARGETS[what]))):
        draw = random.Random(f"{what} {seed}")
        file.write_bytes(content)
        if harm is replace:
            file.write_bytes(other.read_bytes())
        else:
            harm(file, draw, run, foreign)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it cannot be read, and is computed again
            found = scores_of(run)
        outcome = "found" if found == truth else "wrong"
        tally[what, "saved results", outcome] += 1
        assert found == truth, f"{what}, seed {seed}"


def scores_of(path: Path) -> bytes:
    run = open_run(path)
    vectors = run["conv"].vectors("channel")
    cache = ResultCache.beside(run)
    assert cache is not None
    scores = cache.use(lambda: pca(vectors, n_components=3), Scores, verb="pca", vectors=vectors, parameters={})
    return scores.values.tobytes()
