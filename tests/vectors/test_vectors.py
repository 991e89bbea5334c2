"""Views of feature maps as matrices, against NumPy's own transposes."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcluster.store import LayerSpec, RunWriter, open_run
from fmcluster.vectors._vectors import Vectors, make_vectors
from fmcluster.vectors._views import VIEWS, parse_view


@dataclass
class Maps:
    """A layer in memory: ndarray of shape (n_snapshots, n_samples, n_channels, height, width)."""

    values: npt.NDArray[np.floating]
    reads: list[int] = field(default_factory=list)
    label: str = "layer"

    @property
    def snapshots(self) -> pd.DataFrame:
        numbers = np.arange(len(self.values))
        return pd.DataFrame({"snapshot": numbers, "epoch": numbers // 2, "step": 10 * numbers})

    @property
    def feature_map_shape(self) -> tuple[int, int, int]:
        return self.values.shape[2:]

    @property
    def channels(self) -> npt.NDArray[np.int64]:
        return np.arange(self.values.shape[2])

    def read_feature_maps(
        self, *, snapshot: int, samples: npt.NDArray[np.int64], channels: slice, rows: slice
    ) -> np.ndarray:
        out = self.values[snapshot, samples][:, channels, rows]
        self.reads.append(4 * out.size)
        return out


def pattern_of(view: str) -> str:
    return VIEWS[view].pattern if view in VIEWS else view


def matrix(maps: np.ndarray, view: str) -> np.ndarray:
    """One snapshot's (n, c, h, w) as rows by features, after the letters of the view's own pattern."""
    left, right = pattern_of(view).split("->")
    letters = re.sub(r"[^nchw]", "", left)
    order = re.sub(r"[^nchw]", "", right)
    groups = [re.sub(r"\W", "", group) for group in re.findall(r"\([^)]*\)|\w", right)]
    turned = maps.transpose([letters.index(axis) for axis in order])
    return turned.reshape(int(np.prod(turned.shape[: len(groups[0])])), -1).astype(np.float32)


def expected(maps: np.ndarray, view: str, scaling: str = "none") -> np.ndarray:
    rows = np.concatenate([matrix(one, view) for one in maps]).astype(np.float64)
    if scaling == "centered":
        rows -= rows.mean(1, keepdims=True)
    elif scaling == "unit":
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(norm > 0, norm, 1)
    return rows.astype(np.float32)


def pattern(order: list[str], cut: int) -> str:
    left, right = order[:cut], order[cut:]
    return "n c h w -> " + " ".join(f"({' '.join(g)})" if len(g) > 1 else g[0] for g in (left, right))


views = st.sampled_from(sorted(VIEWS)) | st.builds(pattern, st.permutations(list("nchw")), st.integers(1, 3))
sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
budgets = st.sampled_from([1, 10, 50, 100, 300, 1000, 5000, 10**6])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Maps, Vectors, np.ndarray]:
    """A layer, vectors of it, and the matrix they are to give."""
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(size=draw(sizes)).astype(np.float16)
    if draw(st.booleans()):
        values[:, 0] = 0
    maps = Maps(values)
    view, scaling = draw(views), draw(st.sampled_from(["none", "centered", "unit"]))
    snapshots = draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=3, unique=True))
    samples = np.array(draw(st.permutations(range(values.shape[1]))), dtype=np.int64)
    whole = expected(values[snapshots][:, samples], view, scaling)
    n_rows = draw(st.none() | st.integers(1, len(whole) // len(snapshots)))
    state = draw(st.integers(0, 5))
    vectors = make_vectors(
        maps, view, snapshots=snapshots, samples=samples, n_rows=n_rows, scaling=scaling, random_state=state
    )
    if vectors.drawn is not None:
        per_snapshot = whole.reshape(len(snapshots), -1, whole.shape[1])
        whole = per_snapshot[:, vectors.drawn].reshape(-1, whole.shape[1])
    return maps, vectors, whole


def close(found: np.ndarray, whole: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(case=cases(), max_bytes=budgets)
def test_blocks_of_any_size_are_the_same_matrix(case: tuple, max_bytes: int) -> None:
    _, vectors, whole = case
    assert vectors.shape == whole.shape
    features = list(vectors.feature_blocks(max_bytes=max_bytes))
    close(np.concatenate(features, axis=1), whole)
    at = 0
    for start, block in vectors.row_blocks(max_bytes=max_bytes):
        assert start == at
        assert len(block) > 0
        close(block, whole[start : start + len(block)])
        at += len(block)
    assert at == len(whole)
    close(vectors.to_numpy(), whole)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(case=cases(), max_bytes=budgets)
def test_a_block_is_no_larger_than_asked_for(case: tuple, max_bytes: int) -> None:
    """Or than the least that is read at a time: what the width, and axes after it, hold."""
    maps, vectors, _ = case
    if vectors.drawn is not None:
        return
    sizes = dict(zip("nchw", (len(vectors.samples), *maps.feature_map_shape), strict=True))

    def least(axes: str, others: str) -> int:
        return 4 * int(np.prod([sizes[axis] for axis in others + "".join(axes.partition("w")[1:])], initial=1))

    rows, features = parse_view(vectors.view)
    for block in vectors.feature_blocks(max_bytes=max_bytes):
        assert block.nbytes <= max(max_bytes, least(features, rows) * len(vectors.snapshots))
    for _, block in vectors.row_blocks(max_bytes=max_bytes):
        assert block.nbytes <= max(max_bytes, least(rows, features))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_rows_are_labeled_with_what_they_are(case: tuple) -> None:
    maps, vectors, _ = case
    table, found = vectors.rows, vectors.to_numpy()
    assert list(table.index) == list(range(len(found)))
    assert table.columns[:3].tolist() == ["snapshot", "epoch", "step"]
    assert set(table.columns[3:]) == {{"n": "sample", "c": "channel", "h": "y", "w": "x"}[a] for a in vectors.row_axes}
    if vectors.scaling != "none":
        return
    for row in range(len(found)):
        label = table.iloc[row].to_dict()
        one = maps.values[int(label["snapshot"])][vectors.samples].astype(np.float32)
        names = {"sample": 0, "channel": 1, "y": 2, "x": 3}
        for name, axis in names.items():
            if name in label:
                place = list(vectors.samples).index(label[name]) if name == "sample" else int(label[name])
                one = one.take([place], axis)
        np.testing.assert_array_equal(np.sort(found[row]), np.sort(one.ravel()))
        assert label["epoch"] == label["snapshot"] // 2
        assert label["step"] == 10 * label["snapshot"]


def test_rows_are_drawn_once_for_all_snapshots() -> None:
    maps = Maps(np.random.default_rng(0).normal(size=(4, 5, 6, 7, 7)).astype(np.float16))

    def draw(state: int) -> Vectors:
        return make_vectors(
            maps, "position", snapshots=[0, 1, 3], samples=np.arange(5), n_rows=20, scaling="none", random_state=state
        )

    vectors = draw(0)
    assert vectors.shape == (60, 6)
    assert len(set(vectors.drawn)) == 20
    ids = [group[["sample", "y", "x"]].to_numpy().tolist() for _, group in vectors.rows.groupby("snapshot")]
    assert ids[0] == ids[1] == ids[2]
    np.testing.assert_array_equal(vectors.drawn, draw(0).drawn)
    assert not np.array_equal(vectors.drawn, draw(1).drawn)
    everything = expected(maps.values[[0, 1, 3]], "position").reshape(3, -1, 6)
    np.testing.assert_array_equal(vectors.to_numpy().reshape(3, 20, 6), everything[:, vectors.drawn])


def test_nothing_is_read_before_it_is_asked_for() -> None:
    maps = Maps(np.ones((2, 3, 4, 5, 5), np.float16))
    vectors = make_vectors(
        maps, "channel", snapshots=[0, 1], samples=np.arange(3), n_rows=None, scaling="unit", random_state=0
    )
    assert (vectors.shape, len(vectors.rows), vectors.layer) == ((8, 75), 8, "layer")
    assert "8 rows of 75 features" in repr(vectors)
    vectors.feature_blocks(max_bytes=100)
    vectors.row_blocks(max_bytes=100)
    assert maps.reads == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scaling", ["none", "centered", "unit"])
@pytest.mark.parametrize("view", sorted(VIEWS))
def test_a_row_that_is_not_finite_is_named(value: float, scaling: str, view: str) -> None:
    values = np.ones((3, 4, 3, 2, 2), np.float16)
    values[1, 2, 1, 1, 0] = value
    vectors = make_vectors(
        Maps(values), view, snapshots=[0, 1, 2], samples=np.arange(4), n_rows=None, scaling=scaling, random_state=0
    )
    names = {
        "channel": "channel 1",
        "feature_map": "sample 2, channel 1",
        "sample": "sample 2",
        "position": "sample 2, y 1, x 0",
    }
    message = f"layer holds NaN or infinite values, first at snapshot 1, epoch 0, step 10, {names[view]}"
    for max_bytes in (1, 10**6):
        for blocks in (vectors.feature_blocks, vectors.row_blocks):
            with pytest.raises(ValueError, match=message):
                list(blocks(max_bytes=max_bytes))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("chanel", "'chanel' is not a view; did you mean 'channel'"),
        ("positions", "did you mean 'position'"),
        ("qqq", "expected one of channel, feature_map, sample, position, or an einops pattern"),
        ("n c h w -> n c h w", "not a view"),
        ("n c h w -> (n c h w)", "not a view"),
        ("n c h w -> (n c) (h)", "not a view"),
        ("n c h w -> (n c) (h h w)", "not a view"),
        ("c n h w -> c (n h w)", "not a view"),
        ("n c h w -> () (n c h w)", "not a view"),
        ("", "not a view"),
    ],
)
def test_an_unknown_view_is_refused(view: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_view(view)


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("channel", ("c", "nhw")),
        ("n c h w -> (w h) (c n)", ("wh", "cn")),
        ("  n c h w->( n   c )( h w ) ", None),
        (" n c h w->( n   c ) ( h w ) ", ("nc", "hw")),
    ],
)
def test_views_are_read_as_einops_reads_them(text: str, axes: tuple[str, str] | None) -> None:
    if axes is None:
        with pytest.raises(ValueError, match="not a view"):
            parse_view(text)
    else:
        assert parse_view(text) == axes


def test_einops_agrees() -> None:
    einops = pytest.importorskip("einops")
    values = np.random.default_rng(1).normal(size=(2, 3, 2, 4, 5)).astype(np.float32)
    for view in [*VIEWS, "n c h w -> (w c) (h n)", "n c h w -> h (w n c)"]:
        vectors = make_vectors(
            Maps(values), view, snapshots=[0, 1], samples=np.arange(3), n_rows=None, scaling="none", random_state=0
        )
        rows = np.concatenate([einops.rearrange(one, pattern_of(view)) for one in values])
        np.testing.assert_array_equal(vectors.to_numpy(), rows)
        blocks = list(vectors.feature_blocks(max_bytes=100))
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), rows)


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple]:
    """Stored layers with maps, tokens and vectors; and what they hold as (snapshot, n, c, h, w)."""
    path = tmp_path_factory.mktemp("vectors") / "run.zarr"
    shapes = {"maps": (4, 5, 3), "tokens": (6, 4), "flat": (7,)}
    specs = [LayerSpec(name, shape, "float16", "Module") for name, shape in shapes.items()]
    rng = np.random.default_rng(0)
    values = {spec.name: rng.normal(size=(3, 5, *spec.shape)).astype(np.float16) for spec in specs}
    with RunWriter(path) as writer:
        writer.create(specs, n_samples=5, shard_samples=2, kind="probe")
        for snapshot in range(3):
            for spec in specs:
                for at in (0, 2, 4):
                    writer.write(spec.name, offset=at, values=values[spec.name][snapshot, at : at + 2])
            statistics = {(spec.name, "activation"): np.zeros((6, spec.n_channels)) for spec in specs}
            writer.commit(
                epoch=snapshot, step=snapshot, index=np.arange(5), statistics=statistics, metrics={}, clipped={}
            )
    as_maps = {
        "maps": values["maps"],
        "tokens": values["tokens"].transpose(0, 1, 3, 2)[..., None],
        "flat": values["flat"][..., None, None],
    }
    run = open_run(path)
    return lambda name: (run[name], as_maps[name])


@pytest.mark.parametrize("name", ["maps", "tokens", "flat"])
@pytest.mark.parametrize("view", [*VIEWS, "n c h w -> (h c) (w n)"])
@pytest.mark.parametrize("max_bytes", [1, 200, 10**6])
def test_vectors_of_stored_layers(name: str, view: str, max_bytes: int, layers: Callable) -> None:
    layer, values = layers(name)
    vectors = layer.vectors(view, samples=[3, 0, 4], snapshots=[0, 2], scaling="centered")
    whole = expected(values[[0, 2]][:, [3, 0, 4]], view, "centered")
    close(np.concatenate(list(vectors.feature_blocks(max_bytes=max_bytes)), axis=1), whole)
    close(np.concatenate([block for _, block in vectors.row_blocks(max_bytes=max_bytes)]), whole)
    assert vectors.rows["snapshot"].unique().tolist() == [0, 2]
    if "sample" in vectors.rows:
        assert list(dict.fromkeys(vectors.rows["sample"])) == [3, 0, 4]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"view": "chanel"}, ValueError, "did you mean 'channel'"),
        ({"snapshots": []}, ValueError, "snapshots is empty"),
        ({"snapshots": [9]}, ValueError, "snapshot 9 is not in the run; it has 0 to 2"),
        ({"samples": [7]}, ValueError, "no sample 7"),
        ({"samples": [True, False, True, False, True]}, TypeError, "samples is of dtype bool"),
        ({"scaling": "l2"}, ValueError, "scaling is 'l2'; expected 'none', 'centered' or 'unit'"),
        ({"n_rows": 0}, ValueError, "n_rows is 0; expected at least 1"),
        ({"n_rows": -3}, ValueError, "n_rows is -3"),
    ],
)
def test_arguments_are_checked(arguments: dict, error: type, message: str, layers: Callable) -> None:
    arguments = {"view": "channel", **arguments}
    with pytest.raises(error, match=message):
        layers("maps")[0].vectors(arguments.pop("view"), **arguments)


def test_all_rows_are_taken_where_more_are_asked_for(layers: Callable) -> None:
    layer, _ = layers("maps")
    assert layer.vectors("channel", n_rows=10**9).drawn is None
    assert layer.vectors("channel", n_rows=4).shape == (12, 75)
