"""Figures of a round of requests that were timed together, and what makes a request no measurement.

TTFT: submitted to the arrival of the first content token. TPOT: (t_last - t_first) / (n_out - tokens in the first arrival), with
counts as the engine tells them, never text tokenised again; where it is not told how many tokens came first, one is assumed and the
figure is an estimate. Of requests sent together only the steps count in which all of them decode; what a token takes while a
neighbour is in its prefill is a figure of its own (`stalled_tpot_ms`). Inter-token times are those between arrivals; where one
arrival holds several tokens they are times between arrivals still, and `tokens_per_arrival` says so. E2E: submitted to the arrival
of the last token. Failed requests enter no figure.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median

from kleval.profiler.points import Values
from kleval.quantiles import percentile
from kleval.types import Arrival, Failure, Trace

LENGTH_TOLERANCE = (
    0.1  # |counted / asked - 1| of a prompt; beyond it the server has cut it, or words were counted wrongly
)
FEW_TOKENS = 8  # that a server may put before a prompt and behind it
LATE_SHARE = 0.05  # of what is reported: if the caller may have been later than that, its own pace is what was measured
FASTEST_SECONDS = 5e-5  # per token of one request from a server: quicker ones were made before the first was sent
FEWEST_TO_STREAM = 16  # tokens of an answer that ends where the model ends it: fewer may well come at once


def ttft(trace: Trace) -> float:
    return trace.arrivals[0].seconds - trace.submitted


def e2e(trace: Trace) -> float:
    return trace.arrivals[-1].seconds - trace.submitted


def gaps(trace: Trace) -> list[float]:
    return [b.seconds - a.seconds for a, b in itertools.pairwise(trace.arrivals)]


def first_tokens(trace: Trace) -> int | None:
    """How many tokens the first arrival held; None where that is not known."""
    if trace.arrivals[0].tokens is not None:
        return trace.arrivals[0].tokens
    return 1 if trace.output_tokens == len(trace.arrivals) else None


def has_tpot(trace: Trace) -> bool:
    """Whether a time per token can be told of it: there is more than one token, and they came one after the other."""
    return len(trace.arrivals) > 1 and (trace.output_tokens or 0) > 1


def tpot(trace: Trace) -> tuple[float, bool]:
    """Seconds per token, and whether that is an estimate; of one that has it."""
    n_out, first = trace.output_tokens or 0, first_tokens(trace)
    known = first is not None and 0 < first < n_out
    return (e2e(trace) - ttft(trace)) / (n_out - (first or 1) if known else n_out - 1), not known


def steady(traces: Sequence[Trace]) -> tuple[list[float], bool]:
    """Seconds per token of each request over the steps in which all decode, and whether that is an estimate. Where there are no such
    steps each request's own span is taken."""
    begin, end = together(traces)
    common = [_per_token(trace, [a for a in trace.arrivals if begin <= a.seconds <= end]) for trace in traces]
    if len(traces) == 1 or None in common:
        own = [tpot(trace) for trace in traces]
        return [seconds for seconds, _ in own], any(estimate for _, estimate in own)
    return [seconds for seconds in common if seconds is not None], not all(map(_counted, traces))


def together(traces: Sequence[Trace]) -> tuple[float, float]:
    """From when all decode until the first of them has ended; the end lies before the begin where they never do."""
    return max(t.arrivals[0].seconds for t in traces), min(t.arrivals[-1].seconds for t in traces)


def stalled(traces: Sequence[Trace]) -> list[float]:
    """Seconds per token while another request is in its prefill, of each request that had to decode meanwhile."""
    begin, end = together(traces)
    found = []
    for trace in traces if begin < end else ():
        n = sum(arrival.seconds < begin for arrival in trace.arrivals)
        if n and (seconds := _per_token(trace, trace.arrivals[: n + 1])) is not None:
            found.append(seconds)
    return found


