"""A run that would be too large, and what is said about it."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcluster.capture._estimate import check_size
from fmcluster.capture._options import Keep, spec_of
from fmcluster.store import LayerSpec

CONV = LayerSpec("conv1", (64, 112, 112), "float16", "Conv2d")
BLOCK = LayerSpec("layer4", (512, 7, 7), "float32", "Sequential")
HEAD = LayerSpec("fc", (1000,), "float16", "Linear")
BYTES = {"conv1": 64 * 112 * 112 * 2, "layer4": 512 * 49 * 4, "fc": 2000}
TOTAL = sum(BYTES.values())


def refusal(specs: list[LayerSpec], max_bytes: int, *, n_samples: int = 10, n_snapshots: int = 5) -> str:
    with pytest.raises(ValueError, match="max_bytes allows") as raised:
        check_size(specs, max_bytes=max_bytes, n_samples=n_samples, n_snapshots=n_snapshots)
    return str(raised.value)


def test_what_just_fits_passes_and_one_byte_less_does_not() -> None:
    check_size([CONV, BLOCK, HEAD], max_bytes=50 * TOTAL, n_samples=10, n_snapshots=5)
    refusal([CONV, BLOCK, HEAD], 50 * TOTAL - 1)


def test_the_refusal_says_how_much_and_which_layers_are_the_largest() -> None:
    small = [LayerSpec(f"small{n}", (n,), "float16", "Linear") for n in range(1, 5)]
    said = refusal([HEAD, *small, BLOCK, CONV], 10**6)
    assert said.startswith("5 snapshots of 10 samples would take 85.4 MB before compression; max_bytes allows 1.0 MB.")
    assert "The largest layers are conv1 (80.3 MB), layer4 (5.0 MB), fc (100.0 kB)." in said
    assert "small" not in said


def test_the_refusal_says_how_large_maps_may_be() -> None:
    half = 50 * (TOTAL - BYTES["conv1"] + 64 * 56 * 56 * 2)
    assert "Averaged down with max_size=56 they would take 25.2 MB." in refusal([CONV, BLOCK, HEAD], half)
    assert "Averaged down with max_size=28 they would take" in refusal([CONV, BLOCK, HEAD], half - 1)
    least = 50 * (TOTAL - BYTES["conv1"] + 64 * 49 * 2)
    assert "max_size=7 they would take 5.4 MB." in refusal([CONV, BLOCK, HEAD], least)
    said = refusal([CONV, BLOCK, HEAD], least - 1)
    assert "max_size=7 they would take 5.4 MB; choose fewer layers, samples or channels besides." in said


def test_averaging_is_not_advised_where_it_does_not_help() -> None:
    for specs in ([HEAD], [BLOCK], [LayerSpec("encoder", (197, 768), "float16", "Encoder")]):
        said = refusal(specs, 1)
        assert "max_size=" not in said
        assert said.endswith("Choose fewer layers, samples or channels.")


def test_one_snapshot_is_not_many() -> None:
    assert refusal([HEAD], 1, n_snapshots=1).startswith("1 snapshot of 10 samples")


def test_gradients_count_as_float32() -> None:
    both = LayerSpec("fc", (1000,), "float16", "Linear", gradient=True)
    check_size([both], max_bytes=6000, n_samples=1, n_snapshots=1)
    assert "6.0 kB" in refusal([both], 5999, n_samples=1, n_snapshots=1)


layer = st.tuples(
    st.sampled_from([(3, 112, 60), (4, 56, 56), (5, 30, 9), (6, 7, 7), (7, 3, 20), (50,), (10, 12)]),
    st.sampled_from([None, slice(0, 2)]),
    st.sampled_from([None, (slice(0, 40), slice(0, 8))]),
)


@settings(max_examples=100, deadline=None)
@given(layers=st.lists(layer, min_size=1, max_size=5), share=st.floats(0.001, 0.999), gradient=st.booleans())
def test_what_is_advised_is_what_it_would_take(layers: list, share: float, gradient: bool) -> None:
    """As the recorder itself would lay the run out with that `max_size`."""

    def specs(max_size: int | None) -> list[LayerSpec]:
        out = []
        for number, (shape, channels, crop) in enumerate(layers):
            rows = crop if len(shape) == 3 and shape[1] > 7 else None
            keep = Keep("float16", channels, rows, max_size)
            name = f"layer{number}"
            reduction = keep.of((name,) * 3, shape)
            out.append(spec_of(name, reduction, shape=shape, module="Module", gradient=gradient))
        return out

    def total(max_size: int | None) -> int:
        return 100 * sum(spec.sample_bytes for spec in specs(max_size))

    max_bytes = int(share * total(None))
    said = refusal(specs(None), max_bytes, n_samples=20)
    if found := re.search(r"max_size=(\d+)", said):
        size = int(found[1])
        assert total(size) < total(None)
        assert ("besides" in said) == (total(size) > max_bytes)
        for larger in (56, 28, 14, 7):
            assert larger <= size or total(larger) > max_bytes
    else:
        assert total(7) == total(None)
