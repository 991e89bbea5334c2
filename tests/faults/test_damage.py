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


HARMS = {harm.__name__: harm for harm in (flip, truncate, delete, zero, swap, replace)}


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("what", KINDS)
def test_what_was_changed_is_found_and_no_wrong_number_is_read(
    what: str,
    harm: str,
    originals: Callable[[str, int], Path],
    copy_of: Callable[[Path], Path],
    tally: Tally,
) -> None:
    kind = "live" if what in ("gradients", "index", "weights", "norms of weights") else "probe"
    original, foreign = originals(kind, 0), originals(kind, 1)
    truth, whole = dict(parts_of(original)), files_of(original)
    for seed in range(rounds(1)):
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
        tally[what, harm, outcome] += 1
        assert not wrong, f"{about}: {wrong} are not what was recorded"
        if not found:
            assert files_of(run) == whole or file.name == "zarr.json", f"{about} was not found"


@pytest.mark.parametrize("harm", [flip, truncate, delete, zero, replace])
def test_a_saved_result_that_was_changed_is_computed_again(
    harm: Callable[..., None],
    originals: Callable[[str, int], Path],
    tmp_path: Path,
    tally: Tally,
) -> None:
    run, foreign = tmp_path / "a" / "run.zarr", tmp_path / "b" / "run.zarr"
    for path, seed in ((run, 0), (foreign, 1)):
        shutil.copytree(originals("probe", seed), path)
    truth = scores_of(run)
    scores_of(foreign)
    folder = run.with_name("run.zarr.results")
    (file,) = folder.iterdir()
    (other,) = foreign.with_name("run.zarr.results").iterdir()
    content = file.read_bytes()
    for seed in range(rounds(6)):
        draw = random.Random(f"{harm.__name__} {seed}")
        file.write_bytes(content)
        if harm is replace:
            file.write_bytes(other.read_bytes())
        else:
            harm(file, draw, run, foreign)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it cannot be read, and is computed again
            found = scores_of(run)
        outcome = "found" if found == truth else "wrong"
        tally["saved results", harm.__name__, outcome] += 1
        assert found == truth, f"{harm.__name__}, seed {seed}"


def scores_of(path: Path) -> bytes:
    run = open_run(path)
    vectors = run["conv"].vectors("channel")
    cache = ResultCache.beside(run)
    assert cache is not None
    scores = cache.use(lambda: pca(vectors, n_components=3), Scores, verb="pca", vectors=vectors, parameters={})
    return scores.values.tobytes()
