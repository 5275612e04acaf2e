"""Figures of a served model under load: requests that come at a rate, or of which a number is held under way.

Open loop: request times are a Poisson process of exactly the rate, seeded, and wait for nothing. Closed loop: the next request is sent
when one ends; the first ones of a round, which start together, are not counted. Percentiles are over requests that did not fail, beside
how many did; their 95 % intervals are those of order statistics (binomial, free of any distribution), absent where there are too few
requests for one. Those of the times between tokens come from a bootstrap over requests, since the steps of one request are not
independent. TPOT of steady decode (`tpot_ms`) leaves out the steps during which another request was in its prefill (`stalled_tpot_ms`);
`request_tpot_ms` is a request's whole one, which is what its caller has.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from kleval.profiler.points import Values
from kleval.profiler.served.figures import caller_values, e2e, first_tokens, gaps, has_tpot, tpot, ttft
from kleval.profiler.served.slo import Slo
from kleval.quantiles import percentile
from kleval.types import Arrival, Trace

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
TOLERATED_FAILURES = 0.01  # share of a round's requests; more make it no measurement
RESAMPLES = 200
STEP, LEAST = 1.1, 16  # of rates that are searched
FEWEST_REQUESTS, REQUESTS_EACH, MOST_REQUESTS = 32, 4, 2000
_Z95 = 0.95
DRIFTED = 1.5  # times the first requests of a round, from which on its last are said to be slower
FEWEST_TO_DRIFT, BY_CHANCE = 21, 1e-3  # thirds of fewer than 7 are never further apart than chance


def send_times(rate: float, n: int, rng: random.Random) -> list[float]:
    """Seconds from the begin of a round: a Poisson process, the first at 0, stretched so that it has that many per second. Left as it
    is drawn a round of 32 has another rate than it is labelled with, by a sixth as a rule."""
    times = [0.0, *itertools.accumulate(rng.expovariate(1.0) for _ in range(n - 1))]
    return [time * (n - 1) / (rate * times[-1]) for time in times] if n > 1 else times


def counted_requests(asked: int | None, under_way: float) -> int:
    """Of a round, those that ramp it up not among them: as many as pass through several times while so many are under way."""
    return asked or min(max(FEWEST_REQUESTS, math.ceil(REQUESTS_EACH * under_way)), MOST_REQUESTS)


def load_values(traces: Sequence[Trace], n_failed: int, slo: Slo | None, skip: int = 0) -> tuple[Values, bool]:
    """Figures of a round, and whether TPOT is an estimate. traces: those that did not fail, in the order of sending, some of more than
    one token. skip: how many of them ramped the load up.

    requests_per_second: sent, from the first counted to the last, failed ones too. under_way: requests on average from when the load is
    there (`_settled`). output_tokens_per_second: of all tokens that arrived in that time. slo_share: of the requests counted, failed
    ones too, those that kept to the SLO, with its Wilson interval; goodput: such ones per second. ttft_drift, tpot_drift: see `drift`.
    """
    counted = sorted(traces, key=lambda trace: trace.submitted)[skip:]
    begin, end = counted[0].submitted, counted[-1].submitted
    span = max(end - begin, 1e-9)
    sent = (len(counted) + n_failed - 1) / span if len(counted) > 1 else math.nan
    values: Values = {"requests": len(counted), "failed_requests": n_failed}
    longer = [trace for trace in counted if has_tpot(trace)]
    times = {
        "ttft_ms": [ttft(trace) for trace in counted],
        "request_tpot_ms": [tpot(trace)[0] for trace in longer],
        "e2e_ms": [e2e(trace) for trace in counted],
    }
    for name, of in times.items():
        found = sorted(1000 * seconds for seconds in of)
        values[name] = percentile(found, 0.5)
        values |= {f"{name}_{p}{more}": value for p, share in SHARES.items() for more, value in _points(found, share)}
    drifts = {"ttft_drift": drift(times["ttft_ms"]), "tpot_drift": drift(times["request_tpot_ms"])}
    values |= {name: value for name, value in drifts.items() if value is not None}
    values["ttft_ms_max"] = max(1000 * ttft(trace) for trace in counted)
    steady, stalled = steps(traces, counted)
    values["tpot_ms"] = 1000 * percentile(steady or [tpot(trace)[0] for trace in longer], 0.5)
    if stalled:
        values["stalled_tpot_ms"] = 1000 * percentile(stalled, 0.5)
    values |= _between([[1000 * gap for gap in gaps(trace)] for trace in longer])
    settled = begin if skip else _settled(counted)
    window = max(end - settled, 1e-9)
    tokens = sum(t for trace in traces for at, t in _tokens(trace) if settled <= at <= end)
    values |= {
        "requests_per_second": sent,
        "under_way": sum(
            min(t.arrivals[-1].seconds, end) - max(t.submitted, settled) for t in traces if _within(t, settled, end)
        )
        / window,
        "output_tokens_per_second": tokens / window if len(counted) > 1 else math.nan,
        "prompt_tokens": percentile([trace.prompt_tokens or 0 for trace in counted], 0.5),
        "output_tokens": sum(trace.output_tokens or 0 for trace in counted),
        "tokens_per_arrival": sum(t.output_tokens or 0 for t in counted) / sum(len(t.arrivals) for t in counted),
    }
    cached = [trace.cached_tokens for trace in counted]
    if all(count is not None for count in cached):
        values["cached_tokens"] = sum(count or 0 for count in cached)
    if slo is not None:
        values |= _goodput(counted, n_failed, slo, sent)
    values |= caller_values(counted, values)
    return {k: v for k, v in values.items() if v is None or math.isfinite(v)}, any(tpot(t)[1] for t in longer)


def steps(traces: Sequence[Trace], counted: Sequence[Trace]) -> tuple[list[float], list[float]]:
    """Seconds per token of each counted request over its steps apart from any other's prefill, and over those beside one; a request
    with none of a kind is absent from it. Prefill: from sent to the first arrival."""
    prefills = sorted((trace.submitted, trace.arrivals[0].seconds, id(trace)) for trace in traces)
    begins = [begin for begin, _, _ in prefills]
    longest = max(end - begin for begin, end, _ in prefills)
    free: list[float] = []
    beside: list[float] = []
    for trace in counted:
        sums = {False: [0.0, 0.0], True: [0.0, 0.0]}
        for a, b in itertools.pairwise(trace.arrivals):
            near = prefills[bisect_left(begins, a.seconds - longest) : bisect_right(begins, b.seconds)]
            blocked = any(begin < b.seconds and end > a.seconds and name != id(trace) for begin, end, name in near)
            sums[blocked][0] += b.seconds - a.seconds
            sums[blocked][1] += _of(trace, b)
        for blocked, into in ((False, free), (True, beside)):
            seconds, tokens = sums[blocked]
            if tokens:
                into.append(seconds / tokens)
    return free, beside


def drift(in_order: Sequence[float]) -> float | None:
    """Median of the last third of the requests over that of the first, where they are slower by more than chance (Mann-Whitney)."""
    from scipy.stats import mannwhitneyu

    n = len(in_order) // 3
    if (
        len(in_order) < FEWEST_TO_DRIFT
        or mannwhitneyu(in_order[-n:], in_order[:n], alternative="greater").pvalue > BY_CHANCE
    ):
        return None
    first = percentile(in_order[:n], 0.5)
    return percentile(in_order[-n:], 0.5) / first if first else None


def drifts(values: Values) -> bool:
    """Whether the last requests of a round were slower than the first: they pile up, or the load was still building up."""
    return max(values.get("ttft_drift") or 0, values.get("tpot_drift") or 0) > DRIFTED


def interval(ordered: Sequence[float], share: float) -> tuple[float | None, float | None]:
    """95 % interval of a quantile from the order statistics of independent values; None for an end that they do not reach."""
    from scipy.stats import binom

    n = len(ordered)
    low = int(binom.ppf((1 - _Z95) / 2, n, share))  # so many lie below the quantile at least
    high = int(binom.ppf(1 - (1 - _Z95) / 2, n, share))
    return (ordered[low - 1] if low >= 1 else None), (ordered[high] if high < n else None)


def _points(ordered: Sequence[float], share: float) -> list[tuple[str, float | None]]:
    low, high = interval(ordered, share)
    return [("", percentile(ordered, share)), ("_low", low), ("_high", high)]


def _between(of: Sequence[Sequence[float]]) -> Values:
    """Times between arrivals of all requests together, with intervals over requests."""
    import numpy as np

    everything = np.concatenate([np.asarray(one) for one in of])
    shares = list(SHARES.values())
    rng = np.random.default_rng(7)
    drawn = [
        np.quantile(np.concatenate([of[at] for at in rng.integers(0, len(of), len(of))]), shares)
        for _ in range(RESAMPLES if len(of) > 1 else 0)
    ]
    values: Values = {}
    for at, (p, share) in enumerate(SHARES.items()):
        name = f"itl_ms_{'median' if p == 'p50' else p}"
        values[name] = float(np.quantile(everything, share))
        if drawn:
            values[f"{name}_low"], values[f"{name}_high"] = (
                float(end) for end in np.quantile([one[at] for one in drawn], [0.025, 0.975])
            )
    return values


def _goodput(counted: Sequence[Trace], n_failed: int, slo: Slo, sent: float) -> Values:
    from scipy.stats import binomtest

    kept, n = sum(map(slo.holds, counted)), len(counted) + n_failed
    limits = binomtest(kept, n).proportion_ci(method="wilson")
    return {
        "slo_share": kept / n,
        "slo_share_low": float(limits.low),
        "slo_share_high": float(limits.high),
        "goodput": sent * kept / n,
    }


def _of(trace: Trace, arrival: Arrival) -> float:
    each = (trace.output_tokens or 0) / len(trace.arrivals)
    return each if arrival.tokens is None else arrival.tokens


def _tokens(trace: Trace) -> list[tuple[float, float]]:
    """When how many tokens arrived."""
    first = first_tokens(trace)
    return [
        (arrival.seconds, first if at == 0 and first is not None else _of(trace, arrival))
        for at, arrival in enumerate(trace.arrivals)
    ]


def _settled(traces: Sequence[Trace]) -> float:
    """From when as many end as are sent, of requests that come by themselves, in the order of sending: after the time that one takes.
    The begin where the round is hardly longer than that."""
    begin, end = traces[0].submitted, traces[-1].submitted
    took = percentile([e2e(trace) for trace in traces], 0.5)
    return begin + took if took < 0.75 * (end - begin) else begin


def _within(trace: Trace, begin: float, end: float) -> bool:
    return trace.submitted < end and trace.arrivals[-1].seconds > begin


Probe = Callable[[float], tuple[bool, bool]]  # rate -> whether the SLO held, whether the client could keep the rate


def best_rate(probe: Probe, start: float) -> tuple[float, float]:
    """The highest rate that holds and the lowest tried above it that does not, both within STEP of each other.

    Doubling or halving, then bisection of the logarithm. The first is 0 where none down to start / LEAST holds: requests hardly meet
    any more if start is one per answer. The second is infinite where it was the client that could not keep it.
    """
    low, high, rate, by_client = 0.0, math.inf, start, False
    while True:
        held, kept = probe(rate)
        if held and kept:
            low = rate
        else:
            high, by_client = rate, not kept
        if high < start / LEAST or (low and high / low <= STEP):
            return low, math.inf if by_client else high
        rate = 2 * low if high == math.inf else high / 2 if not low else math.sqrt(low * high)
