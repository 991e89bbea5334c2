"""The cast and the six statistics, against NumPy, on both paths."""

import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fmcluster.capture.reduce import reduce_output

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def half(values: np.ndarray) -> np.ndarray:
    """As float16, values that round to infinity at the largest finite one; NaN without a payload."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(np.float16)
    beyond = np.isinf(cast) & np.isfinite(values)
    return np.where(beyond, np.copysign(np.float16(65504), cast), cast)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    nan = np.isnan(one)
    return np.array_equal(nan, np.isnan(other)) and np.array_equal(
        one.view(f"u{one.itemsize}")[~nan], other.view(f"u{other.itemsize}")[~nan]
    )


def expected_statistics(values: np.ndarray) -> np.ndarray:
    """The six, by NumPy, in float64, over (n, c, ...) or (n, t, c)."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        planes = np.moveaxis(values, 2 if values.ndim == 3 else 1, 0).astype(np.float64)
    planes = planes.reshape(len(planes), -1)
    finite = np.isfinite(planes)
    kept = np.where(finite, planes, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = finite.sum(1)
        share = np.where(count, (kept == 0).sum(1) / count, np.nan)
        rows = [f(kept, axis=1) for f in (np.nanmean, np.nanstd, np.nanmin, np.nanmax)]
    return np.stack([*rows, share, (~finite).sum(1)])


def check(values: np.ndarray, tensor: torch.Tensor, pool: Executor, *, std_tolerance: float = 1e-6) -> None:
    before = tensor.clone()
    stored, moments = reduce_output(tensor, dtype="float16", pool=pool, threads=2)
    assert stored.shape == values.shape
    assert same_bits(stored, half(values))
    assert not np.shares_memory(stored, tensor.numpy()) if tensor.dtype != torch.bfloat16 else True
    assert torch.equal(tensor.isnan(), before.isnan())
    found, expected = moments.statistics(), expected_statistics(values)
    scale = float(np.max(np.abs(values[np.isfinite(values)]), initial=0))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_allclose(found[1], expected[1], rtol=std_tolerance, atol=1e-7 * scale)
    np.testing.assert_array_equal(found[2:], expected[2:])
    with np.errstate(over="ignore", invalid="ignore"):
        beyond = np.isfinite(values) & np.isinf(values.astype(np.float16))
    assert moments.n_overflow == beyond.sum()
    if beyond.any():
        assert abs(moments.overflow) == np.abs(values[beyond]).max()


shapes = st.sampled_from([(1, 1), (3, 2), (2, 5, 3), (1, 1, 1, 1), (3, 2, 4, 5), (5, 3, 1, 7)])
bits = hnp.arrays(np.uint32, shapes, elements=st.integers(0, 2**32 - 1) | st.integers(0x33000000, 0x48000000))
near_ties = hnp.arrays(
    np.uint32,
    shapes,
    elements=st.builds(
        lambda word, tail, sign: (word << 13) + tail | sign << 31,
        st.integers(0x19000, 0x23C00),
        st.sampled_from([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF]),
        st.integers(0, 1),
    ),
)
anything = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@anything
@given(words=bits | near_ties)
@example(words=np.array([[0x00000001, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001]], np.uint32))
@example(words=np.array([[0x33000000, 0x33000001, 0x33800000, 0x33C00000, 0x387FC000, 0x387FE000]], np.uint32))
@example(words=np.array([[0x477FE000, 0x477FEFFF, 0x477FF000, 0xC77FEFFF, 0xC77FF000, 0x7F7FFFFF]], np.uint32))
def test_any_float32_is_cast_and_summed_as_numpy_does(words: np.ndarray, pool: Executor) -> None:
    values = words.view(np.float32)
    check(values, torch.from_numpy(values.copy()), pool)


def test_every_float16_and_its_neighbours_in_float32(pool: Executor) -> None:
    exact = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(all="ignore"):
        middle = (exact + np.nextafter(exact.astype(np.float16), np.float16(np.inf)).astype(np.float32)) / 2
        near = [np.nextafter(middle, np.float32(side)) for side in (-np.inf, np.inf)]
    values = np.concatenate([exact, middle, *near]).reshape(4, -1)
    stored, _ = reduce_output(torch.from_numpy(values), dtype="float16", pool=pool, threads=2)
    assert same_bits(stored, half(values))


@anything
@given(
    values=hnp.arrays(
        np.float64,
        shapes,
        elements=st.floats(width=64)
        | st.floats(-7e4, 7e4)
        | st.sampled_from([65519.99999999999, 65520.0, -65520.0, 1.00048828125 + 1e-12, 2.0**-25 + 1e-18]),
    )
)
def test_any_float64_is_cast_and_summed_as_numpy_does(values: np.ndarray, pool: Executor) -> None:
    values = np.where(np.abs(values) > 1e100, np.sign(values) * 1e100, values)
    check(values, torch.from_numpy(values.copy()), pool)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 5), (6, 5, 7, 3)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "strided"])
