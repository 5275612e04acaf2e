"""Figures of a round of requests that were timed together, and what makes a request no measurement.

TTFT: submitted to the arrival of the first content token. TPOT: (t_last - t_first) / (n_out - tokens in the first arrival), with
counts as the engine tells them, never text tokenised again; where it is not told how many tokens came first, one is assumed and the
figure is an estimate. Inter-token times are those between arrivals; where one arrival holds several tokens they are times between
arrivals still, and `tokens_per_arrival` says so. E2E: submitted to the arrival of the last token. Failed requests enter no figure.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median

from kleval.profiler.points import Values
from kleval.quantiles import percentile
from kleval.types import Failure, Trace

LENGTH_TOLERANCE = (
    0.1  # |counted / asked - 1| of a prompt; beyond it the server has cut it, or words were counted wrongly
)


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


def tpot(trace: Trace) -> tuple[float, bool]:
    """Seconds per token, and whether that is an estimate."""
    n_out, first = trace.output_tokens or 0, first_tokens(trace)
    known = first is not None and 0 < first < n_out
    return (e2e(trace) - ttft(trace)) / (n_out - (first or 1) if known else n_out - 1), not known


def why_not(trace: Trace, asked: int, ctx: int) -> Failure | None:
    """What is wrong with a trace. asked: output tokens; ctx: prompt tokens."""
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
    if len(trace.arrivals) == 1:
        return Failure("not_streamed", f"all {n_out} tokens arrived at once: the server, or a proxy, does not stream")
    if abs(counted - ctx) > max(LENGTH_TOLERANCE * ctx, 8):
        said = f"the server counts {counted} tokens in a prompt of {ctx}: it may cut long prompts"
        return Failure("prompt_length", said)
    return None


def round_values(traces: Sequence[Trace]) -> tuple[Values, bool]:
    """Figures of requests sent together, none of which failed, and whether TPOT is an estimate. Times in ms: medians over requests;
    inter-token times over all gaps.

    output_tokens_per_second: all output tokens over the time from the first submission to the last arrival.
    prompt_tokens_per_second: all prompt tokens over the time from the first submission until every request had its first token.
    state_bytes and its components: of one sequence, medians; peak_bytes: the most of any.
    """
    start = min(trace.submitted for trace in traces)
    end = max(trace.arrivals[-1].seconds for trace in traces)
    started = max(trace.arrivals[0].seconds for trace in traces)
    between = [1000 * gap for trace in traces for gap in gaps(trace)]
    first, per_token = [1000 * ttft(t) for t in traces], [tpot(t) for t in traces]
    n_out, n_prompt = sum(t.output_tokens or 0 for t in traces), [t.prompt_tokens or 0 for t in traces]
    values: Values = {
        "ttft_ms": percentile(first, 0.5),
        "ttft_ms_max": max(first),
        "tpot_ms": percentile([1000 * seconds for seconds, _ in per_token], 0.5),
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
    cached = [t.cached_tokens for t in traces]
    if all(count is not None for count in cached):
        values["cached_tokens"] = sum(count or 0 for count in cached)
    states = [t.state_bytes for t in traces if t.state_bytes]
    if len(states) == len(traces):
        values["state_bytes"] = int(median(sum(state.values()) for state in states))
        for name in sorted(set().union(*states)):
            values[f"{name}_bytes"] = int(median(state.get(name, 0) for state in states))
    if peaks := [t.peak_bytes for t in traces if t.peak_bytes is not None]:
        values["peak_bytes"] = max(peaks)
    return values, any(estimate for _, estimate in per_token)


def round_failure(failures: Sequence[Failure | None]) -> dict[str, str] | None:
    """What failed in a round, as a point stores it; None when nothing did. One failure makes the round one of fewer requests."""
    found = [failure for failure in failures if failure is not None]
    if not found:
        return None
    kinds = [failure.kind for failure in found]
    first = max(found, key=lambda failure: kinds.count(failure.kind))
    n = f"{len(found)} of {len(failures)} requests: " if len(failures) > 1 else ""
    return {"kind": first.kind, "message": n + first.message}
