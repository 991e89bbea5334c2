"""The fused CUDA kernel: in Triton's interpreter against NumPy in float64 and torch's path, and compiled for cards."""

import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmcluster.capture.options._options import Reduction
from fmcluster.capture.transfer._reduce import moments_of, reduce_with_torch

pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton compiles for a card here; the tests marked gpu run it there", allow_module_level=True)

from fmcluster.capture.transfer import _reduce_with_triton
from fmcluster.capture.transfer._reduce_with_triton import reduce_with_triton

# the interpreter casts with NumPy, which warns of what becomes infinite as it should
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")

SHORT = [torch.float32, torch.float16, torch.bfloat16]
SPECIAL = [
    float("nan"),
    float("inf"),
    -float("inf"),
    0.0,
    -0.0,
    65504.0,
    65519.0,
    65520.0,
    -7e4,
    3e38,
    -3e38,
    1e-30,
    1e-45,
]


def reference(output: torch.Tensor, reduction: Reduction) -> np.ndarray:
    """The seven sums of `Moments`, by NumPy in float64."""
    values = output.double().numpy()
    if reduction.channels is not None:
        values = np.take(values, reduction.channels, axis=-1 if values.ndim < 4 else 1)
    planes = np.moveaxis(values, -1 if values.ndim < 4 else 1, 0)
    planes = planes.reshape(len(planes), -1)
    finite = np.isfinite(planes)
    kept = np.where(finite, planes, 0)
    return np.stack(
        [
            finite.sum(1),
            kept.sum(1),
            (kept**2).sum(1),
            np.where(finite, planes, np.inf).min(1),
            np.where(finite, planes, -np.inf).max(1),
            (planes == 0).sum(1),
            (~finite).sum(1),
        ]
    )


def check(output: torch.Tensor, reduction: Reduction, *, clips: bool) -> None:
    values, sums = reduce_with_triton(output, reduction, clips=clips)
    found, expected = moments_of(sums.numpy()), reference(output, reduction)
    exact = [0, 3, 4, 5, 6]
    np.testing.assert_array_equal(found.values[exact], expected[exact])
    size = np.abs(np.where(np.isfinite(expected[3:5]), expected[3:5], 0)).max(0)
    scale = np.maximum(expected[0], 1) * size
    assert (np.abs(found.values[1] - expected[1]) <= 1e-12 * scale).all()
    np.testing.assert_allclose(found.values[2], expected[2], rtol=1e-12)
    plain, plain_sums = reduce_with_torch(output, reduction, clips=clips)
    assert (values.shape, values.dtype, values.is_contiguous()) == (plain.shape, plain.dtype, True)
    if reduction.size is None:
        np.testing.assert_array_equal(values.float().numpy(), plain.float().numpy())
        np.testing.assert_array_equal(sums.numpy()[-2:], plain_sums.numpy()[-2:])
    else:  # torch adds the window up in float32, one value after the other
        wide = reduction.of_positions(reduction.of_channels(output).double()).numpy()
        np.testing.assert_array_equal(np.isfinite(wide), np.isfinite(plain.double().numpy()) | (np.abs(wide) > 65000))
        near = np.isfinite(wide) & (np.abs(wide) < 65000)
        step = 2.0**-10 if reduction.dtype == "float16" else 1e-6
        error = np.abs(values.double().numpy() - wide)[near]
        assert (error <= step * np.maximum(np.abs(wide)[near], 2.0**-14 + 1e-6 * size.max())).all()


