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


def test_memory_that_the_system_has_not_got_is_a_memory_error():
    with pytest.raises(MemoryError, match=rf"the system has no {4 << 60} bytes of memory for \({1 << 60},\) float32"):
        new_block((1 << 60,))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_copy_holds_every_value_in_float32(dtype):
    values = np.random.default_rng(0).normal(size=(50, 40)).astype(dtype)
    values[0, :3] = np.nan, np.inf, -0.0
    values.flags.writeable = False
    out = np.empty(values.shape, np.float32)
    copy_block(values, out, of=values.size)
    np.testing.assert_array_equal(out, values.astype(np.float32))


@pytest.mark.slow
def test_threads_that_read_at_once_wait_for_the_import():
    script = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from fmcluster.analysis._parallel import _alone
from fmcluster.vectors._blocks import copy_block
def work(number):
    out = np.empty(3, np.float32)
    copy_block(np.full(3, number, np.float16), out, of=1 << 30)
    return out.tolist()
with ThreadPoolExecutor(4) as threads:
    one, two = [threads.submit(call, 1) for call in (work, work)], [threads.submit(_alone, work, 2) for _ in range(2)]
    print([each.result() for each in one + two])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([[1.0] * 3] * 2 + [[2.0] * 3] * 2), done.stderr


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
