"""Copies of outputs on their way to the disk: what they hold, what they wait for, and what they do not."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from fmcluster.capture.options._options import Reduction
from fmcluster.capture.transfer._copier import Copier, Copy

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = {"maps": (6, 5, 8, 7), "tokens": (6, 9, 5), "vectors": (6, 5)}
LAYOUTS = ["contiguous", "channels last", "strided"]
REDUCTIONS = {
    "float16": Reduction("float16"),
    "float32": Reduction("float32"),
    "some channels": Reduction("float16", (3, 0)),
    "neighbors": Reduction("float32", (1, 2)),
    "cropped": Reduction("float16", None, ((1, 7), (2, 7))),
    "averaged": Reduction("float16", (0, 4), ((1, 7), (0, 7)), (3, 2)),
}

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def output_of(shape: str, dtype: torch.dtype, layout: str = "contiguous") -> torch.Tensor:
    """An output with NaN and infinities, and nothing that does not fit."""
    rng = np.random.default_rng(0)
    size = SHAPES[shape]
    tensor = torch.from_numpy(rng.normal(size=size) * rng.choice([0, 1e-6, 1, 1e4], size=size)).to(dtype)
    tensor.view(-1)[[0, 7, 11]] = torch.tensor([float("nan"), float("inf"), -float("inf")]).to(dtype)
    if layout == "channels last" and tensor.ndim == 4:
        return tensor.to(memory_format=torch.channels_last)
    if layout == "strided":
        return torch.stack([tensor, tensor], -1)[..., 0]
    return tensor


def reductions(shape: str) -> list[Reduction]:
    return [r for r in REDUCTIONS.values() if shape == "maps" or (r.crop is None and r.size is None)]


@contextmanager
def copier(*, max_bytes: int = 1 << 20, clips: bool = False, threads: int = 2) -> Iterator[Copier]:
    made = Copier(max_bytes=max_bytes, clips=clips, threads=threads)
    yield made
    made.close()


@pytest.fixture
def copies() -> Iterator[Callable[..., Copy]]:
    """A function that copies; what it took is given back in the end."""
    with copier(max_bytes=1 << 30) as made:
        taken: list[Copy] = []

        def copy(output: torch.Tensor, reduction: Reduction) -> Copy:
            taken.append(made.copy(output, reduction))
            return taken[-1]

        yield copy
        for one in taken:
            one.release()


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether all bits are the same, but for those of NaN."""
    nan = np.isnan(one)
    bits = f"u{one.itemsize}"
    return (
        one.dtype == other.dtype
        and np.array_equal(nan, np.isnan(other))
        and bool((one.view(bits)[~nan] == other.view(bits)[~nan]).all())
    )