def _counted(trace: Trace) -> bool:
    """Whether it is told how many tokens each arrival held."""
    return trace.output_tokens == len(trace.arrivals) or all(a.tokens is not None for a in trace.arrivals)


def _per_token(trace: Trace, part: Sequence[Arrival]) -> float | None:
    """From the first of some successive arrivals to the last, per token after the first; None for fewer than two. Where it is not told
    how many tokens an arrival held, all hold the same."""
    each = (trace.output_tokens or 0) / len(trace.arrivals)
    tokens = sum(each if arrival.tokens is None else arrival.tokens for arrival in part[1:])
    return (part[-1].seconds - part[0].seconds) / tokens if tokens else None


def why_not(trace: Trace, asked: int, ctx: int, served: bool = False, exact: bool = False) -> Failure | None:
    """What is wrong with a trace. asked: output tokens; ctx: prompt tokens; served: whether a server sent it; exact: whether the prompt
    was sent as that many ids."""
    n_out, counted = trace.output_tokens, trace.prompt_tokens
    if trace.failure is not None:
        return trace.failure
    if n_out is None or counted is None:
        return Failure("server", "the answer does not tell how many tokens it has (usage)")
    if n_out < asked:
        return Failure("fewer_tokens", f"the model ended its answer after {n_out} of {asked} tokens")
    if n_out > asked + 1:  # some count the end besides
        return Failure("server", f"the server counts {n_out} tokens where {asked} were asked")
    if not trace.arrivals:
        return Failure("empty", f"no token arrived, {n_out} are counted")
    if (failure := not_streamed(trace, served)) is not None:
        return failure
    if abs(counted - ctx) > max(0 if exact else LENGTH_TOLERANCE * ctx, FEW_TOKENS):
        said = f"the server counts {counted} tokens in a prompt of {ctx}: it may cut long prompts"
        return Failure("prompt_length", said)
    return None


def why_not_free(trace: Trace, served: bool) -> Failure | None:
    """The same of an answer that ends where the model ends it: it may be of any length."""
    whole = trace.arrivals and (trace.output_tokens or 0) >= FEWEST_TO_STREAM
    return trace.failure or (not_streamed(trace, served) if whole else None)


def not_streamed(trace: Trace, served: bool) -> Failure | None:
    """Of a trace with arrivals: whether its tokens came as they were made. A last piece behind all others is no stream."""
    n_out, seconds = trace.output_tokens or 0, e2e(trace) - ttft(trace)
    if len(trace.arrivals) == 1:
        return Failure("not_streamed", f"all {n_out} tokens arrived at once: the server, or a proxy, does not stream")
    if served and seconds < FASTEST_SECONDS * (n_out - 1):
        said = f"{n_out} tokens arrived within {1000 * seconds:.2f} ms: the whole answer was made before it was sent"
        return Failure("not_streamed", said)
    return None


