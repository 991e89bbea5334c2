"""The way from a device to the writers, with a stand-in for the device: its work is done late, in any order.

What is queued on a stream of the stand-in is done when hypothesis says so, or when somebody waits for it. Until then
the host's memory holds nonsense, as page-locked memory does until a copy has arrived.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

import fmcluster as fm
from fmcluster.capture.options._options import Reduction
from fmcluster.capture.transfer import _copier, _device_clock, _memory
from fmcluster.capture.transfer._copier import Copier, Copy

NONSENSE = 0xAB


class DeviceError(RuntimeError):
    """What a device says of work that failed; it does so when somebody waits."""


class Stream:
    """What is queued, in its order; done by whoever waits, or by the device in its own time."""

    def __init__(self, device: "Device") -> None:
        self.device = device
        self.queued: deque[Callable[[], None]] = deque()

    def put(self, work: Callable[[], None]) -> None:
        with self.device.lock:
            self.queued.append(work)

    def step(self) -> bool:
        """Do the next of what is queued."""
        with self.device.lock:
            if not self.queued:
                return False
            self.queued.popleft()()
            return True

    def wait_stream(self, other: "Stream") -> None:
        """Let nothing that is queued from now on be done before what the other holds now."""
        upto = other.mark()
        self.put(lambda: other.run_to(upto))

    def mark(self) -> "Event":
        event = Event()
        event.record(self)
        return event

    def run_to(self, event: "Event") -> None:
        while not event.done and self.step():
            pass

    def synchronize(self) -> None:
        self.run_to(self.mark())


class Event:
    def __init__(self, **_options: object) -> None:
        self.done = False
        self.stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.stream = stream
        stream.put(lambda: setattr(self, "done", True))

    def synchronize(self) -> None:
        assert self.stream is not None, "an event was waited for that nobody has recorded"
        self.stream.device.waits += 1
        with self.stream.device.lock:
            self.stream.run_to(self)
            if self.stream.device.fails:
                raise DeviceError("CUDA error: an illegal memory access was encountered")

    def query(self) -> bool:
        return self.done


class Device:
    """Streams and events, as torch.cuda has them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.compute = Stream(self)
        self.streams: list[Stream] = [self.compute]
        self.waits = 0
        self.fails = False
        self.current = threading.local()

    def make_stream(self, _device: object = None) -> Stream:
        self.streams.append(Stream(self))
        return self.streams[-1]

    def current_stream(self, _device: object = None) -> Stream:
        return getattr(self.current, "stream", self.compute)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before = self.current_stream()
        self.current.stream = stream
        try:
            yield
        finally:
            self.current.stream = before


class Values:
    """A tensor of the stand-in, whose copy is queued on the current stream."""

    def __init__(self, device: Device, tensor: torch.Tensor) -> None:
        self.device, self.tensor, self.dtype = device, tensor, tensor.dtype
        self.used_on: list[Stream] = []

    def record_stream(self, stream: Stream) -> None:
        self.used_on.append(stream)


class Host:
    """A part of page-locked memory into which the stand-in copies."""

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory

    def __getitem__(self, key: Any) -> "Host":
        return Host(self.memory[key])

    def view(self, *shape: Any) -> "Host":
        return Host(self.memory.view(*shape))

    def numpy(self) -> np.ndarray:
        return self.memory.numpy()

    def data_ptr(self) -> int:
        return self.memory.data_ptr()

    def copy_(self, values: Values, *, non_blocking: bool) -> None:
        assert non_blocking
        values.device.current_stream().put(lambda: self.memory.copy_(values.tensor))


@contextmanager
def stand_in(*, computes_at_once: bool = False) -> Iterator[Device]:
    """Within the block the copier finds a device, and its ring is of ordinary memory that holds nonsense.

    A model that runs on the processor, and not in the order of the stand-in's stream, computes at once.
    """
    device = Device()
    cuda = SimpleNamespace(
        Stream=device.make_stream,
        Event=Event,
        current_stream=device.current_stream,
        stream=device.stream,
        is_current_stream_capturing=lambda: False,
    )
    reduce = _copier.reduce_with_torch

    def later(output: torch.Tensor, reduction: Reduction, *, clips: bool) -> tuple[Values, Values]:
        """Queue the reduction; what it gives is there once that is done."""
        output = output.clone() if computes_at_once else output
        shapes = reduce(output, reduction, clips=clips)
        values, sums = (Values(device, torch.empty_like(each)) for each in shapes)

        def work() -> None:
            for target, each in zip((values, sums), reduce(output, reduction, clips=clips), strict=True):
                target.tensor.copy_(each)

        device.current_stream().put(work)
        return values, sums

    def empty(*size: int, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        made = torch.empty(*size, **options)
        return made.fill_(NONSENSE) if pin_memory else made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_copier, "torch", _With(torch, cuda=cuda))
        patch.setattr(_memory, "torch", _With(torch, empty=empty))
        patch.setattr(_copier, "reduce_on_cuda", lambda _output: later)
        patch.setattr(_copier.Copier, "_copy_now", lambda self, *asked: self._copy_aside(*asked))
        acquire = _memory.PinnedRing.acquire
        release = _memory.PinnedRing.release
        patch.setattr(_memory.PinnedRing, "acquire", lambda self, *a, **o: Host(acquire(self, *a, **o)))

        def soiled(self: _memory.PinnedRing, piece: Host) -> None:
            piece.memory.fill_(NONSENSE)  # whoever reads it from now on reads nonsense
            release(self, piece.memory)

        patch.setattr(_memory.PinnedRing, "release", soiled)
        yield device


