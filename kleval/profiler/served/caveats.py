"""Caveats of a served profile: sentences that a reader must know before believing its figures, told from its points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from kleval.profiler.served.figures import LATE_SHARE
from kleval.profiler.served.load import DRIFTED, counted_requests, drifts
from kleval.profiler.served.reuse import not_cold, verdicts
from kleval.store import Point
from kleval.text import number, plural

SEVERAL_TOKENS = 1.05  # tokens per arrival from which on inter-token times are those of groups
LENGTH_NOTE = 0.01
SLOWER = 0.95  # of the rate asked for, below which it was not kept
PASSES = 3  # times of a request within which those of a round at a rate were sent, below which the load was still building up
LATE_STEPS = 0.1  # of the 99th percentile of the times between tokens, from which on that may be this machine's
STALLED = 1.5  # times TPOT from which on the prefill of neighbours is said to stall


def caveats(points: Iterable[Point]) -> list[str]:
    """One sentence each."""
    good = [point for point in points if not point.failed]
    if not good:
        return []
    where = (
        "in this process, without a server"
        if "server" not in good[0].settings
        else "at the caller: network, scheduling, tokenizing and sampling are in them"
    )
    of_tasks = "tasks" in good[0].settings
    prompts = "prompts are the tasks' samples" if of_tasks else "each request has a prompt of its own"
    found = [f"Times are taken {where}; {prompts}."]
    found += dict.fromkeys(point.settings["caveat"] for point in good if "caveat" in point.settings)
    limited = [point for point in good if point.values.get("client_limited")]
    if limited:
        found.append(
            f"Limited by the client: in {len(limited)} of {len(good)} rounds this machine noted arrivals later than "
            f"{LATE_SHARE:.0%} of TTFT or TPOT, or sent requests later than {LATE_SHARE:.0%} of E2E. Those are no figures of the "
            "server, and no gate takes them: measure on a quieter machine, or fewer requests together."
        )
    slower = [
        p
        for p in limited
        if (rate := p.values.get("rate")) and (p.values.get("requests_per_second") or 0) < SLOWER * rate
    ]
    for rate in dict.fromkeys(point.values["rate"] for point in slower):
        sent = max(p.values.get("requests_per_second") or 0 for p in slower if p.values["rate"] == rate)
        found.append(f"This machine could not send {number(rate)} requests per second: it sent {number(sent)}.")
    found += [*_read_late(good), *_short(good), *_drifts(good)]
    found += [*not_cold(good), *verdicts(good)]
    new = [point for point in good if not point.protocol.startswith("reuse-")]
    cached = sum(point.values.get("cached_tokens") or 0 for point in new)
    sent = sum((p.values["prompt_tokens"] or 0) * (p.values["requests"] or 0) for p in new)
    if cached:
        why = (
            "which a task's prompts share or where its data began again"
            if of_tasks
            else "though no prompt was sent twice"
        )
        found.append(
            f"Cached prompts: {cached:,.0f} of {sent:,.0f} prompt tokens came from the server's prefix cache, {why}; TTFT is too "
            "short by what they save."
        )
    if any("cached_tokens" not in point.values for point in good):
        twice = "; no prompt was sent twice" if len(new) == len(good) and not of_tasks else ""
        found.append(f"The server does not tell how many prompt tokens came from its cache{twice}.")
    most = max(point.values["tokens_per_arrival"] or 0 for point in good)
    if most > SEVERAL_TOKENS:
        found.append(
            f"Several tokens arrive together (up to {most:.2f} on average): TPOT counts tokens as the server's usage does, times "
            "between tokens are times between arrivals."
        )
    if any(point.estimate for point in good):
        found.append(
            "TPOT is an estimate: how many tokens the pieces of an answer held is not told, one in the first is assumed."
        )
    if any(point.values.get("common_steps") == 0 for point in good):
        found.append("Requests sent together did not decode together in some rounds: their TPOT is that of each alone.")
    waits = [
        (p.values["stalled_tpot_ms"] or 0) / (p.values["tpot_ms"] or 1) for p in good if "stalled_tpot_ms" in p.values
    ]
    if waits and max(waits) > STALLED:
        found.append(
            f"Prefill of a request stalls the decoding of its neighbours: a token takes up to {max(waits):.1f} times as long "
            "meanwhile (stalled_tpot_ms). TPOT is of the steps in which all decode."
        )
    if of_tasks:
        return found
    off = max(abs((point.values["prompt_tokens"] or 0) / point.ctx - 1) for point in good)
    sent_as = "" if good[0].settings.get("prompts") == "token ids" else "were sent as text and "
    if off > LENGTH_NOTE:
        found.append(f"Prompts {sent_as}are up to {off:.1%} off the length asked for; the server's count is beside it.")
    if not good[0].settings.get("ignore_eos"):
        found.append("The server does not take ignore_eos: a round in which an answer ended early is a failure.")
    return found


def _read_late(good: Sequence[Point]) -> list[str]:
    """Of rounds of which this machine read now and then what had come long before: too rarely for TTFT and TPOT to be its own."""
    late = [
        most
        for point in good
        if (most := point.values.get("late_ms_p99") or 0.0) > LATE_STEPS * (point.values.get("itl_ms_p99") or math.inf)
        and not point.values.get("client_limited")
    ]
    if not late:
        return []
    return [
        f"Read late: in {len(late)} of {plural(len(good), 'round')} this machine noted one arrival in a hundred up to "
        f"{number(max(late))} ms late. The 99th percentile of times between tokens, and tokens that arrive together, may be its own."
    ]


def _short(good: Sequence[Point]) -> list[str]:
    """Of rounds at a rate that were over before the load was there."""
    wanted = []
    at_rates = [point.values for point in good if point.values.get("rate") and point.values.get("requests_per_second")]
    for values in at_rates:
        n, under_way = values["requests"] or 0, (values["requests_per_second"] or 0) * (values["e2e_ms"] or 0) / 1000
        if n - 1 < PASSES * under_way and n < (more := counted_requests(None, under_way)):
            wanted.append(more)
    if not wanted:
        return []
    return [
        f"Short: in {len(wanted)} of {plural(len(at_rates), 'round')} at a rate all requests were sent within {PASSES} times what one "
        f"took (E2E), so that the load was still building up for many: ask for more, --requests {max(wanted)}."
    ]


def _drifts(good: Sequence[Point]) -> list[str]:
    """Of rounds under load whose last requests were slower than the first."""
    under_load = [point for point in good if "request_tpot_ms" in point.values]
    most = {
        what: max((point.values.get(f"{what.lower()}_drift") or 0.0 for point in under_load), default=0.0)
        for what in ("TTFT", "TPOT")
    }
    n = sum(drifts(point.values) for point in under_load)
    if not n:
        return []
    told = " and ".join(f"{value:.1f} times the {what}" for what, value in most.items() if value > DRIFTED)
    return [
        f"Slower at the end: in {n} of {plural(len(under_load), 'round')} under load the last third of the requests had up to {told} "
        "of the first. Requests pile up at such a load, or the server became slower meanwhile: its percentiles are of no steady state."
    ]
