"""Prefix reuse of a served model: what a prompt takes whose beginning was sent before, against one that is new.

A round has five requests of one length, one after the other: a new prompt A (cold), B that begins as A does, a new A', a new C of
another conversation, and B' that begins as A'. The share that B has of A is the round's. A sixth is a new prompt as long as what is
shared, unless all of it is. `reuse` is (cold - warm TTFT) / TTFT of that one: 1 where the shared part costs nothing, 0 where it is
computed anew, at any length: with attention the first half of a prompt is far less than half of its work. For a share of 0 it is not
defined; such a round shows what two new prompts differ by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from kleval.profiler.points import Outcome, Values
from kleval.profiler.served.figures import caller_values, round_failure, tpot, ttft
from kleval.store import Point
from kleval.text import format_length, percent, plural
from kleval.types import Failure, Request, Trace

WORKS = 0.5  # of the shared part's time saved: in between some of it is, at block sizes or for some layers
Ask = Callable[[Request, float], tuple[Trace, Failure | None]]  # of a share of the round's length
Make = Callable[[Request | None, float], Request]  # a new prompt, or one that begins as another; the same


def reuse_round(share: float, ask: Ask, make: Make) -> Outcome:
    """One point."""
    traces: list[Trace] = []
    failures: list[Failure | None] = []

    def send(beginning: Request | None, of: float = 1.0) -> Request:
        request = make(beginning if share else None, of)
        trace, failure = ask(request, of)
        traces.append(trace)
        failures.append(failure)
        return request

    send(send(None))
    first = send(None)
    send(None)
    send(first)
    if 0 < share < 1:
        send(None, share)
    failure = round_failure(failures)
    if failure is not None:
        return Outcome({}, failure=failure)
    warm, between, new = traces[1], traces[4], (traces[0], traces[2], traces[3])
    cold_ms = 1000 * median(ttft(trace) for trace in new)
    values: Values = {
        "ttft_ms": 1000 * ttft(warm),
        "cold_ttft_ms": cold_ms,
        "between_ttft_ms": 1000 * ttft(between),
        "tpot_ms": 1000 * tpot(warm)[0],
        "requests": len(traces),
        "prompt_tokens": warm.prompt_tokens,
        "output_tokens": sum(trace.output_tokens or 0 for trace in traces),
        "tokens_per_arrival": (warm.output_tokens or 0) / len(warm.arrivals),
    }
    if share:
        shared_ms = 1000 * ttft(traces[5]) if share < 1 else cold_ms
        values["shared_ttft_ms"] = shared_ms
        values["reuse"] = (cold_ms - 1000 * ttft(warm)) / shared_ms
        values["between_reuse"] = (cold_ms - 1000 * ttft(between)) / shared_ms
    told = {"reused_tokens": warm, "between_reused_tokens": between}
    values |= {name: trace.cached_tokens for name, trace in told.items() if trace.cached_tokens is not None}
    cached = [trace.cached_tokens for trace in new if trace.cached_tokens is not None]
    if len(cached) == len(new):
        values["cached_tokens"] = sum(cached)
    return Outcome(values | caller_values(traces, values), estimate=tpot(warm)[1])


def not_cold(points: Iterable[Point]) -> list[str]:
    """That a server took tokens of new prompts from its cache, where it says so."""
    found = [p for p in points if p.protocol.startswith("reuse-") and p.values.get("cached_tokens")]
    if not found:
        return []
    cached, sent = (
        sum(p.values["cached_tokens"] or 0 for p in found),
        sum(3 * (p.values["prompt_tokens"] or 0) for p in found),
    )
    return [
        f"Not cold: {cached:,.0f} of {sent:,.0f} tokens of new prompts came from the server's cache, as it says, though nobody sent "
        f"them before ({plural(len(found), 'round')}): TTFT of a new prompt is too short, and so is what reuse saves."
    ]


def verdicts(points: Iterable[Point]) -> list[str]:
    """One sentence per share above 0: whether what was sent before is used again, by length."""
    found: dict[float, dict[int, list[Point]]] = {}
    for point in points:
        if point.protocol.startswith("reuse-") and not point.failed and point.values.get("reuse") is not None:
            share = float(point.protocol.removeprefix("reuse-"))
            found.setdefault(share, {}).setdefault(point.ctx, []).append(point)
    said = []
    for share, by_length in sorted(found.items()):
        for name, when in (("reuse", "at once"), ("between_reuse", "after another conversation in between")):
            saved = {ctx: median(p.values[name] or 0.0 for p in of) for ctx, of in sorted(by_length.items())}
            shown = ", ".join(f"{format_length(ctx)} {percent(max(value, 0))}" for ctx, value in saved.items())
            said.append(
                f"Prefix reuse, {percent(share)} of the prompt sent before, {when}: {verdict(list(saved), list(saved.values()))}"
                f" (of the shared part's time saved: {shown})."
            )
    return said


def verdict(ctxs: Sequence[int], saved: Sequence[float]) -> str:
    """works, works up to a length, works from a length, works at some lengths, does nothing. ctxs: rising."""
    good = [value >= WORKS for value in saved]
    if all(good):
        return "works"
    if not any(good):
        return "does nothing" if max(saved, default=math.nan) < 1 - WORKS else "saves less than half of it"
    if good == sorted(good, reverse=True):
        return f"works up to {format_length(ctxs[good.index(False) - 1])}, not beyond"
    if good == sorted(good):
        return f"works from {format_length(ctxs[good.index(True)])} on, not below"
    return "works at some lengths only"
