"""Blocks of memory: whole arrays, large ones in pages of their own, and copies to float32."""

import subprocess
import sys

import numpy as np
import pytest

from fmcluster.vectors import new_block
from fmcluster.vectors._blocks import copy_block


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (3, 5, 2), (600, 500)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64])
def test_a_block_is_an_array_that_can_be_written(shape, dtype):
    block = new_block(shape, dtype)
    assert (block.shape, block.dtype) == (shape, dtype)
    assert block.flags.c_contiguous
    block[...] = 3
    assert (block == 3).all()


def test_large_blocks_do_not_share_memory():
    first, second = new_block((1 << 19,)), new_block((1 << 19,))
    first[...], second[...] = 1, 2
    assert not np.shares_memory(first, second)
    assert (first == 1).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_copy_holds_every_value_in_float32(dtype):
    values = np.random.default_rng(0).normal(size=(50, 40)).astype(dtype)
    values[0, :3] = np.nan, np.inf, -0.0
    values.flags.writeable = False
    out = np.empty(values.shape, np.float32)
    copy_block(values, out, of=values.size)
    np.testing.assert_array_equal(out, values.astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(("of", "loaded"), [(1 << 20, False), (1 << 28, True)])
def test_torch_is_imported_only_where_much_is_read(of, loaded):
    script = f"""
import sys
import numpy as np
from fmcluster.vectors._blocks import copy_block
values, out = np.arange(6, dtype=np.float16).reshape(2, 3).T, np.empty((3, 2), np.float32)
copy_block(values, out, of={of})
print(out.tolist(), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]] {loaded}"
