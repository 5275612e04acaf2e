"""Rounds under load: requests at a rate, a number held under way, and the search for the highest rate that holds an SLO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from kleval.backends.timing import generator
from kleval.profiler.points import Outcome, PlannedPoint, Values
from kleval.profiler.served.figures import LATE_SHARE, e2e, has_tpot, round_failure
from kleval.profiler.served.load import (
    TOLERATED_FAILURES,
    best_rate,
    counted_requests,
    drifts,
    load_values,
    send_times,
)
from kleval.profiler.served.slo import Slo, parse_slo
from kleval.profiler.served.spec import ServedSpec
from kleval.text import number
from kleval.types import Failure, Trace

# traces, what is wrong with each (or with all, where none was sent), and further values of the round
Sent = tuple[list[Trace], list[Failure | None], Values]
# label, seconds from the begin of the round at which requests are sent, how many may be under way
Send = Callable[[str, Sequence[float], int | None], Sent]
Alone = Callable[[], Sent]  # requests like those of the rounds, one after the other


def load_round(planned: PlannedPoint, spec: ServedSpec, send: Send, alone: Alone) -> Outcome:
    """One point. How long a request takes while no other is under way is asked for where a round's length or the first rate follows
    from it; where that fails, so has the round."""
    slo, seconds = parse_slo(spec.slo) if spec.slo else None, 0.0
    if planned.batch:
        n = counted_requests(spec.requests, planned.batch)
        return _outcome(send(str(planned.repeat), [0.0] * (n + planned.batch), planned.batch), slo, planned.batch)
    if planned.protocol == "best-rate" or spec.requests is None:
        sent = alone()
        if not (each := alone_seconds(sent)):
            why = {"kind": "empty", "message": "no answer to a request alone has a token: too few for a figure"}
            return Outcome({}, failure=round_failure(sent[1]) or why)
        seconds = fmean(each)
    if planned.protocol == "best-rate":
        assert slo is not None  # as the spec's check has it
        return _best(planned, spec, send, seconds, slo)
    rate = float(planned.protocol.removeprefix("rate-"))
    return at_rate(rate, str(planned.repeat), spec, send, slo, counted_requests(spec.requests, rate * seconds))


def alone_seconds(sent: Sent) -> list[float]:
    """Of each request that did not fail and has a token."""
    return [e2e(trace) for trace, failure in zip(*sent[:2], strict=False) if failure is None and trace.arrivals]


def at_rate(rate: float, label: str, spec: ServedSpec, send: Send, slo: Slo | None, n: int) -> Outcome:
    """n requests that come by themselves. client_limited too where they could not be sent at the rate."""
    delays = send_times(rate, n, generator(spec.seed, "rate", rate, label))
    sent = send(label, delays, None)
    outcome = _outcome(sent, slo, 0)
    moments = [trace.submitted for trace in sent[0] if trace.submitted]
    took = max(moments) - min(moments) if moments else 0.0
    kept = took <= (1 + LATE_SHARE) * delays[max(len(moments) - 1, 0)]
    if outcome.failure is None:
        return Outcome(
            {**outcome.values, "rate": rate, **({} if kept else {"client_limited": 1})}, estimate=outcome.estimate
        )
    if not kept and outcome.failure["kind"] == "not_streamed":  # read too late to be told apart
        sent_at = number((len(moments) - 1) / took)
        why = f"this machine could not send {number(rate)} requests per second, it sent {sent_at}: ask for fewer"
        return Outcome({}, failure={"kind": "client", "message": why})
    return outcome


def _outcome(sent: Sent, slo: Slo | None, skip: int) -> Outcome:
    """A point, failed where more requests failed than may. Answers without a token (which a task scores) have no times."""
    traces, failures, more = sent
    if not traces:
        return Outcome({}, failure=round_failure(failures))
    whole = [trace for trace, failure in zip(traces, failures, strict=True) if failure is None]
    good = [trace for trace in whole if trace.arrivals]
    failed = len(traces) - len(whole)
    if failed > TOLERATED_FAILURES * len(traces):
        return Outcome({}, failure=round_failure(failures))
    if len(good) < skip + 2:
        why = f"{len(good)} of {len(traces)} answers have a token: too few for a figure"
        return Outcome({}, failure={"kind": "empty", "message": why})
    if not any(map(has_tpot, good[skip:])):
        why = "no answer has two tokens, so there is no time per token: ask a task with longer answers"
        return Outcome({}, failure={"kind": "fewer_tokens", "message": why})
    values, estimate = load_values(good, failed, slo, skip)
    if len(good) < len(whole):
        values["empty_answers"] = len(whole) - len(good)
    return Outcome(values | more, estimate=estimate)


def _best(planned: PlannedPoint, spec: ServedSpec, send: Send, alone: float, slo: Slo) -> Outcome:
    """The round at the highest rate that holds; best_rate_above: the lowest tried that does not. alone: seconds of one request.

    A queue that grows keeps to the SLO until it is long enough. So where the last requests were slower than the first the round is
    asked once more with four times as many, as far as that is not for the user to say; a rate that still drifts is not held.
    """
    rounds: dict[float, Outcome] = {}

    def holds(outcome: Outcome) -> bool:
        return outcome.failure is None and (outcome.values["slo_share"] or 0) >= slo.share

    def probe(rate: float) -> tuple[bool, bool]:
        n, label = counted_requests(spec.requests, rate * alone), f"{planned.repeat}-{rate:g}"
        outcome, more = at_rate(rate, label, spec, send, slo, n), counted_requests(spec.requests, n)
        if holds(outcome) and drifts(outcome.values) and more > n:
            outcome = at_rate(rate, f"{label}-{more}", spec, send, slo, more)
        rounds[rate] = outcome
        held = holds(outcome) and not drifts(outcome.values)
        by_client = outcome.values.get("client_limited") or (outcome.failure or {}).get("kind") == "client"
        return held, not by_client

    low, high = best_rate(probe, 1 / alone)
    probes = [
        {
            "rate": rate,
            "slo_share": one.values.get("slo_share"),
            "requests": one.values.get("requests"),
            "client_limited": bool(one.values.get("client_limited")),
            "failure": (one.failure or {}).get("message"),
        }
        for rate, one in rounds.items()
    ]
    if not low:
        lowest, failed = min(rounds), rounds[min(rounds)]
        why = {"kind": "slo", "message": f"not even {lowest:.3g} requests per second hold {spec.slo}"}
        if failed.values.get("client_limited") and (failed.values["slo_share"] or 0) >= slo.share:
            why = {
                "kind": "client",
                "message": f"limited by the client even at {lowest:.3g} requests per second: use a quieter machine",
            }
        elif drifts(failed.values):
            why["message"] = f"requests pile up even at {lowest:.3g} requests per second"
        return Outcome({}, settings={"probes": probes}, failure=failed.failure or why)
    above: Values = {"best_rate": low, "best_rate_above": high if math.isfinite(high) else None}
    best = rounds[low]
    return Outcome({**best.values, **above}, estimate=best.estimate, settings={"probes": probes})