def round_values(traces: Sequence[Trace]) -> tuple[Values, bool]:
    """Figures of requests sent together, none of which failed, and whether TPOT is an estimate. Times in ms: medians over requests;
    inter-token times over all gaps.

    common_steps: arrivals of each request while all decode. stalled_tpot_ms: median over the requests that decoded while another was
    in its prefill; absent where none did.
    output_tokens_per_second: all output tokens over the time from the first submission to the last arrival.
    prompt_tokens_per_second: all prompt tokens over the time from the first submission until every request had its first token.
    state_bytes and its components: of one sequence, medians; peak_bytes: the most of any. The caller's own: see `caller_values`.
    """
    start = min(trace.submitted for trace in traces)
    end = max(trace.arrivals[-1].seconds for trace in traces)
    started = max(trace.arrivals[0].seconds for trace in traces)
    between = [1000 * gap for trace in traces for gap in gaps(trace)]
    first, waiting = [1000 * ttft(t) for t in traces], stalled(traces)
    per_token, estimate = steady(traces)
    n_out, n_prompt = sum(t.output_tokens or 0 for t in traces), [t.prompt_tokens or 0 for t in traces]
    values: Values = {
        "ttft_ms": percentile(first, 0.5),
        "ttft_ms_max": max(first),
        "tpot_ms": 1000 * percentile(per_token, 0.5),
        "itl_ms_median": percentile(between, 0.5),
        "itl_ms_p90": percentile(between, 0.9),
        "itl_ms_p99": percentile(between, 0.99),
        "e2e_ms": percentile([1000 * e2e(t) for t in traces], 0.5),
        "output_tokens_per_second": n_out / (end - start),
        "prompt_tokens_per_second": sum(n_prompt) / (started - start),
        "requests": len(traces),
        "prompt_tokens": percentile(n_prompt, 0.5),
        "output_tokens": n_out,
        "tokens_per_arrival": n_out / sum(len(t.arrivals) for t in traces),
    }
    if len(traces) > 1:
        begin, stop = together(traces)
        values["common_steps"] = min(sum(begin < a.seconds <= stop for a in t.arrivals) for t in traces)
    if waiting:
        values["stalled_tpot_ms"] = 1000 * percentile(waiting, 0.5)
    cached = [t.cached_tokens for t in traces]
    if all(count is not None for count in cached):
        values["cached_tokens"] = sum(count or 0 for count in cached)
    states = [t.state_bytes for t in traces if t.state_bytes]
    if len(states) == len(traces):
        values["state_bytes"] = int(median(sum(state.values()) for state in states))
        for name in sorted(set().union(*states)):
            values[f"{name}_bytes"] = int(median(state.get(name, 0) for state in states))
    values |= caller_values(traces, values)
    if peaks := [t.peak_bytes for t in traces if t.peak_bytes is not None]:
        values["peak_bytes"] = max(peaks)
    return values, estimate


def caller_values(traces: Sequence[Trace], values: Values) -> Values:
    """What the caller itself added to a round, in ms. late_ms, late_first_ms: by how much arrivals, first arrivals alone, may have been
    noted too late, the 90th percentile (late_ms_p99: the 99th); late_send_ms: how long after its time the last request was sent;
    connect_ms: median of opening a connection, before the clock starts. client_limited: 1 where lateness is more than LATE_SHARE of
    TTFT or TPOT, or that of sending (90th percentile) of E2E: fewer were under way than the round is labelled with."""
    first = 1000 * percentile([t.arrivals[0].late_seconds for t in traces], 0.9)
    every, most = (
        1000 * percentile([a.late_seconds for t in traces for a in t.arrivals], share) for share in (0.9, 0.99)
    )
    found: Values = {
        "late_ms": every,
        "late_ms_p99": most,
        "late_first_ms": first,
        "late_send_ms": 1000 * max(t.late_seconds for t in traces),
    }
    if opened := [t.connect_seconds for t in traces if t.connect_seconds is not None]:
        found["connect_ms"] = 1000 * percentile(opened, 0.5)
    sending, whole = 1000 * percentile([t.late_seconds for t in traces], 0.9), values.get("e2e_ms")
    pairs = ((first, values["ttft_ms"]), (every, values["tpot_ms"]), (sending, whole))
    if any(late > LATE_SHARE * (of or 0) for late, of in pairs if of is not None):
        found["client_limited"] = 1
    return found


def round_failure(failures: Sequence[Failure | None]) -> dict[str, str] | None:
    """What failed in a round, as a point stores it; None when nothing did. One failure makes the round one of fewer requests."""
    found = [failure for failure in failures if failure is not None]
    if not found:
        return None
    kinds = [failure.kind for failure in found]
    first = max(found, key=lambda failure: kinds.count(failure.kind))
    n = f"{len(found)} of {len(failures)} requests: " if len(failures) > 1 else ""
    return {"kind": first.kind, "message": n + first.message}
