"""How far a run is and when it will be done, weighted by tokens: an answer at 1m is not an answer at 1k."""

from __future__ import annotations

import time
from collections.abc import Callable

from kleval.harness.events import Progress
from kleval.harness.plan import Plan


class Meter:
    """Counts answers and tokens. Starts from the plan's estimate (ctx per answer) and corrects it as samples are made."""

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self.n_total, self.n_done, self.n_failed = plan.n, plan.n_answered, 0
        self.tokens_total = plan.estimated_tokens
        self.tokens_done = sum(cell.n_answered * cell.ctx for cell in plan.cells)
        self._before = self.tokens_done
        self._clock, self._start = clock, clock()

    def made(self, n: int, estimated_tokens: int, weight_tokens: int) -> None:
        """n answers whose tokens were estimated turn out to be weight_tokens each."""
        self.tokens_total += n * (weight_tokens - estimated_tokens)

    def dropped(self, n: int, estimated_tokens: int) -> None:
        """n planned answers will not be asked for."""
        self.n_total -= n
        self.tokens_total -= n * estimated_tokens

    def done(self, weight_tokens: int, failed: bool) -> None:
        self.n_done += 1
        self.n_failed += failed
        self.tokens_done += weight_tokens

    def progress(self, model: str) -> Progress:
        elapsed = self._clock() - self._start
        fresh = self.tokens_done - self._before
        rate = fresh / elapsed if fresh > 0 and elapsed > 0 else None
        return Progress(
            model=model,
            n_done=self.n_done,
            n_total=self.n_total,
            tokens_done=self.tokens_done,
            tokens_total=self.tokens_total,
            n_failed=self.n_failed,
            elapsed_seconds=elapsed,
            tokens_per_second=rate,
            eta_seconds=max(self.tokens_total - self.tokens_done, 0) / rate if rate else None,
        )