def expected(output: torch.Tensor, reduction: Reduction) -> np.ndarray:
    values = output if output.dtype in (torch.float32, torch.float64) else output.float()
    axis = 1 if values.ndim == 4 else -1
    if reduction.channels is not None:
        values = values.index_select(axis, torch.tensor(reduction.channels))
    if reduction.crop is not None:
        (top, bottom), (left, right) = reduction.crop
        values = values[:, :, top:bottom, left:right]
    if reduction.size is not None:
        values = nn.functional.adaptive_avg_pool2d(values, reduction.size)
    with np.errstate(invalid="ignore"):
        return np.ascontiguousarray(values.numpy()).astype(reduction.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_output_is_copied_as_it_was(dtype: torch.dtype, shape: str, layout: str, copies: Callable) -> None:
    for reduction in reductions(shape):
        output = output_of(shape, dtype, layout)
        wanted = expected(output, reduction)
        copy = copies(output, reduction)
        assert copy.has_arrived
        output.fill_(7)  # as an in-place ReLU may
        values, moments = copy.result()
        assert same(values, wanted)
        assert values.flags.c_contiguous
        kept = range(5) if reduction.channels is None else reduction.channels
        planes = output_of(shape, dtype, layout).double().movedim(1 if shape == "maps" else -1, 0)[list(kept)]
        planes = planes.flatten(1).numpy()
        finite = np.isfinite(planes)
        found = moments.statistics()
        for channel, (plane, good) in enumerate(zip(planes, finite, strict=True)):
            assert found[0, channel] == pytest.approx(plane[good].mean(), rel=1e-9)
            assert found[1, channel] == pytest.approx(plane[good].std(), rel=1e-6)
            assert found[2:, channel].tolist() == [
                plane[good].min(),
                plane[good].max(),
                (plane[good] == 0).mean(),
                (~good).sum(),
            ]


def test_an_output_with_a_graph_is_copied_without_it(copies: Callable) -> None:
    weights = torch.ones(2, 3, requires_grad=True)
    output = weights * 2
    values, _ = copies(output, Reduction("float16")).result()
    assert (values == 2).all()
    output.sum().backward()
    assert (weights.grad == 2).all()
    assert torch.is_grad_enabled()


def test_autocast_around_it_does_not_matter(copies: Callable) -> None:
    output = output_of("maps", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        values, _ = copies(output, REDUCTIONS["averaged"]).result()
        assert torch.is_autocast_enabled("cpu")
    assert same(values, expected(output, REDUCTIONS["averaged"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", [Reduction("float16"), Reduction("float16", None, ((0, 2), (0, 1)))], ids=str)
def test_what_does_not_fit_is_counted_and_clipped(dtype: torch.dtype, reduction: Reduction, copies: Callable) -> None:
    output = torch.tensor([[[[131072.0, 5], [-1e9, 65280]]]]).to(dtype)
    largest = output[0, 0, 1, 0].item()
    values, moments = copies(output, reduction).result()
    assert values[0, 0, :, 0].tolist() == [65504, -65504]
    assert (moments.n_overflow, moments.overflow) == (2, largest)


def test_copies_lie_apart_and_hold_until_they_are_released() -> None:
    with copier() as made:
        taken = [made.copy(torch.full((2, 3, 4, 4), float(number)), Reduction("float16")) for number in range(10)]
        for number, copy in enumerate(taken):
            assert (copy.result()[0] == number).all()
            assert copy.result()[1].statistics()[3].tolist() == [number] * 3
            copy.release()


def test_no_more_is_out_than_is_allowed_and_nothing_is_dropped() -> None:
    with copier(max_bytes=2 * 2 * 3 * 4 * 4 * 2) as made:
        taken = [made.copy(torch.full((2, 3, 4, 4), float(number)), Reduction("float16")) for number in range(2)]
        more: list[Copy] = []
        waits = threading.Thread(
            target=lambda: more.append(made.copy(torch.full((2, 3, 4, 4), 2.0), Reduction("float16")))
        )
        waits.start()
        waits.join(0.1)
        assert waits.is_alive()
        taken[1].release()
        waits.join(10)
        assert (more[0].result()[0] == 2).all()
        assert (taken[0].result()[0] == 0).all()
        assert made.peak_bytes == 2 * 2 * 3 * 4 * 4 * 2
        for copy in (taken[0], *more):
            copy.release()


def test_what_is_stored_counts_and_not_what_it_was_made_of() -> None:
    with copier() as made:
        output = torch.rand(4, 8, 16, 16, dtype=torch.float64)
        for reduction, nbytes in (
            (Reduction("float16", (1,), None, (2, 2)), 4 * 4 * 2),
            (Reduction("float32", None, ((0, 8), (0, 8))), 4 * 8 * 64 * 4),
        ):
            made.copy(output, reduction).release()
            assert made.peak_bytes == nbytes


def test_without_waiting_it_takes_what_it_needs() -> None:
    with copier(max_bytes=1) as made:
        taken = [made.copy(torch.rand(2, 3), Reduction("float16"), waits=False) for _ in range(3)]
        assert made.peak_bytes == 36
        for copy in taken:
            copy.release()
        made.copy(torch.rand(2, 3), Reduction("float16")).release()


def test_what_cannot_be_copied_takes_no_memory_with_it() -> None:
    """Torch can do nothing with these; whoever leaves them out and goes on has all the room there was."""
    done = []

    def go_on() -> None:
        for _ in range(3):
            with pytest.raises(RuntimeError):
                made.copy(torch.zeros(2, 20).to(torch.float8_e4m3fn), Reduction("float16"))
        done.append(made.copy(torch.rand(2, 25), Reduction("float16")))

    with copier(max_bytes=100) as made:
        going_on = threading.Thread(target=go_on, daemon=True)
        going_on.start()
        going_on.join(10)
        assert len(done) == 1
        done[0].release()


def test_the_number_of_threads_changes_no_bit() -> None:
    output = torch.randn(16, 40, 28, 28)
    found = []
    for threads in (1, 2, 5):
        with copier(max_bytes=1 << 30, threads=threads) as made:
            values, moments = made.copy(output, Reduction("float16")).result()
            found.append((values.tobytes(), moments.values.tobytes()))
    assert found[0] == found[1] == found[2]


def test_its_threads_end_with_it() -> None:
    with copier() as made:
        made.copy(torch.rand(2, 3, 4, 4), Reduction("float16")).release()
        assert [t for t in threading.enumerate() if t.name.startswith("fmcluster-reduce")]
    assert [t for t in threading.enumerate() if t.name.startswith("fmcluster-reduce")] == []


@contextmanager
def without_synchronisation() -> Iterator[None]:
    """Whatever makes the host wait for the device is an error."""
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def keep_busy() -> torch.cuda.Event:
    """Queue something long on the current stream; return an event that comes after it."""
    torch.cuda._sleep(500_000_000)  # cycles; a device does one to two a nanosecond
    event = torch.cuda.Event()
    event.record()
    return event


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gpu_copies_what_the_processor_does(dtype: torch.dtype, shape: str, layout: str, copies: Callable) -> None:
    for reduction in reductions(shape):
        output = output_of(shape, dtype, layout)
        if dtype == torch.float64 and reduction.dtype == "float16":
            output = output.float().double()  # a device rounds by way of float32
        values, moments = copies(output, reduction).result()
        there, sums = copies(output.cuda(), reduction).result()
        if reduction.size is None:
            assert same(there, values)
        else:  # averages are added up in another order
            np.testing.assert_allclose(there.astype(float), values.astype(float), rtol=2e-3, atol=0.05)
        np.testing.assert_array_equal(sums.values[[0, 3, 4, 5, 6]], moments.values[[0, 3, 4, 5, 6]])
        np.testing.assert_allclose(sums.values[1:3], moments.values[1:3], rtol=1e-9, atol=1e-6)
        assert (sums.overflow, sums.n_overflow) == (moments.overflow, moments.n_overflow) == (0, 0)


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("clips", [True, False])
def test_a_gpu_counts_what_does_not_fit(dtype: torch.dtype, clips: bool) -> None:
    output = torch.tensor([[131072.0, 5, -1e9, 65504, float("nan"), float("inf")]], device="cuda").to(dtype)
    with copier(clips=clips) as made:
        copy = made.copy(output, Reduction("float16"))
        values, moments = copy.result()
        fits = 65504 if dtype != torch.bfloat16 else 65536  # what bfloat16 makes of it, and does not fit then
        largest = 65504 if clips else np.inf
        wanted = [largest, 5, -largest, 65504 if fits == 65504 else largest, np.nan, np.inf]
        np.testing.assert_array_equal(values[0], np.array(wanted, np.float16))
        assert moments.overflow == output[0, 2].item()
        assert moments.n_overflow == (2 if fits == 65504 else 3)
        copy.release()


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("reduction", list(REDUCTIONS.values()), ids=REDUCTIONS)
def test_a_gpu_does_not_wait_for_a_copy(reduction: Reduction) -> None:
    output = output_of("maps", torch.float32)
    with copier() as made:
        made.copy(output.cuda(), reduction).release()  # buffer and stream are made the first time
        there = output.cuda()
        with without_synchronisation():
            before = keep_busy()
            copy = made.copy(there, reduction)
            assert not before.query(), "copy waited for what was queued before it"
        assert not copy.has_arrived
        wanted = made.copy(output, reduction)
        values, _ = copy.result()
        assert before.query()
        if reduction.size is None:
            assert same(values, wanted.result()[0])
        copy.release()
        wanted.release()


@pytest.mark.gpu
@on_cuda
def test_an_output_that_is_overwritten_on_a_gpu_right_away_is_copied_as_it_was() -> None:
    with copier(max_bytes=1 << 28) as made:
        made.copy(torch.zeros(1, 1, device="cuda"), Reduction("float16")).release()
        taken = []
        keep_busy()
        for number in range(20):
            output = torch.full((8, 16, 64, 64), float(number), device="cuda")
            taken.append(made.copy(output, Reduction("float32")))
            output.fill_(-1)
            del output  # its memory is the next one's
        for number, copy in enumerate(taken):
            values, moments = copy.result()
            assert (values == number).all()
            assert moments.statistics()[2:4].tolist() == [[number] * 16] * 2
            copy.release()


@pytest.mark.gpu
@on_cuda
def test_memory_on_a_gpu_is_not_used_again_before_it_was_copied() -> None:
    """The cast lives on the device only until `copy` returns; what is computed next must not get its memory."""
    with copier(max_bytes=1 << 28) as made:
        outputs = [torch.full((4, 16, 64, 64), float(number), device="cuda") for number in range(8)]
        made.copy(outputs[0], Reduction("float16")).release()
        aside = made._streams[outputs[0].device]
        torch.cuda.synchronize()
        with torch.cuda.stream(aside):
            keep_busy()  # the copies lag behind
        taken = [made.copy(output, Reduction("float16")) for output in outputs]
        scribbles = [torch.full((4, 16, 64, 64), -1.0, device="cuda").half() for _ in range(16)]
        torch.cuda.current_stream().synchronize()
        for number, copy in enumerate(taken):
            assert (copy.result()[0] == number).all()
            copy.release()
        assert len(scribbles) == 16


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("max_bytes", [1, 5000, 20_000])
def test_a_ring_smaller_than_a_snapshot_makes_a_gpu_wait_and_drops_nothing(max_bytes: int) -> None:
    """A copy is of 4096 bytes and its sums of 8 * (7 * 2 + 2); the first bound is smaller than that."""
    with copier(max_bytes=max_bytes) as made:
        arrived: list[Copy] = []
        more = threading.Condition()

        def capture() -> None:
            for number in range(50):
                output = torch.full((4, 2, 16, 16), float(number), device="cuda")
                copy = made.copy(output, Reduction("float16"))
                output.fill_(-1)
                with more:
                    arrived.append(copy)
                    more.notify()

        capturing = threading.Thread(target=capture, daemon=True)
        capturing.start()
        for number in range(50):
            with more:
                assert more.wait_for(lambda: arrived, 20)
                copy = arrived.pop(0)
            values, moments = copy.result()
            assert (values == number).all()
            assert moments.statistics()[0].tolist() == [number] * 2
            copy.release()
        capturing.join(20)
        assert made.peak_bytes <= max(max_bytes, 4096 + 8 * 16)


@pytest.mark.gpu
@on_cuda
def test_a_gpu_waits_where_there_is_no_room_left() -> None:
    with copier(max_bytes=2 * (4096 + 256)) as made:
        output = torch.ones(4, 2, 16, 16, device="cuda")
        first, second = (made.copy(output * n, Reduction("float16")) for n in (1, 2))
        third: list[Copy] = []
        waits = threading.Thread(target=lambda: third.append(made.copy(output * 3, Reduction("float16"))))
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
        assert (first.result()[0] == 1).all()
        assert (second.result()[0] == 2).all()
        first.release()
        waits.join(20)
        assert (third[0].result()[0] == 3).all()
        assert (second.result()[0] == 2).all()
        second.release()
        third[0].release()


@pytest.mark.gpu
@on_cuda
def test_pieces_are_not_used_again_before_they_are_released() -> None:
    with copier(max_bytes=1 << 16) as made:
        held = made.copy(torch.full((2, 3, 32, 32), 5.0, device="cuda"), Reduction("float32"))
        values = held.result()[0]
        for number in range(200):  # the ring is full before that
            copy = made.copy(torch.full((1, 3, 8, 8), float(number), device="cuda"), Reduction("float32"), waits=False)
            assert (copy.result()[0] == number).all()
            copy.release()
            assert (values == 5).all()
        held.release()


@pytest.mark.gpu
@on_cuda
def test_a_copy_nobody_asked_for_is_released_only_when_it_has_arrived() -> None:
    with copier(max_bytes=1 << 20) as made:
        made.copy(torch.zeros(1, 1, device="cuda"), Reduction("float16")).release()
        before = keep_busy()
        made.copy(torch.ones(2, 3, device="cuda"), Reduction("float16")).release()
        assert before.query()


@pytest.mark.gpu
@on_cuda
def test_what_is_queued_on_another_stream_is_copied_from_there() -> None:
    with copier() as made:
        stream = torch.cuda.Stream()
        output = torch.zeros(4, 3, 8, 8, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            keep_busy()
            output.fill_(3)
            copy = made.copy(output, Reduction("float16"))
        assert (copy.result()[0] == 3).all()
        copy.release()


@pytest.mark.gpu
@on_cuda
def test_a_gradient_on_a_gpu_is_copied_from_the_thread_that_goes_back(copies: Callable) -> None:
    taken = []
    weights = torch.full((4, 3), 2.0, device="cuda", requires_grad=True)
    output = weights * 1
    output.register_hook(lambda gradient: taken.append(copies(gradient, Reduction("float32"))))
    (output**2).sum().backward()
    assert (taken[0].result()[0] == 4).all()
