"""Identity of snapshots: equal where two runs hold the same, and other where anything that is read is another."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fmcluster.store import LayerSpec, RunWriter, open_run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., dict]:
    """A function that writes a run of two snapshots, and returns their identity."""

    def make(
        *,
        value: float = 0.5,
        label: int = 1,
        metric: float = 0.25,
        module: str = "Linear",
        snapshots: tuple[int, ...] = (0, 1),
        classes: tuple[str, ...] = ("a", "b"),
    ) -> dict:
        path = tmp_path / "run.zarr"
        spec = LayerSpec("fc", (2,), "float32", module)
        with RunWriter(path, mode="w") as writer:
            writer.create([spec], n_samples=2, shard_samples=2, kind="probe")
            writer.attributes["classes"] = list(classes)
            writer.add_static("samples/sample", np.arange(2), dimensions=("item",))
            writer.add_static("samples/label", np.array([0, label]), dimensions=("item",))
            for epoch in range(2):
                writer.write("fc", offset=0, values=np.full((2, 2), epoch * value, np.float32))
                writer.commit(
                    epoch=epoch,
                    step=epoch,
                    index=np.arange(2),
                    statistics={("fc", "activation"): np.zeros((6, 2))},
                    metrics={"loss": metric},
                    clipped={},
                )
        return open_run(path).identity(snapshots)

    return make


def test_the_same_written_twice_is_the_same(write: Callable[..., dict]) -> None:
    assert write() == write()


@pytest.mark.parametrize(
    "other", [{"value": 0.25}, {"label": 0}, {"metric": 0.5}, {"module": "Identity"}, {"classes": ("a", "c")}]
)
def test_what_is_other_has_another(other: dict, write: Callable[..., dict]) -> None:
    assert write() != write(**other)


def test_each_snapshot_is_known_by_itself(write: Callable[..., dict]) -> None:
    first, both = write(snapshots=(0,)), write()
    assert first["snapshots"] == both["snapshots"][:1]
    assert first["run"] == both["run"]
    changed = write(value=0.25)["snapshots"]
    assert changed[0] == both["snapshots"][0]
    assert changed[1] != both["snapshots"][1]


def test_nothing_but_the_root_is_read(contents: ModuleType, stored: Path, tmp_path: Path) -> None:
    expected = open_run(stored).identity(range(3))
    bare = tmp_path / "bare.zarr"
    bare.mkdir()
    shutil.copyfile(stored / "zarr.json", bare / "zarr.json")
    assert open_run(bare).identity(range(3)) == expected