SHAPES = [(3, 5), (3, 4, 5), (2, 3, 6, 7), (1, 34, 9, 5), (1, 1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_sums_and_values_are_those_of_float64_and_of_torch(shape, dtype):
    output = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 300).to(dtype)
    output.view(-1)[:: max(1, output.numel() // 7)] = torch.tensor(float("nan"))
    check(output, Reduction("float16"), clips=False)


@pytest.mark.parametrize("size", [None, (2, 3), (1, 1)], ids=str)
def test_channels_last_crops_and_averages(size):
    output = torch.randn((2, 40, 6, 7), generator=torch.Generator().manual_seed(1)).to(
        memory_format=torch.channels_last
    )
    check(output, Reduction("float16", (7, 0, 39), ((1, 6), (2, 7)), size), clips=True)


@pytest.mark.slow
def test_positions_beyond_32_bits_are_numbered_in_64(monkeypatch):
    monkeypatch.setattr(_reduce_with_triton, "_MOST_POSITIONS", 0)
    output = torch.randn((2, 5, 6, 7), generator=torch.Generator().manual_seed(3))
    check(output, Reduction("float16"), clips=False)
    check(output, Reduction("float16", size=(2, 3)), clips=False)


def test_it_is_launched_on_the_device_of_the_output(monkeypatch):
    """Another card may be the current one; Triton would take that."""
    entered, launch = [], _reduce_with_triton._reduce

    class Launcher:
        def __getitem__(self, grid):
            assert entered[0] is output, "the current device was not changed before the launch"
            assert len(entered) == 1
            return launch[grid]

    @contextmanager
    def device_of(tensor):
        entered.append(tensor)
        yield
        entered.append(None)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(_reduce_with_triton, "_reduce", Launcher())
    output = torch.ones(2, 3)
    reduce_with_triton(output, Reduction("float16"), clips=False)
    assert entered[1:] == [None]


def test_squares_of_values_at_the_ends_of_float32():
    output = torch.tensor([[3e38, 1e-30], [-2e38, 2e-30], [1e19, 3.0]])
    check(output, Reduction("float32"), clips=False)


def test_a_small_spread_around_a_large_mean_is_kept():
    output = 1e3 + 1e-2 * torch.randn((2, 2, 50, 50), generator=torch.Generator().manual_seed(2))
    _, sums = reduce_with_triton(output, Reduction("float32"), clips=False)
    expected = output.double().transpose(0, 1).reshape(2, -1).std(dim=1, unbiased=False)
    np.testing.assert_allclose(moments_of(sums.numpy()).statistics()[1], expected, rtol=1e-4)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_shape_strides_dtype_and_value(data):
    ndim = data.draw(st.integers(2, 4))
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * ndim))
    dtype = data.draw(st.sampled_from(SHORT))
    numbers = st.floats(-1e5, 1e5, width=32) | st.sampled_from(SPECIAL)
    values = data.draw(st.lists(numbers, min_size=1, max_size=24))
    whole = torch.tensor(np.resize(np.float32(values), int(np.prod(shape)))).reshape(shape).to(dtype)
    order = data.draw(st.permutations(range(ndim)))
    inverse = [order.index(axis) for axis in range(ndim)]
    output = whole.permute(order).contiguous().permute(inverse)  # the same values, of any strides
    n_channels = shape[1 if ndim == 4 else -1]
    channels = data.draw(st.none() | st.lists(st.integers(0, n_channels - 1), min_size=1, unique=True).map(tuple))
    reduction = Reduction(data.draw(st.sampled_from(["float16", "float32"])), channels)
    check(output, reduction, clips=data.draw(st.booleans()))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fmcluster.capture.transfer import _reduce_with_triton

kernel = _reduce_with_triton._reduce
names = kernel.arg_names
for source, out, pools, block in [("fp32", "fp16", False, 1), ("bf16", "fp16", True, 32), ("fp16", "fp32", False, 32)]:
    constant = dict(
        WIDE=pools, HAS_CHANNELS=True, POOLS=pools, WINDOW_H=4, WINDOW_W=4, IS_FLOAT16=source == "fp16",
        EXACT_SQUARES=source != "fp32", CAN_OVERFLOW=True, CLIPS=True, LIMIT=65520.0, LARGEST_STORED=65504.0,
        BLOCK_C=block, BLOCK_P=1024 // block, N_ROWS=_reduce_with_triton.N_SUMS,
    )
    pointers = {"source": "*" + source, "kept_channels": "*i32", "out": "*" + out, "partial": "*fp64"}
    signature = {name: "constexpr" if name in constant else pointers.get(name, "i32") for name in names}
    made = ASTSource(kernel, signature, constexprs={(names.index(name),): value for name, value in constant.items()})
    compiled = triton.compile(made, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": False})
    assert "fma.rn.f32" not in compiled.asm["ptx"], "a fused product changes what the rounding errors are taken for"
    print(len(compiled.asm["cubin"]))
"""


@pytest.mark.slow
def test_it_compiles_for_a_card_without_one():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    made = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False, env=environment)
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.split()) == 3
