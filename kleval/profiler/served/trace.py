"""One request as the caller saw it, and the figures of a round of requests that were sent together.

TTFT: submitted to the arrival of the first content token. TPOT: (t_last - t_first) / (n_out - 1), with n_out as the server
counted it, never text tokenised again. Inter-token times are those between arrivals; where one arrival holds several tokens they
are times between arrivals still, and `tokens_per_arrival` says so. E2E: submitted to the arrival of the last token. Requests with
a fault enter no figure.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from kleval.quantiles import percentile

Number = int | float | None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request is no measurement. kind: of kleval.types.FailureKind, or `fewer_tokens`, `not_streamed`, `prompt_length`."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Trace:
    """submitted, arrivals: seconds of one clock; arrivals hold content, in order. n_out, prompt_tokens, cached_tokens: as the
    server counted them, None where it does not tell. fault: then the times count for nothing."""

    submitted: float
    arrivals: tuple[float, ...] = ()
    n_out: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    fault: Fault | None = None

    @property
    def ttft(self) -> float:
        return self.arrivals[0] - self.submitted

    @property
    def tpot(self) -> float:
        return (self.arrivals[-1] - self.arrivals[0]) / ((self.n_out or 0) - 1)

    @property
    def e2e(self) -> float:
        return self.arrivals[-1] - self.submitted

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in itertools.pairwise(self.arrivals)]


def judged(trace: Trace, asked: int) -> Trace:
    """The trace with what is wrong with it, if nothing has been found yet. asked: output tokens."""
    fault = trace.fault or _fault(trace, asked)
    return Trace(trace.submitted, trace.arrivals, trace.n_out, trace.prompt_tokens, trace.cached_tokens, fault)


def _fault(trace: Trace, asked: int) -> Fault | None:
    if trace.n_out is None or trace.prompt_tokens is None:
        return Fault("server", "the answer does not tell how many tokens it has (usage)")
    if trace.n_out < asked:
        return Fault("fewer_tokens", f"the model ended its answer after {trace.n_out} of {asked} tokens")
    if trace.n_out > asked + 1:  # some count the end besides
        return Fault("server", f"the server counts {trace.n_out} tokens where {asked} were asked")
    if not trace.arrivals:
        return Fault("empty", f"no token arrived, {trace.n_out} are counted")
    if len(trace.arrivals) == 1:
        return Fault(
            "not_streamed", f"all {trace.n_out} tokens arrived at once: the server, or a proxy, does not stream"
        )
    return None


def round_values(traces: Sequence[Trace]) -> dict[str, Number]:
    """Figures of requests sent together, none with a fault. Times in ms: medians over requests; inter-token times over all gaps.

    output_tokens_per_second: all output tokens over the time from the first submission to the last arrival.
    prompt_tokens_per_second: all prompt tokens over the time from the first submission until every request had its first token.
    """
    start = min(trace.submitted for trace in traces)
    end = max(trace.arrivals[-1] for trace in traces)
    started = max(trace.arrivals[0] for trace in traces)
    gaps = [1000 * gap for trace in traces for gap in trace.gaps]
    ttft, tpot = [1000 * t.ttft for t in traces], [1000 * t.tpot for t in traces]
    n_out, n_prompt = sum(t.n_out or 0 for t in traces), [t.prompt_tokens or 0 for t in traces]
    values: dict[str, Number] = {
        "ttft_ms": percentile(ttft, 0.5),
        "ttft_ms_max": max(ttft),
        "tpot_ms": percentile(tpot, 0.5),
        "itl_ms_median": percentile(gaps, 0.5),
        "itl_ms_p90": percentile(gaps, 0.9),
        "itl_ms_p99": percentile(gaps, 0.99),
        "e2e_ms": percentile([1000 * t.e2e for t in traces], 0.5),
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
    return values


def round_fault(traces: Sequence[Trace]) -> dict[str, str] | None:
    """What failed in a round, as a point stores it; None when nothing did. One failure makes the round one of fewer requests."""
    faults = [trace.fault for trace in traces if trace.fault is not None]
    if not faults:
        return None
    kinds = [fault.kind for fault in faults]
    first = max(faults, key=lambda fault: kinds.count(fault.kind))
    n = f"{len(faults)} of {len(traces)} requests: " if len(traces) > 1 else ""
    return {"kind": first.kind, "message": n + first.message}
