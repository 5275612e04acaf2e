"""Clock of a device: time until its work is done, not time until the host got the call off its hands."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import torch


class Clock:
    """Wall time around finished device work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        """Seconds, once everything queued on the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        """How long work takes, device work included."""
        start = self.now()
        work()
        return self.now() - start

    def each(self, works: Sequence[Callable[[], object]]) -> list[float]:
        """Seconds of each piece of work, run one after the other.

        On CUDA from events between the pieces, so that the host never waits inside: what is timed is the device's own pace.
        """
        if self.device.type != "cuda":
            return [self.seconds(work) for work in works]
        with torch.cuda.device(self.device):
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(works) + 1)]
            self.now()
            marks[0].record()
            for work, mark in zip(works, marks[1:], strict=True):
                work()
                mark.record()
            self.now()
        return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks)]
