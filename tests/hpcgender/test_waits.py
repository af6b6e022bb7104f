"""What the host and a GPU wait for, in which order: by a fake of a GPU whose stream runs what is waited for alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hpcgender.commands.train import TrainConfig
from hpcgender.data.decoders import create_decoder
from hpcgender.data.waiting import Waiting
from hpcgender.distributed import Ranks
from hpcgender.train.learner import Finite, Learner
from tests.benchmarks.gpu import idle_of
from tests.benchmarks.operations import Operations
from tests.gpu.learning import Steps, batch_of

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Stream:
    """The only stream of a GPU: what is queued runs, in order, once somebody waits for it or for what is after it."""

    def __init__(self) -> None:
        self.queue: deque[Callable[[], None]] = deque()
        self.seconds = 0.0
        """The GPU's own time."""

    def run_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.queue.popleft()()

    def works(self, seconds: float) -> None:
        """Queues a kernel that takes so long."""

        def kernel() -> None:
            self.seconds += seconds

        self.queue.append(kernel)


class Event:
    """As torch.cuda.Event, in that stream."""

    stream: Stream

    def __init__(self, enable_timing: bool = False) -> None:
        self.at: float | None = None

    def record(self, stream: object = None) -> None:
        def mark() -> None:
            self.at = self.stream.seconds

        self.stream.queue.append(mark)

    def query(self) -> bool:
        return self.at is not None

    def synchronize(self) -> None:
        self.stream.run_until(self.query)

    def elapsed_time(self, end: Event) -> float:
        assert self.at is not None
        assert end.at is not None
        return 1e3 * (end.at - self.at)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The stream of a fake GPU."""
    made = Stream()
    monkeypatch.setattr(Event, "stream", made, raising=False)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: made)
    return made


class OnGpu:
    """A scalar on that GPU."""

    is_cuda = True

    def __init__(self, value: bool) -> None:
        self.value = value


class Pinned:
    """A scalar of the host into which the GPU copies."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.value = stream, None

    def copy_(self, source: OnGpu, non_blocking: bool) -> Pinned:
        assert non_blocking

        def copy() -> None:
            self.value = source.value  # type: ignore[assignment]

        self.stream.queue.append(copy)
        return self

    def __bool__(self) -> bool:
        assert self.value is not None, "read before it was copied"
        return self.value


@pytest.mark.parametrize("value", [True, False])
def test_whether_a_norm_is_finite_waits_for_its_copy_and_for_nothing_after_it(
    value: bool, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "empty", lambda *shape, dtype, pin_memory: Pinned(stream))
    stream.works(1.0)  # this step's backward pass
    finite = Finite(OnGpu(value))  # type: ignore[arg-type]
    stream.works(100.0)  # the next step's
    assert bool(finite) == value
    assert stream.seconds == 1.0


def test_a_step_on_a_gpu_looks_at_the_norm_of_the_step_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To which nothing is added on the device: a kernel of the question would wait behind this step's backward pass."""
    looked: list[int] = []

    class Noted(Finite):
        made = 0

        def __init__(self, finite: torch.Tensor) -> None:
            super().__init__(finite)
            self.number, Noted.made = Noted.made, Noted.made + 1

        def __bool__(self) -> bool:
            looked.append(self.number)
            return super().__bool__()

    monkeypatch.setattr("hpcgender.train.learner.Finite", Noted)
    config = TrainConfig(model="compact", image_size=32, batch_size=16, lr=0.01, warmup_epochs=0.0)
    steps = Steps(Learner(config, 2, Ranks(0, 1, CPU), fresh=True))
    steps.learner.ranks = Ranks(0, 1, GPU)  # the network stays on the CPU
    for number in range(3):
        steps.take(number, batch_of(number, CPU))
        assert (Noted.made, looked) == (number + 1, list(range(number)))
    with Operations() as started:
        steps.learner.check_finite()  # as before a checkpoint
    assert looked == [0, 1, 2]
    assert not started.started


class Lent:
    """DALI's output: a tensor of its memory."""

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory

    def as_tensor(self) -> torch.Tensor:
        return self.memory


class Pipeline:
    """As DALI's, with memory that the next batch overwrites."""

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory, self.batches = memory, 0

    def share_outputs(self, cuda_stream: object = None) -> tuple[Lent]:
        self.batches += 1
        self.memory.fill_(self.batches)
        return (Lent(self.memory),)

    def release_outputs(self) -> None:
        pass


def test_pixels_on_a_gpu_are_copied_and_dalis_are_held_until_they_are(stream: Stream) -> None:
    """Before the event that tells so: DALI uses memory again in the order of a stream of its own."""
    pytest.importorskip("nvidia.dali")
    decoder: Any = create_decoder("dali", 2, 8, CPU, None, 1)
    decoder.device, decoder.pipeline = GPU, Pipeline(torch.empty(2, 3, 8, 8))
    for _ in range(2):
        decoder.under_way.append(([], None))
    order: list[str] = []

    class Noting(Operations):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "copy_" in str(func):
                order.append(f"copied with {len(stream.queue)} events")
            return super().__torch_dispatch__(func, types, args, kwargs)

    with Noting():
        first = decoder.result()
    assert order == ["copied with 0 events"]
    assert len(stream.queue) == 1
    held = [pixels.data_ptr() for _, pixels in decoder.held]
    assert held == [decoder.pipeline.memory.data_ptr()]
    assert first.is_contiguous(memory_format=torch.channels_last)
    second = decoder.result()
    assert (first == 1).all()
    assert (second == 2).all()
    assert len(decoder.held) == 2  # neither copy is made yet
    stream.run_until(lambda: not stream.queue)
    decoder.under_way.append(([], None))
    decoder.result()
    assert len(decoder.held) == 1


def test_a_gpu_waits_for_pixels_in_its_own_time(stream: Stream) -> None:
    """A call that returns at once may have queued a wait; the host's clock has nothing of it."""
    waiting = Waiting(GPU)
    for _ in range(3):
        stream.works(10.0)  # a step
        with waiting:
            stream.works(0.25)  # until DALI's kernels are done
    assert len(waiting.pairs) == 3  # nobody has waited for any of it
    assert waiting.seconds == pytest.approx(0.75)
    assert not waiting.pairs
    with waiting:
        pass
    stream.works(10.0)
    assert waiting.seconds == pytest.approx(0.75)
    assert len(stream.queue) == 1  # nor is waited for what comes after it


def test_waits_that_are_over_are_added_up_meanwhile(stream: Stream) -> None:
    waiting = Waiting(GPU)
    for _ in range(100):
        with waiting:
            stream.works(0.01)
        stream.run_until(lambda: not stream.queue)
    assert len(waiting.pairs) <= 1
    assert waiting.seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("spans", "idle"),
    [
        ([], None),
        ([(5.0, 9.0)], 0.0),
        ([(6.0, 8.0), (0.0, 2.0)], 0.5),  # in any order
        ([(0.0, 4.0), (1.0, 2.0), (3.0, 6.0), (9.0, 10.0)], 0.3),  # one within another, and two that overlap
        ([(0.0, 1.0), (1.0, 2.0)], 0.0),
    ],
)
def test_a_gpu_idles_where_no_kernel_and_no_copy_runs(spans: list[tuple[float, float]], idle: float | None) -> None:
    assert idle_of(spans) == (idle if idle is None else pytest.approx(idle))