def test_dtypes_shapes_and_layouts(dtype: torch.dtype, shape: tuple, layout: str, pool: Executor) -> None:
    rng = np.random.default_rng(0)
    tensor = torch.from_numpy(rng.normal(size=shape) * rng.choice([0, 1e-6, 1, 3e4], size=shape)).to(dtype)
    flat = tensor.view(-1)
    flat[[0, 7, 11]] = torch.tensor([float("nan"), float("inf"), -float("inf")]).to(dtype)
    if layout == "channels last" and len(shape) == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    elif layout == "strided":
        tensor = torch.stack([tensor, tensor], -1)[..., 0]
        assert not tensor.is_contiguous()
    values = tensor.double().numpy() if dtype in (torch.float64, torch.bfloat16) else tensor.numpy()
    check(np.ascontiguousarray(values), tensor, pool)
    stored, moments = reduce_output(tensor, dtype="float32", pool=pool, threads=2)
    np.testing.assert_array_equal(stored, values.astype(np.float32))
    assert stored.dtype == np.float32
    assert not np.shares_memory(stored, tensor.numpy()) if dtype != torch.bfloat16 else True
    assert (moments.n_overflow, moments.overflow) == (0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [0.1, -1e-30, 1e30, 65504.0, 0.0, 1 / 3])
def test_a_constant_channel_does_not_vary_at_all(value: float, dtype: torch.dtype, pool: Executor) -> None:
    tensor = torch.full((7, 2, 5, 5), value, dtype=dtype)
    _, moments = reduce_output(tensor, dtype="float32", pool=pool, threads=2)
    assert (moments + moments).statistics()[1].tolist() == [0.0, 0.0]


def test_channels_without_a_finite_value(pool: Executor) -> None:
    tensor = torch.rand(3, 3, 2, 2)
    tensor[:, 0] = float("nan")
    tensor[:, 1] = float("inf")
    _, moments = reduce_output(tensor, dtype="float16", pool=pool, threads=2)
    found = moments.statistics()
    assert np.isnan(found[:5, :2]).all()
    assert found[5].tolist() == [12, 12, 0]


@pytest.mark.parametrize("cuts", [[1], [3, 4], [0, 9], [2, 2, 7]])
def test_uneven_batches_add_up(cuts: list[int], pool: Executor) -> None:
    values = np.random.default_rng(1).normal(size=(10, 3, 4, 4)).astype(np.float32) * 1e4
    values[5, 1] = np.nan
    values[0, 2, 0, 0] = -np.float32(1e5)
    values[:, 0][values[:, 0] < 0] = 0
    parts = [part for part in np.split(values, cuts) if len(part)]
    moments = [reduce_output(torch.from_numpy(p), dtype="float16", pool=pool, threads=2)[1] for p in parts]
    total = moments[0]
    for one in moments[1:]:
        total = total + one
    found, expected = total.statistics(), expected_statistics(values)
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-12)
    np.testing.assert_array_equal(found[2:], expected[2:])
    assert total.overflow == -1e5
    assert total.n_overflow == 1


def test_a_small_spread_around_a_large_mean(pool: Executor) -> None:
    values = (100 + np.random.default_rng(2).normal(size=(8, 2, 16, 16)) * 1e-2).astype(np.float32)
    _, moments = reduce_output(torch.from_numpy(values), dtype="float16", pool=pool, threads=2)
    np.testing.assert_allclose(moments.statistics()[1], expected_statistics(values)[1], rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_the_number_of_threads_changes_nothing(threads: int, pool: Executor) -> None:
    tensor = torch.from_numpy(np.random.default_rng(3).normal(size=(7, 3, 9, 9)).astype(np.float32))
    one, few = (reduce_output(tensor, dtype="float16", pool=pool, threads=n) for n in (1, threads))
    np.testing.assert_array_equal(one[0], few[0])
    np.testing.assert_array_equal(one[1].values, few[1].values)


def test_float32_holds_no_more_than_it_can(pool: Executor) -> None:
    tensor = torch.tensor([[1.0, -1e39], [3.4028235677973366e38, 3.4028235e38]], dtype=torch.float64)
    stored, moments = reduce_output(tensor, dtype="float32", pool=pool, threads=1)
    assert (moments.n_overflow, moments.overflow) == (2, -1e39)
    largest = np.finfo(np.float32).max
    assert stored.tolist() == [[1.0, -largest], [largest, largest]]


def test_what_happens_to_the_output_later_does_not_matter(pool: Executor) -> None:
    for dtype in DTYPES:
        for stored_as in ("float16", "float32"):
            tensor = torch.ones(2, 3, 4, 4, dtype=dtype, requires_grad=True)
            stored, _ = reduce_output(tensor, dtype=stored_as, pool=pool, threads=2)
            with torch.no_grad():
                tensor.fill_(7)
            assert (stored == 1).all()
