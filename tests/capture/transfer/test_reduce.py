"""The cast, the reductions and the sums, against NumPy and torch's own casts, on every path."""

import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional

from fmcluster.capture.options._options import Reduction
from fmcluster.capture.transfer import _reduce as reduce
from fmcluster.capture.transfer._moments import Moments
from fmcluster.capture.transfer._reduce import (
    moments_of,
    reduce_in_turn,
    reduce_on_cpu,
    reduce_with_torch,
    stored_shape,
)

SHORT = [torch.float32, torch.bfloat16, torch.float16]
DTYPES = [*SHORT, torch.float64]
HALF, SINGLE = Reduction("float16"), Reduction("float32")
Result = tuple[np.ndarray, Moments]
Path = Callable[[torch.Tensor, Reduction], Result]
workers = ThreadPoolExecutor(4)


@pytest.fixture(scope="module")
def pool() -> Executor:
    return workers


def in_one_pass(tensor: torch.Tensor, reduction: Reduction, threads: int = 3) -> Result:
    out = np.full(stored_shape(tensor, reduction), 77, reduction.dtype)
    return out, reduce_on_cpu(tensor, reduction, out=out, pool=workers, threads=threads)


def in_turn(tensor: torch.Tensor, reduction: Reduction) -> Result:
    out = np.full(stored_shape(tensor, reduction), 77, reduction.dtype)
    return out, reduce_in_turn(tensor, reduction, out=out)


