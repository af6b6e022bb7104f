"""How long a device waits for pixels."""

from __future__ import annotations

import time
from collections import deque

import torch


class Waiting:
    """A context around each call that makes the next pixels; `seconds` is how long the device waited for them in all.

    A GPU waits in its own time: the call may return at once, and only have queued a wait for DALI's kernels. So two
    events stand in PyTorch's stream, before and after; between them the GPU has nothing else to do.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin: float | torch.cuda.Event = 0.0
        self.pairs: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self.past = 0.0
        """Of what is no longer in `pairs`."""

    def now(self) -> float | torch.cuda.Event:
        """A moment on the device."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def __enter__(self) -> None:
        self.begin = self.now()

    def __exit__(self, *_: object) -> None:
        end = self.now()
        if isinstance(self.begin, float) and isinstance(end, float):
            self.past += end - self.begin
        elif isinstance(self.begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
            self.pairs.append((self.begin, end))
            while self.pairs and self.pairs[0][1].query():  # type: ignore[no-untyped-call]
                self.add()

    def add(self) -> None:
        """Adds up the earliest pair, whose events have happened."""
        begin, end = self.pairs.popleft()
        self.past += begin.elapsed_time(end) / 1e3

    @property
    def seconds(self) -> float:
        """So far; waits for what is under way."""
        if self.pairs:
            self.pairs[-1][1].synchronize()
        while self.pairs:
            self.add()
        return self.past
