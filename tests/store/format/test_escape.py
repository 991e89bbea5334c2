"""Every module name is a legal, case-safe path, and no two are the same."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fmcluster.store import LayerSpec, RunWriter, open_run, verify
from fmcluster.store.format._escape import escape

WINDOWS = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
names = st.text(max_size=40) | st.text(alphabet="aAbB~./_c0 ", max_size=8) | st.from_regex(WINDOWS, fullmatch=True)


@given(one=names, other=names)
@example(one="", other="~")
@example(one="aux", other="~61ux")
@example(one="Aux", other="aux")
@example(one="a.", other="a~2e")
@example(one="c.0", other="~63.0")
@example(one="~", other="~7e")
@example(one="ẞ", other="ß")
@example(one="é", other="é")
def test_two_names_never_fold_to_one_path(one: str, other: str) -> None:
    assert (escape(one).casefold() == escape(other).casefold()) == (one == other)


@given(name=names | st.text(min_size=150, max_size=400))
@example(name="..")
@example(name=".hidden")
@example(name="zarr.json")
@example(name="__init__")
@example(name="COM1.txt")
@example(name="x" * 200 + ".")
def test_a_path_is_legal_everywhere(name: str) -> None:
    path = escape(name)
    assert re.fullmatch(r"[a-z0-9_.~-]+", path)
    assert len(path) <= 255
    assert not path.startswith((".", "__", "c."))
    assert not path.endswith((".", " "))
    assert path not in ("c", "zarr.json")
    assert not WINDOWS.fullmatch(path)


def test_long_names_that_differ_at_their_end_stay_apart() -> None:
    assert escape("x" * 300 + "a") != escape("x" * 300 + "b")
    assert escape("X" * 100) != escape("x" * 100)


ODD = [
    "Conv1",
    "conv1",
    "aux",
    "a/b",
    "a\\b",
    "..",
    ".",
    "c.0",
    "zarr.json",
    "__x",
    "con.1",
    "é",
    "层",
    " ",
    "a:b*?",
    "~",
]


@pytest.mark.parametrize("case", ["odd", "long"])
def test_layers_and_metrics_of_odd_names_survive(case: str, tmp_path: Path) -> None:
    chosen = ODD if case == "odd" else ["L" * 300, "l" * 300, "L" * 299 + "l"]
    specs = [LayerSpec(name, (2,), "float32", "Linear") for name in chosen]
    values = {name: np.full((3, 2), number, np.float32) for number, name in enumerate(chosen)}
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create(specs, n_samples=3, shard_samples=2, kind="probe")
        for name in chosen:
            for start in (0, 2):
                writer.write(name, offset=start, values=values[name][start : start + 2])
        writer.commit(
            epoch=0,
            step=0,
            index=np.arange(3),
            statistics={(name, "activation"): np.full((6, 2), number) for number, name in enumerate(chosen)},
            metrics={name: float(number) for number, name in enumerate(chosen)},
            clipped={},
        )
    run = open_run(tmp_path / "run.zarr")
    assert run.layers == chosen
    assert verify(run) == []
    for number, name in enumerate(chosen):
        np.testing.assert_array_equal(run[name].read(snapshot=0), values[name])
        assert run[name].statistics["mean"].tolist() == [number, number]
        assert run.metrics[name].tolist() == [number]
    with run.to_xarray() as tree:
        assert {node.attrs["name"] for node in tree["layers"].children.values()} == set(chosen)