def without_conversion(tensor: torch.Tensor, reduction: Reduction) -> Result:
    """As on a processor that does not convert to float16 itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduce, "CONVERTS", False)
        return in_one_pass(tensor, reduction)


def on_device(tensor: torch.Tensor, reduction: Reduction) -> Result:
    """As a CUDA device does it, with overflow="clip"."""
    stored, sums = reduce_with_torch(tensor, reduction, clips=True)
    assert stored.is_contiguous()
    assert sums.shape == (7 * stored.shape[1 if stored.ndim == 4 else -1] + 2,)
    return stored.numpy(), moments_of(sums.numpy())


def paths(dtype: torch.dtype) -> list[Path]:
    """Whatever takes outputs of a dtype; float64 is rounded twice on a device, and so not there."""
    return [in_turn] if dtype == torch.float64 else [in_one_pass, without_conversion, in_turn, on_device]


def half(values: np.ndarray) -> np.ndarray:
    """As float16, values that round to infinity at the largest finite one."""
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


def check_statistics(moments: Moments, values: np.ndarray) -> None:
    found, expected = moments.statistics(), expected_statistics(values)
    scale = float(np.max(np.abs(values[np.isfinite(values)]), initial=0))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6, atol=1e-7 * scale)
    np.testing.assert_array_equal(found[2:], expected[2:])


def check_overflow(moments: Moments, values: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        beyond = np.isfinite(values) & np.isinf(values.astype(np.float16))
    assert moments.n_overflow == beyond.sum()
    assert abs(moments.overflow) == np.abs(values[beyond]).max(initial=0)
    assert moments.overflow == 0 or moments.overflow in values


def check(values: np.ndarray, tensor: torch.Tensor) -> None:
    """Every path stores the values as float16, sums them up, and lets the tensor be."""
    before = tensor.clone()
    for path in paths(tensor.dtype):
        stored, moments = path(tensor, HALF)
        assert same_bits(stored, half(values)), path
        check_statistics(moments, values)
        check_overflow(moments, values)
    assert torch.equal(tensor.nan_to_num(nan=7), before.nan_to_num(nan=7))
    assert torch.equal(tensor.isnan(), before.isnan())


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
anything = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@anything
@given(words=bits | near_ties)
@example(words=np.array([[0x00000001, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001]], np.uint32))
@example(words=np.array([[0x33000000, 0x33000001, 0x33800000, 0x33C00000, 0x387FC000, 0x387FE000]], np.uint32))
@example(words=np.array([[0x477FE000, 0x477FEFFF, 0x477FF000, 0xC77FEFFF, 0xC77FF000, 0x7F7FFFFF]], np.uint32))
def test_any_float32_is_cast_and_summed_as_numpy_does(words: np.ndarray) -> None:
    values = words.view(np.float32)
    check(values, torch.from_numpy(values.copy()))


@pytest.mark.parametrize("path", [in_one_pass, without_conversion, in_turn, on_device])
@pytest.mark.parametrize("calm", [True, False], ids=["without specials", "with specials in every plane"])
def test_every_float16_and_its_neighbors_in_float32(path: Path, calm: bool) -> None:
    exact = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(all="ignore"):
        middle = (exact + np.nextafter(exact.astype(np.float16), np.float16(np.inf)).astype(np.float32)) / 2
        near = [np.nextafter(middle, np.float32(side)) for side in (-np.inf, np.inf)]
    values = np.concatenate([exact, middle, *near])
    if calm:
        values = values[np.abs(values) < 65520]
    values = values[None, None, None]
    stored, moments = path(torch.from_numpy(values), HALF)
    assert same_bits(stored, half(values))
    if calm:
        assert same_bits(stored, torch.from_numpy(values).half().numpy())
        assert moments.n_overflow == 0


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
def test_any_float64_is_rounded_once_and_summed_as_numpy_does(values: np.ndarray) -> None:
    values = np.where(np.abs(values) > 1e100, np.sign(values) * 1e100, values)
    check(values, torch.from_numpy(values.copy()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 5), (6, 5, 7, 3), (1, 5, 7, 3), (6, 5, 1, 1)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "strided"])
def test_dtypes_shapes_and_layouts(dtype: torch.dtype, shape: tuple, layout: str) -> None:
    rng = np.random.default_rng(0)
    tensor = torch.from_numpy(rng.normal(size=shape) * rng.choice([0, 1e-6, 1, 3e4], size=shape)).to(dtype)
    tensor.view(-1)[[0, 7, 11]] = torch.tensor([float("nan"), float("inf"), -float("inf")]).to(dtype)
    if layout == "channels last" and len(shape) == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    elif layout == "strided":
        tensor = torch.stack([tensor, tensor], -1)[..., 0]
        assert not tensor.is_contiguous()
    values = np.ascontiguousarray(tensor.double().numpy())
    check(values, tensor)
    for path in paths(dtype):
        stored, moments = path(tensor, SINGLE)
        np.testing.assert_array_equal(stored, values.astype(np.float32))
        assert stored.dtype == np.float32
        check_statistics(moments, values)
        assert (moments.n_overflow, moments.overflow) == (0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [0.1, -1e-30, 1e30, 65504.0, 0.0, 1 / 3])
def test_a_constant_channel_does_not_vary_at_all(value: float, dtype: torch.dtype) -> None:
    for path in paths(dtype):
        _, moments = path(torch.full((7, 2, 5, 5), value, dtype=dtype), SINGLE)
        assert (moments + moments).statistics()[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("reduction", [HALF, Reduction("float16", None, ((0, 1), (0, 1)), None)], ids=["all", "crop"])
def test_channels_without_a_finite_value(reduction: Reduction) -> None:
    tensor = torch.rand(3, 3, 2, 2)
    tensor[:, 0] = float("nan")
    tensor[:, 1] = float("inf")
    for path in paths(tensor.dtype):
        found = path(tensor, reduction)[1].statistics()
        assert np.isnan(found[:5, :2]).all()
        assert found[5].tolist() == [12, 12, 0]


def test_zeros_of_either_sign_are_counted_and_keep_their_sign() -> None:
    tensor = torch.tensor([[0.0, -0.0, 1e-30, -1e-30], [-0.0, 1.0, 2.0**-24, -(2.0**-24)]])
    for path in paths(tensor.dtype):
        stored, moments = path(tensor, HALF)
        assert np.signbit(stored).tolist() == [[False, True, False, True], [True, False, False, True]]
        np.testing.assert_array_equal(stored[1, 2:], np.array([2.0**-24, -(2.0**-24)], np.float16))
        assert moments.statistics()[4].tolist() == [1.0, 0.5, 0.0, 0.0]  # of what the network returned


@pytest.mark.parametrize("value", [65504.0, 65505.0, 65519.0, float(np.nextafter(np.float32(65520), np.float32(0)))])
@pytest.mark.parametrize("sign", [1, -1])
def test_values_that_round_down_to_the_largest_float16_fit(value: float, sign: int) -> None:
    tensor = torch.full((2, 2, 3, 3), sign * value)
    for reduction in (HALF, Reduction("float16", None, ((0, 2), (1, 3)), None)):
        for path in paths(tensor.dtype):
            stored, moments = path(tensor, reduction)
            assert (stored == sign * 65504).all()
            assert (moments.n_overflow, moments.overflow) == (0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("crop", [None, ((0, 4), (0, 4))], ids=["whole", "cropped"])
def test_what_does_not_fit_is_clipped_counted_and_the_largest_told(dtype: torch.dtype, crop: tuple | None) -> None:
    tensor = torch.zeros(2, 3, 4, 5, dtype=dtype)
    tensor[0, 1, 2, 3], tensor[1, 2, 0, 0], tensor[1, 0, 1, 1] = 65600.0, -(2.0**100), 2.0**99
    for path in paths(dtype):
        stored, moments = path(tensor, Reduction("float16", None, crop))
        assert (moments.n_overflow, moments.overflow) == (3, -(2.0**100))
        assert (stored[0, 1, 2, 3], stored[1, 2, 0, 0], stored[1, 0, 1, 1]) == (65504, -65504, 65504)
        assert np.count_nonzero(stored) == 3


def test_a_device_need_not_clip_what_is_to_be_refused() -> None:
    tensor = torch.tensor([[7e4, -8e4, 1.0, float("nan")]])
    stored, sums = reduce_with_torch(tensor, HALF, clips=False)
    np.testing.assert_array_equal(stored.numpy(), np.array([[np.inf, -np.inf, 1, np.nan]], np.float16))
    moments = moments_of(sums.numpy())
    assert (moments.n_overflow, moments.overflow) == (2, -8e4)


@pytest.mark.parametrize("channels", [(1,), (1, 2, 3), (0, 2), (4, 0, 3)], ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 5), (3, 5, 6, 7)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_only_the_kept_channels_are_stored_and_summed_up(channels: tuple, shape: tuple, dtype: torch.dtype) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    axis = 1 if tensor.ndim == 4 else -1
    others = [c for c in range(5) if c not in channels]
    tensor.movedim(axis, 0)[others] = torch.tensor(3e38).to(dtype)  # would overflow
    values = tensor.double().movedim(axis, 0)[list(channels)].movedim(0, axis).numpy()
    for path in paths(dtype):
        stored, moments = path(tensor, Reduction("float16", channels))
        assert stored.shape == values.shape == stored_shape(tensor, Reduction("float16", channels))
        assert same_bits(stored, half(values))
        check_statistics(moments, values)
        assert (moments.n_overflow, moments.overflow) == (0, 0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stored_as", ["float16", "float32"])
@pytest.mark.parametrize("channels", [None, (2, 0)], ids=str)
@pytest.mark.parametrize("size", [None, (2, 2), (1, 1), (3, 4)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics_are_of_the_whole_maps_and_values_of_what_is_kept(
    dtype: torch.dtype, stored_as: str, channels: tuple | None, size: tuple | None, channels_last: bool
) -> None:
    tensor = (torch.randn(3, 4, 9, 8, generator=torch.Generator().manual_seed(0)) * 50).to(dtype)
    tensor[:, :, 0, 0] = torch.tensor(6e4).to(dtype)  # outside the crop
    tensor[0, 2, 4, 4], tensor[1, 0, 5, 5], tensor[2, 2, 3, 3] = float("nan"), float("inf"), -float("inf")
    if channels_last:
        tensor = tensor.to(memory_format=torch.channels_last)
    reduction = Reduction(stored_as, channels, ((1, 8), (2, 8)), size)
    kept = tensor if channels is None else tensor[:, list(channels)]
    maps = kept[:, :, 1:8, 2:8]
    if size is not None:
        maps = functional.adaptive_avg_pool2d(maps if dtype == torch.float64 else maps.float(), size)
        assert maps.isnan().any()
        assert maps.isinf().any() or channels is not None or size == (1, 1)
    with np.errstate(invalid="ignore"):
        expected = np.ascontiguousarray(maps.double().numpy()).astype(stored_as)
    for path in paths(dtype):
        stored, moments = path(tensor, reduction)
        assert same_bits(stored, expected), path
        check_statistics(moments, np.ascontiguousarray(kept.double().numpy()))
        assert (moments.n_overflow, moments.overflow) == (0, 0.0)


def test_averages_are_taken_in_float32_and_then_rounded() -> None:
    """By hand: 2049 + 2048 + 2048 + 2048 is 8193 in float32; in float16, 2049 is not even a number."""
    tensor = torch.tensor([2049.0, 2048, 2048, 2048, 1, 1, 1, 2 + 2**-9]).view(1, 2, 2, 2)
    reduction = Reduction("float16", None, None, (1, 1))
    for path in paths(tensor.dtype):
        stored, moments = path(tensor, reduction)
        assert stored.ravel().tolist() == [2048.0, 1.25]  # of 2048.25 and, a tie that goes to even, 1.25 + 2 ** -11
        assert moments.statistics()[3].tolist() == [2049.0, 2 + 2**-9]
    tensor = torch.full((1, 1, 2, 2), 60000.0, dtype=torch.float16)  # their sum is no float16
    for path in paths(tensor.dtype):
        assert path(tensor, reduction)[0].item() == 60000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_overflow_is_judged_on_what_is_stored(dtype: torch.dtype) -> None:
    tensor = torch.zeros(2, 2, 4, 4, dtype=dtype)
    tensor[0, 0, 3, 3] = 131072.0
    whole, quarter = Reduction("float16", None, None, (2, 2)), ((0, 3), (0, 3))
    for path in paths(dtype):
        stored, moments = path(tensor, whole)
        assert (moments.n_overflow, moments.overflow) == (0, 0.0)  # averaged away
        assert stored[0, 0, 1, 1] == 32768
        assert path(tensor, Reduction("float16", None, quarter))[1].n_overflow == 0  # cropped away
        assert path(tensor, Reduction("float16", (1,)))[1].n_overflow == 0
        tensor[1, 1, :2, :2] = -262144.0
        stored, moments = path(tensor, whole)
        assert (moments.n_overflow, moments.overflow) == (1, -262144.0)
        assert stored[1, 1].tolist() == [[-65504, 0], [0, 0]]
        assert moments.statistics()[2].tolist() == [0, -262144]
        tensor[1, 1, :2, :2] = 0


def test_an_average_that_rounds_beyond_float16_is_no_silent_infinity() -> None:
    """Of values that all fit: their sum in float32 is rounded, upwards here."""
    largest = float(np.nextafter(np.float32(65520), np.float32(0)))
    tensor = torch.full((1, 1, 224, 224), largest)
    reduction = Reduction("float16", None, None, (2, 2))
    averages = reduction.of_positions(tensor)
    for path in paths(tensor.dtype):
        stored, moments = path(tensor, reduction)
        assert (stored == 65504).all()
        assert moments.n_overflow == (averages >= 65520).sum()


@pytest.mark.parametrize("cuts", [[1], [3, 4], [0, 9], [2, 2, 7]])
def test_uneven_batches_add_up(cuts: list[int]) -> None:
    values = np.random.default_rng(1).normal(size=(10, 3, 4, 4)).astype(np.float32) * 1e4
    values[5, 1] = np.nan
    values[0, 2, 0, 0] = -np.float32(1e5)
    values[:, 0][values[:, 0] < 0] = 0
    parts = [part for part in np.split(values, cuts) if len(part)]
    for path in paths(torch.float32):
        total, *rest = (path(torch.from_numpy(part), HALF)[1] for part in parts)
        for one in rest:
            total = total + one
        found, expected = total.statistics(), expected_statistics(values)
        np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-12)
        np.testing.assert_array_equal(found[2:], expected[2:])
        assert (total.overflow, total.n_overflow) == (-1e5, 1)


def test_a_small_spread_around_a_large_mean() -> None:
    values = (100 + np.random.default_rng(2).normal(size=(8, 2, 16, 16)) * 1e-2).astype(np.float32)
    for path in paths(torch.float32):
        _, moments = path(torch.from_numpy(values), HALF)
        np.testing.assert_allclose(moments.statistics()[1], expected_statistics(values)[1], rtol=1e-6)


@pytest.mark.parametrize("threads", [2, 3, 4, 64, 1000])
@pytest.mark.parametrize("shape", [(7, 3, 9, 9), (32, 20, 56, 55), (5, 211, 1, 1), (300, 11), (6, 50, 30)], ids=str)
@pytest.mark.parametrize("special", [False, True])
def test_the_number_of_threads_changes_no_bit(threads: int, shape: tuple, special: bool) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    if special:
        tensor.view(-1)[[0, 31, 57]] = torch.tensor([7e4, float("nan"), float("inf")])
    for reduction in (HALF, SINGLE):
        one, few = (in_one_pass(tensor, reduction, n) for n in (1, threads))
        assert same_bits(one[0], few[0])
        assert one[1].values.tobytes() == few[1].values.tobytes()
        assert (one[1].overflow, one[1].n_overflow) == (few[1].overflow, few[1].n_overflow)


@pytest.mark.parametrize("offset", [1, 3, 8])
def test_where_an_output_lies_in_memory_changes_no_bit(offset: int) -> None:
    values = torch.randn(2, 3, 33, 17)
    elsewhere = torch.empty(values.numel() + offset)[offset:].view(values.shape).copy_(values)
    for reduction in (HALF, SINGLE, Reduction("float16", None, None, (4, 4))):
        one, other = in_one_pass(values, reduction), in_one_pass(elsewhere, reduction)
        assert same_bits(one[0], other[0])
        assert one[1].values.tobytes() == other[1].values.tobytes()


def test_without_the_processors_conversion_the_same_bits_are_stored() -> None:
    values = np.random.default_rng(0).integers(0, 2**32, (4, 5, 64, 64), dtype=np.uint64).astype(np.uint32)
    values[0] = (values[0] & 0x80FFFFFF) | 0x3F000000  # planes without specials
    tensor = torch.from_numpy(values.view(np.float32))
    (one, sums), (other, other_sums) = in_one_pass(tensor, HALF), without_conversion(tensor, HALF)
    assert one.tobytes() == other.tobytes()
    np.testing.assert_array_equal(sums.values[[0, 3, 4, 5, 6]], other_sums.values[[0, 3, 4, 5, 6]])
    np.testing.assert_allclose(sums.values[1:3], other_sums.values[1:3], rtol=1e-10)  # added up in another order
    assert (sums.overflow, sums.n_overflow) == (other_sums.overflow, other_sums.n_overflow)


def test_float32_holds_no_more_than_it_can() -> None:
    tensor = torch.tensor([[1.0, -1e39], [3.4028235677973366e38, 3.4028235e38]], dtype=torch.float64)
    stored, moments = in_turn(tensor, SINGLE)
    assert (moments.n_overflow, moments.overflow) == (2, -1e39)
    largest = np.finfo(np.float32).max
    assert stored.tolist() == [[1.0, -largest], [largest, largest]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stored_as", ["float16", "float32"])
@pytest.mark.parametrize("channels", [None, (0, 1), (0, 2)], ids=str)
def test_what_happens_to_the_output_later_does_not_matter(dtype: torch.dtype, stored_as: str, channels: tuple) -> None:
    for path in paths(dtype):
        tensor = torch.ones(2, 3, 4, 4, dtype=dtype)
        stored, moments = path(tensor, Reduction(stored_as, channels))
        tensor.fill_(7)
        assert (stored == 1).all(), path
        assert moments.statistics()[3].max() == 1


@pytest.mark.parametrize("clips", [True, False])
@pytest.mark.parametrize(
    "reduction",
    [HALF, SINGLE, Reduction("float16", (0, 2)), Reduction("float16", None, ((1, 5), (1, 6)), (2, 2))],
    ids=["float16", "float32", "channels", "averaged"],
)
def test_nothing_is_asked_of_the_device_on_the_way(reduction: Reduction, clips: bool) -> None:
    """Tensors without values stand in for a device's: whoever wants to see a value fails."""
    tensor = torch.rand(3, 4, 7, 7, device="meta")
    stored, sums = reduce_with_torch(tensor, reduction, clips=clips)
    assert (stored.device.type, sums.device.type) == ("meta", "meta")
    assert tuple(stored.shape) == stored_shape(tensor, reduction)