class _With:
    """A module with some of its names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def working(device: Device, delays: list[int]) -> Iterator[None]:
    """Let the device do what is queued in its own time: so much of this stream, so much of that, now and then none."""
    over = threading.Event()

    def work() -> None:
        turn = 0
        while not over.is_set():
            delay = delays[turn % len(delays)]
            turn += 1
            stream = device.streams[(turn + delay) % len(device.streams)]
            for _ in range(delay):
                stream.step()
            over.wait(0.0005)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)


def outputs(sizes: list[int]) -> list[torch.Tensor]:
    return [torch.full((2, 3, size, size), float(number + 1)) for number, size in enumerate(sizes)]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=9),
    max_bytes=st.integers(1, 6000),
    delays=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
@example(sizes=[12, 1, 12, 1], max_bytes=1, delays=[0], seed=None)
def test_nothing_is_read_early_or_used_again_early_and_nobody_waits_for_ever(
    sizes: list[int], max_bytes: int, delays: list[int], seed: int | None
) -> None:
    """At any bound, with outputs that are overwritten as soon as their reduction is queued and done."""
    order = None if seed is None else Random(seed)  # hypothesis may end what is drawn, here in the writer's thread
    with stand_in() as device, working(device, delays):
        copier = Copier(max_bytes=max_bytes, clips=True, threads=1)
        taken: list[tuple[int, Copy]] = []
        changed, problems = threading.Condition(), []

        def write() -> None:
            try:
                for _ in sizes:
                    with changed:
                        assert changed.wait_for(lambda: taken, 20), "the model waits for ever"
                        number, copy = taken.pop(order.randrange(len(taken)) if order else 0)
                    values, moments = copy.result()
                    assert (values == number + 1).all(), "was read before it had arrived, or after it was used again"
                    assert moments.statistics()[0].tolist() == [number + 1] * 3
                    copy.release()
            except BaseException as error:
                problems.append(error)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()

        def capture() -> None:
            for number, output in enumerate(outputs(sizes)):
                copy = copier.copy(output, Reduction("float32"))
                device.current_stream().put(lambda output=output: output.fill_(-1))  # the model goes on, in place
                with changed:
                    taken.append((number, copy))
                    changed.notify()

        model = threading.Thread(target=capture, daemon=True)
        model.start()
        model.join(30)
        writer.join(30)
        assert not problems, problems
        assert not model.is_alive()
        assert not writer.is_alive()
        assert copier._pinned._ring.used == 0
        assert not copier._pinned._alone
        copier.close()


def test_the_stand_in_shows_a_piece_that_is_read_too_early() -> None:
    """Without waiting for the event, what is read is nonsense: else the tests above would prove nothing."""
    with stand_in():
        copier = Copier(max_bytes=1000, clips=True, threads=1)
        copy = copier.copy(torch.ones(2, 3), Reduction("float32"))
        early = copy.values.numpy().copy()
        assert (early != 1).all()
        assert (copy.result()[0] == 1).all()
        copy.release()
        copier.close()


def test_the_model_waits_for_nothing_while_there_is_room() -> None:
    with stand_in() as device:
        copier = Copier(max_bytes=1 << 20, clips=True, threads=1)
        copies = [copier.copy(output, Reduction("float16")) for output in outputs([4] * 10)]
        assert device.waits == 0
        assert not any(copy.has_arrived for copy in copies)
        for copy in reversed(copies):
            copy.release()
        assert device.waits == 10
        copier.close()


def test_memory_of_the_device_is_kept_until_it_was_copied() -> None:
    """What the copies read was told to the allocator, on the stream that reads it."""
    with stand_in() as device:
        copier = Copier(max_bytes=1 << 20, clips=True, threads=1)
        seen: list[Values] = []
        reduce = _copier.reduce_on_cuda(torch.ones(1))

        def noted(*arguments: Any, **options: Any) -> tuple[Values, Values]:
            seen.extend(reduce(*arguments, **options))
            return seen[-2], seen[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_copier, "reduce_on_cuda", lambda _output: noted)
            copier.copy(torch.ones(2, 3), Reduction("float16")).release()
        (aside,) = device.streams[1:]
        assert [each.used_on for each in seen] == [[aside], [aside]]
        copier.close()


@pytest.mark.parametrize("which", [1, 2])
def test_a_copy_that_cannot_be_queued_takes_no_memory_with_it(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its piece is free again, once what was queued before the failure has been done."""
    with stand_in() as device:
        copier = Copier(max_bytes=600, clips=True, threads=1)
        really, count = Host.copy_, 0

        def fails(self: Host, values: Values, *, non_blocking: bool) -> None:
            nonlocal count
            count += 1
            if count % 2 == which % 2:
                raise DeviceError("CUDA error: out of memory")
            really(self, values, non_blocking=non_blocking)

        monkeypatch.setattr(Host, "copy_", fails)
        for _ in range(3):
            count = 0
            with pytest.raises(DeviceError, match="out of memory"):
                copier.copy(torch.ones(2, 3), Reduction("float32"))
            assert copier._pinned._ring.used == 0
            assert not device.streams[1].queued
        monkeypatch.setattr(Host, "copy_", really)
        copy = copier.copy(torch.ones(2, 3), Reduction("float32"))
        assert (copy.result()[0] == 1).all()
        copy.release()
        copier.close()


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., fm.Recorder]:
    """A function that makes a recorder of two layers."""

    def made(model: nn.Module, **options: Any) -> fm.Recorder:
        probe = [(torch.full((3, 6, 6), float(number)), 0) for number in range(6)]
        return fm.Recorder(model, tmp_path / "run.zarr", probe=probe, batch_size=2, **options)

    return made


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)).eval()


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    max_pending_bytes=st.sampled_from([1, 300, 1000, 10_000, 1 << 20]), delays=st.lists(st.integers(0, 4), min_size=1)
)
def test_a_recording_by_way_of_a_slow_device_is_what_one_without_it_is(
    max_pending_bytes: int, delays: list[int], recorded: Callable
) -> None:
    model = network()
    images = torch.stack([torch.full((3, 6, 6), float(number)) for number in range(6)])
    with torch.no_grad():
        expected = model[0](images).half().numpy()
    with stand_in(computes_at_once=True) as device, working(device, delays):
        with recorded(model, max_pending_bytes=max_pending_bytes, mode="w") as recorder:
            recorder.snapshot(epoch=0)
            recorder.snapshot(epoch=1)
        assert recorder._copier._pinned._ring.used == 0
    for epoch in (0, 1):
        np.testing.assert_array_equal(fm.open_run(recorder.path)["0"].read(epoch=epoch), expected)
        np.testing.assert_array_equal(fm.open_run(recorder.path)["1"].read(epoch=epoch), np.maximum(expected, 0))


