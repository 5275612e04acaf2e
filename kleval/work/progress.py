"""Progress: how far a command is and when it will be done, weighted by work: an answer at 1m is not an answer at 1k."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from kleval.text import duration
from kleval.work.events import Progress
from kleval.work.unit import Unit

KNOWN_SHARE = 1 / 50  # of the work from which on the pace says more than the expected seconds


class Meter:
    """Counts records and work. in_seconds: weights are expected seconds, which stand for the time to go until a pace is known."""

    def __init__(
        self, units: Iterable[tuple[Unit, int]], in_seconds: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """units: each with how many of its records are there already."""
        self.n_total = self.n_done = self.n_failed = 0
        self.work_total = self.work_done = 0.0
        for unit, n_done in units:
            self.n_total, self.n_done = self.n_total + unit.n, self.n_done + n_done
            self.work_total += unit.n * unit.weight
            self.work_done += n_done * unit.weight
        self._before, self._in_seconds = self.work_done, in_seconds
        self._clock, self._start = clock, clock()

    def made(self, n: int, estimated: float, weight: float) -> None:
        """n records that were estimated at `estimated` each turn out to weigh `weight` each."""
        self.work_total += n * (weight - estimated)

    def dropped(self, n: int, estimated: float) -> None:
        """n planned records will not be made."""
        self.n_total -= n
        self.work_total -= n * estimated

    def done(self, weight: float, failed: bool) -> None:
        self.n_done += 1
        self.n_failed += failed
        self.work_done += weight

    def progress(self, label: str, under_way: float = 0.0) -> Progress:
        """under_way: work done on a record that is not there yet."""
        elapsed, done = self._clock() - self._start, self.work_done + under_way
        fresh, left = done - self._before, max(self.work_total - done, 0.0)
        rate = fresh / elapsed if fresh > 0 and elapsed > 0 else None
        eta = left / rate if rate else None
        if self._in_seconds and fresh <= KNOWN_SHARE * (self.work_total - self._before):
            eta = left
        return Progress(label, self.n_done, self.n_total, done, self.work_total, self.n_failed, elapsed, rate, eta)


def told(at: Progress, unit: str, rate: str = "") -> str:
    """`12/390 answers, 4,100 tokens/s, 3m10s to go, 1 failed`. rate: what the work is counted in; empty, and its pace is not said."""
    parts = [f"{at.n_done}/{at.n_total} {unit}"]
    if rate and at.work_per_second is not None:
        parts.append(f"{at.work_per_second:,.0f} {rate}/s")
    if at.n_done < at.n_total and at.eta_seconds is not None:
        parts.append(f"{duration(at.eta_seconds)} to go")
    if at.n_failed:
        parts.append(f"{at.n_failed} failed")
    return ", ".join(parts)
