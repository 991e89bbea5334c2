"""What is stored of a parameter or buffer, and in which parts."""

import numpy as np
import pytest

from fmcluster.store import WeightSpec
from fmcluster.store.format import _weight_spec as specs


def spec(shape: tuple[int, ...], dtype: str = "float32") -> WeightSpec:
    return WeightSpec("w", shape, dtype, "parameter", tuple(f"axis_{axis}" for axis in range(len(shape))))


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((), ()),
        ((0, 3), (1, 3)),
        ((64, 3, 7, 7), (64, 3, 7, 7)),
        ((16, 16), (16, 16)),
        ((100, 16), (16, 16)),
        ((3, 2000), (1, 256)),
        ((2, 3, 300), (1, 1, 256)),
    ],
)
def test_parts_are_whole_tensors_or_rows_of_large_ones(
    shape: tuple[int, ...], chunks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specs, "PART_BYTES", 1024 if 0 not in shape and np.prod(shape) != 64 * 147 else 1 << 20)
    assert spec(shape).chunks == chunks
    seen = np.zeros(shape, int)
    numbers = []
    for part, box in spec(shape).parts():
        seen[box] += 1
        numbers.append(part)
    assert (seen == 1).all()
    assert len(set(numbers)) == len(numbers)
    assert bool(numbers) == bool(seen.size)


def test_bfloat16_is_stored_as_float32() -> None:
    assert (spec((4,), "bfloat16").stored_dtype, spec((4,), "bfloat16").nbytes) == ("float32", 16)
    assert (spec((4,), "int64").stored_dtype, spec((4,), "int64").nbytes) == ("int64", 32)
    assert spec((4,), "bfloat16").attributes() == {"name": "w", "kind": "parameter", "dtype": "bfloat16"}


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(ValueError, match="'w' is of float8_e4m3fn; expected one of bool"):
        spec((4,), "float8_e4m3fn")
    for axes in (("channel",), ("channel", "channel"), ("snapshot", "channel"), ("channel", "x y")):
        with pytest.raises(ValueError, match="cannot have the axes"):
            WeightSpec("w", (4, 3), "float32", "buffer", axes)
