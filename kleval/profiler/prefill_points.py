"""Points of prefill latency, in full and sampled: models in turn, the closed form and the check beside the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kleval.backends.peak_memory import watch_peak
from kleval.models.cache import HybridCache
from kleval.profiler.bench import Bench, attempt
from kleval.profiler.energy import per_prompt_tokens
from kleval.profiler.integrate import integrate, positions_for, sample_positions
from kleval.profiler.points import Measured, Outcome, PlannedPoint, Values
from kleval.profiler.prefill import chunk_seconds, full_seconds, head_seconds, random_ids
from kleval.quantiles import median

CHUNK_SECONDS = 0.3  # a sampled chunk is run again until it has taken about this long ...
CHUNK_REPEATS = 5  # ... but not more often


class PrefillPoints:
    """on_tick: told how far a point is, a share of 1, now and then and also inside timed regions."""

    def __init__(
        self, bench: Bench, planned: Sequence[PlannedPoint], on_tick: Callable[[PlannedPoint, float], None]
    ) -> None:
        self._bench, self._tick = bench, on_tick
        lengths = sorted({p.ctx for p in planned if p.protocol == "sampled"})
        self._positions = sample_positions(lengths, bench.chunk) if lengths else ()
        self._times: dict[tuple[str, int], dict[int, float]] = {}  # model, repeat -> position -> seconds
        self._peaks: dict[str, int] = {}
        self._warm = {(name, bench.chunk) for name in bench.models}

    def full(self, group: Sequence[PlannedPoint]) -> Measured:
        for planned in group:
            self._tick(planned, 0.0)
            yield planned, attempt(lambda p=planned: self._full(p))  # type: ignore[misc]
            self._bench.release()

    def sampled(
        self, group: Sequence[PlannedPoint], full_seconds_of: Callable[[PlannedPoint], float | None]
    ) -> Measured:
        """Time the chunks that this length adds to those of shorter ones, then integrate.

        group: points of one length. full_seconds_of: what the same prompt took in full, None where it was not run.
        """
        positions = positions_for(group[0].ctx, self._bench.chunk, self._positions)
        failed: dict[str, Outcome] = {}
        for position in positions:
            self._time_chunks(group, position, failed)
        for planned in group:
            yield (
                planned,
                failed.get(planned.model)
                or attempt(lambda p=planned: self._estimate(p, positions, full_seconds_of(p))),  # type: ignore[misc]
            )

    def _full(self, planned: PlannedPoint) -> Outcome:
        bench, decoder = self._bench, self._bench.models[planned.model]
        for tokens in {min(planned.ctx, bench.chunk), planned.ctx % bench.chunk} - {0}:
            if (planned.model, tokens) not in self._warm:
                full_seconds(decoder, random_ids(decoder, 1, tokens, bench.seed), bench.chunk)
                self._warm.add((planned.model, tokens))
        ids = random_ids(decoder, 1, planned.ctx, bench.seed + planned.repeat)
        found: list[tuple[float, HybridCache]] = []
        ended: list[float] = []

        def work() -> None:
            tick = lambda tokens: self._tick(planned, tokens / planned.ctx)  # noqa: E731
            found.append(full_seconds(decoder, ids, bench.chunk, tick))
            ended.append(time.perf_counter())

        with bench.meter.running():
            peak = watch_peak(bench.device, work)
        seconds, cache = found[0]
        energy = per_prompt_tokens(bench.meter.joules(ended[0] - seconds, ended[0]), planned.ctx)
        workspace = None if peak.extra_bytes is None else max(peak.extra_bytes - cache.allocated_bytes(), 0)
        return self._outcome(
            planned, seconds, {"state_bytes": cache.used_bytes(), "workspace_bytes": workspace, **energy}
        )

    def _estimate(self, planned: PlannedPoint, positions: Sequence[int], full: float | None) -> Outcome:
        bench, decoder = self._bench, self._bench.models[planned.model]
        times = {p: self._times[planned.model, planned.repeat][p] for p in positions}
        head = head_seconds(decoder, random_ids(decoder, 1, 1, bench.seed))
        seconds = integrate(times, planned.ctx, bench.chunk) + head
        values: Values = {
            "chunks_timed": len(times),
            "sampled_over_full": None if full is None else seconds / full,
            "workspace_bytes": self._peaks.get(planned.model),
        }
        done = self._outcome(planned, seconds, values)
        settings = {"chunk_seconds": {str(position): t for position, t in times.items()}}
        return Outcome(done.values, done.closed_form, estimate=True, settings=settings)

    def _time_chunks(self, group: Sequence[PlannedPoint], position: int, failed: dict[str, Outcome]) -> None:
        """Chunks at one position, models in turn, for every repeat that has not been timed there yet."""
        bench = self._bench
        caches: dict[str, HybridCache] = {}
        names = {planned.model for planned in group}
        together = bench.fit_together(sum(bench.state_bytes(name, position + bench.chunk) for name in names))
        for planned in group:
            times = self._times.setdefault((planned.model, planned.repeat), {})
            if position in times or planned.model in failed:
                continue
            self._tick(planned, position / planned.ctx)

            def work(planned: PlannedPoint = planned) -> Outcome:
                return Outcome({"seconds": self._chunk(planned, position, caches)})

            outcome = attempt(work)
            if outcome.failure is not None:
                failed[planned.model] = outcome
            else:
                times[position] = float(outcome.values["seconds"] or 0)
            if not together:
                caches.clear()
                bench.release()

    def _chunk(self, planned: PlannedPoint, position: int, caches: dict[str, HybridCache]) -> float:
        bench, name = self._bench, planned.model
        if name not in caches:
            caches[name] = bench.filled(name, position, more=bench.chunk)
        cache, decoder = caches[name], bench.models[name]
        ids = random_ids(decoder, 1, bench.chunk, bench.seed + planned.repeat)
        count = round(CHUNK_SECONDS / max(bench.rates[name].chunk(position), 1e-9))
        found: list[float] = []

        def work() -> None:
            found.append(chunk_seconds(decoder, cache, ids, max(1, min(CHUNK_REPEATS, count))))

        peak = watch_peak(bench.device, work)
        if peak.extra_bytes is not None:
            self._peaks[name] = max(self._peaks.get(name, 0), peak.extra_bytes)
        return found[0]

    def _outcome(self, planned: PlannedPoint, seconds: float, values: Values) -> Outcome:
        bench = self._bench
        assert bench.bound is not None
        flops = bench.configs[planned.model].prefill_flops(planned.ctx)
        timing: Values = {
            "seconds": seconds,
            "warmup_seconds": bench.rates[planned.model].warmup_chunk_seconds,
            "tokens_per_second": planned.ctx / seconds,
            "flops_per_second": flops / seconds,
            "mfu": flops / seconds / bench.bound.flops_per_second,
        }
        closed: Values = {
            "flops": flops,
            "bound_seconds": bench.bound.prefill_seconds(flops),
            "state_bytes": bench.state_bytes(planned.model, planned.ctx),
        }
        return Outcome(timing | values, closed)


def typical(seconds: Sequence[float]) -> float | None:
    """The median, None for none."""
    return median(seconds) if seconds else None
