"""Names in a run: what it holds is its own, and what somebody has laid into it is not."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from fmcluster.store import RunWriter, escape, open_run
from fmcluster.store.format._names import is_node, is_own


def test_all_that_a_run_holds_is_its_own(stored: Path) -> None:
    files = [file.relative_to(stored).as_posix() for file in stored.rglob("*") if file.is_file()]
    assert len(files) > 20
    assert all(map(is_own, files))
    assert all(map(is_node, open_run(stored).nodes))


@pytest.mark.parametrize("name", ["conv1", "a/b", "CON", ".hidden", "c.0", "zarr.json", "层", "..", "x" * 300])
def test_layers_of_any_name_are(name: str) -> None:
    assert is_node(f"layers/{escape(name)}/activation")
    assert is_own(f"layers/{escape(name)}/activation/c.0.0.0.0.0")


@pytest.mark.parametrize(
    "path",
    ["", "..", "layers/..", "layers/../index", "/index", "index/", "layers//activation", "layers/a/b/c", "Index"],
)
def test_what_is_none_is_refused(path: str) -> None:
    assert not is_node(path)
    assert not is_own(f"{path}/c.0") or not path


def test_an_array_of_somebodys_own_in_a_run_is_not_removed_with_it(stored: Path) -> None:
    """Its files are called as the run's are."""
    zarr.create_array(stored / "mine", shape=(3,), dtype="i4")[...] = [1, 2, 3]
    with pytest.raises(
        FileExistsError, match=r"a file that is none of a run's, mine/\S+, which would be removed with it"
    ):
        RunWriter(stored, mode="w")
    np.testing.assert_array_equal(zarr.open_array(stored / "mine")[...], [1, 2, 3])