@pytest.mark.slow
def test_what_goes_wrong_on_the_device_reaches_the_caller(recorded: Callable) -> None:
    """With layer and epoch, at the next call at the latest; what was recorded before stays."""
    with stand_in(computes_at_once=True) as device, working(device, [2]):
        with recorded(network()) as recorder:
            recorder.snapshot(epoch=0)
            recorder.flush()
            device.fails = True
            with pytest.raises(fm.StoreError, match=r"layer '\d'.* of epoch 1, .*illegal memory access"):
                recorder.snapshot(epoch=1)
                recorder.flush()
            device.fails = False
        assert fm.open_run(recorder.path).epochs == [0]


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fails = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if self.fails:
            raise ZeroDivisionError("of the model")
        return self.second(x)


@pytest.mark.parametrize("max_pending_bytes", [1, 1 << 20])
def test_a_model_that_fails_leaks_no_piece(max_pending_bytes: int, recorded: Callable) -> None:
    model = Failing().eval()
    with (
        stand_in(computes_at_once=True) as device,
        working(device, [3]),
        recorded(model, max_pending_bytes=max_pending_bytes) as recorder,
    ):
        recorder.snapshot(epoch=0)
        model.fails = True
        for _ in range(4):
            with pytest.raises(ZeroDivisionError, match="of the model"):
                recorder.snapshot(epoch=1)
        recorder.flush()
        assert recorder._copier._pinned._ring.used == 0
        assert not recorder._copier._pinned._alone
        model.fails = False
        recorder.snapshot(epoch=1)
    assert fm.open_run(recorder.path).epochs == [0, 1]


def test_copies_are_timed_by_events() -> None:
    """The first copy warms up; of the others the median counts."""
    milliseconds = deque([50.0, 4.0, 1.0, 2.0, 8.0, 2.0])

    class Timed(Event):
        def elapsed_time(self, _other: Event) -> float:
            return milliseconds.popleft()

    with stand_in() as device:
        cuda = SimpleNamespace(Event=Timed, current_stream=device.current_stream)
        with pytest.MonkeyPatch.context() as patch:
            on_host = lambda tensor: tensor  # noqa: E731
            zeros = lambda size, dtype, device: torch.zeros(size, dtype=dtype)  # noqa: E731
            empty = lambda size, dtype, pin_memory: SimpleNamespace(copy_=lambda _there, non_blocking: on_host)  # noqa: E731
            patch.setattr(_device_clock, "torch", _With(torch, cuda=cuda, zeros=zeros, empty=empty))
            rate = _device_clock.pinned_rate(torch.device("cuda"), nbytes=2_000_000)
    assert rate == 2_000_000 / 0.002
    assert not milliseconds
