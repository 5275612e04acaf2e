"""Gate: conditions judged on runs and profiles, against others where they say so.

A condition fails when the whole 95 % interval is beyond its number, passes when none of it is, and is undecided between, with the n
that would decide (with 80 % power, if the value stays where it is). A difference of scores fails only where the paired test agrees
(`kleval.tables.paired`), and fails or passes only where it does at both bounds that uneven failures leave (`kleval.tables.compare`).
Times take three alternating sessions per side on one hardware (`kleval.tables.compare_times`). No failure and no cut answer at all
is a pass, however few answers there are.

Over several conditions a fail has to hold after Holm's correction; all must pass for the gate to pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from kleval.tables import compare_times
from kleval.tables.cells import Cell, mover
from kleval.tables.compare import UNEVEN, Line, Side, comparable, labels, line
from kleval.tables.compare_times import Estimate, Timed
from kleval.tables.conditions import ALL, SHARES, TIMES, Condition
from kleval.tables.groups import Place
from kleval.tables.intervals import wilson
from kleval.tables.paired import ALPHA, MOST, Z_ALPHA, Z_POWER, holm
from kleval.text import format_length
from kleval.types import UsageError

FAIL, PASS, UNDECIDED = "fail", "pass", "undecided"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A condition on one model. value, low, high: as its number is: shares of 1, ratios, or the metric's unit.

    n: samples, answers, pairs or sessions (per side) that it rests on; needed: how many would decide, None where it is decided;
    why: what stands in the way besides n. p: two-sided, of the value being the number; 1 where the value does not break the condition.
    remarks: what differs from the base and what of it is not compared.
    """

    condition: Condition
    of: str
    value: float
    low: float
    high: float
    n: int
    verdict: str
    p: float = 1.0
    p_holm: float = 1.0
    needed: int | None = None
    unit: str = "answers"
    why: str = ""
    remarks: tuple[str, ...] = ()


def corrected(found: Sequence[Judgement]) -> list[Judgement]:
    """With Holm's p, and what fails no longer as undecided."""
    judged = []
    for one, p in zip(found, holm([one.p for one in found]), strict=True):
        if one.verdict == FAIL and p > ALPHA:
            one = replace(one, verdict=UNDECIDED, why=f"not after Holm's correction for {len(found)} conditions")
        judged.append(replace(one, p_holm=p))
    return judged


def overall(found: Sequence[Judgement]) -> str:
    verdicts = [one.verdict for one in found]
    return FAIL if FAIL in verdicts else UNDECIDED if UNDECIDED in verdicts else PASS


def judge_run(condition: Condition, run: Side, base: Side | None) -> Judgement | None:
    """Of a score or a share; None where the run does not have the metric. A run that is not at its end passes nothing."""
    found, status = _judge(condition, run, base), run.entrant.run.status
    if found is not None and found.verdict == PASS and status in ("running", "interrupted"):
        return replace(found, verdict=UNDECIDED, why=f"the run is {status}: its command continues it")
    return found


def _judge(condition: Condition, run: Side, base: Side | None) -> Judgement | None:
    cells = [cell for place, cell in run.entrant.cells.items() if _is_in(condition, run, place)]
    if condition.is_share:
        measured = run.entrant.gains.cells if run.entrant.gains else {}
        cells += [cell for place, cell in measured.items() if _is_in(condition, run, place)]
        return _share(condition, run, cells)
    if not any(cell.n_total for cell in cells):
        return None
    if not condition.against:
        return _level(condition, run, [cell for cell in cells if not math.isnan(cell.value)])
    if base is None:
        raise UsageError(f"'{condition.text}' is a difference: give what to compare with, --against BASE")
    every, refused, unpaired = comparable(base, run)
    places = [place for place in every if _is_in(condition, run, place)]
    found = line(base, run, condition.metric, condition.ctx, places)
    if found is None:
        why = "; ".join([*refused, *unpaired]) or "nothing of it was asked of both"
        raise UsageError(f"'{condition.text}': {base.label} and {run.label} have no common samples of it: {why}")
    remarks = (*refused, *unpaired, *labels(base.entrant, run.entrant))
    return replace(judge_line(condition, f"{run.label} against {base.label}", found), remarks=remarks)


def judge_line(condition: Condition, of: str, found: Line) -> Judgement:
    """Of a paired difference, at both bounds where failures or cut answers are uneven."""
    verdicts, ps = set(), []
    for contrast in (found.contrast, *found.bounds):
        d = contrast.difference
        p = max(_p(condition, d.value, d.low, d.high), contrast.p)
        verdict = condition.verdict(d.low, d.high)
        verdicts.add(UNDECIDED if verdict == FAIL and p > ALPHA else verdict)
        ps.append(p)
    d = found.contrast.difference
    verdict = verdicts.pop() if len(verdicts) == 1 else UNDECIDED
    return Judgement(
        condition=condition,
        of=of,
        value=d.value,
        low=d.low,
        high=d.high,
        n=d.n,
        verdict=verdict,
        p=max(ps),
        needed=found.contrast.needed(d.value - condition.number) if verdict == UNDECIDED else None,
        unit="pairs",
        why="failed or cut answers differ: not so at both bounds" if found.bounds and verdict == UNDECIDED else "",
    )


def judge_times(condition: Condition, run: Timed, base: Timed | None) -> Judgement | None:
    """Of a time or of bytes; None where the profile does not have the metric."""
    if condition.against and base is None:
        raise UsageError(f"'{condition.text}' is a ratio: give what to compare with, --against BASE")
    places = _time_places(condition, run, base if condition.against else None)
    if not places:
        return None
    if condition.against:
        assert base is not None
        compared = compare_times.time_line(base, run, places)
        estimate, n, why, threshold = compared.ratio, min(compared.sessions), compared.undecided, 1 + condition.number
    else:
        (estimate, n, why), threshold = compare_times.level(run, places), condition.number
    if threshold <= 0:
        raise UsageError(f"'{condition.text}': a time is never that small")
    low, high = estimate.limits()
    verdict = UNDECIDED if why else condition.verdict(low, high)
    return Judgement(
        condition=condition,
        of=run.model if base is None or base.model == run.model else f"{run.model} against {base.model}",
        value=estimate.value,
        low=low,
        high=high,
        n=n,
        verdict=verdict,
        p=1.0 if why or not condition.breaks(estimate.value) else estimate.p(threshold),
        needed=_sessions(estimate, math.log(threshold), n) if verdict == UNDECIDED else None,
        unit="sessions",
        why=why,
        remarks=tuple(compare_times.labels(base, run) if base is not None else compare_times.limits([run])),
    )


def rows(found: Sequence[Judgement]) -> list[dict[str, Any]]:
    """One dict per judgement; scores, differences and shares x 100, ratios and times as they are."""
    return [
        {
            "condition": one.condition.text,
            "of": one.of,
            **{
                name: _finite(getattr(one, name) * (1 if one.condition.is_time else 100))
                for name in ("value", "low", "high")
            },
            "n": one.n,
            "unit": one.unit,
            "p": one.p,
            "p_holm": one.p_holm,
            "needed": one.needed,
            "verdict": one.verdict,
            "why": one.why,
        }
        for one in found
    ]


def _is_in(condition: Condition, run: Side, place: Place) -> bool:
    task, ctx = place
    group = run.entrant.run.groups.get(condition.metric, ())
    named = condition.metric in (ALL, task, *SHARES) or task.startswith(f"{condition.metric}/") or task in group
    return named and condition.ctx in (None, ctx)


def _share(condition: Condition, run: Side, cells: Sequence[Cell]) -> Judgement | None:
    if condition.metric == "failures":
        k, n = sum(cell.n_failed for cell in cells), sum(cell.n_total for cell in cells)
    else:
        k, n = sum(cell.n_cut + cell.n_reasoning_cut for cell in cells), sum(cell.n_texts for cell in cells)
    if not n:
        return None
    low, high = wilson(k, n)
    verdict = condition.verdict(low, high)
    if k == 0 and condition.op == ">":
        return Judgement(condition, run.label, 0.0, low, high, n, PASS)
    return _judged(condition, run.label, k / n, low, high, n, verdict)


def _level(condition: Condition, run: Side, cells: Sequence[Cell]) -> Judgement:
    """Where more than UNEVEN of the answers failed, the interval moves to both bounds of the score."""
    if not cells:
        raise UsageError(f"'{condition.text}': every answer of {run.label} failed or has no score")
    by_size = condition.metric in run.entrant.run.groups
    weights = [cell.n_samples if by_size else 1 for cell in cells]
    found, n = mover(cells, weights, run.again), sum(cell.n_samples for cell in cells)
    verdicts = {condition.verdict(found.low, found.high)}
    total = sum(cell.n_total for cell in cells)
    if sum(cell.n_failed for cell in cells) > UNEVEN * total:
        for name in ("bound_low", "bound_high"):
            moved = (
                math.fsum(w * getattr(cell, name) for w, cell in zip(weights, cells, strict=True)) / math.fsum(weights)
                - found.mean
            )
            verdicts.add(condition.verdict(found.low + moved, found.high + moved))
    judged = _judged(condition, run.label, found.mean, found.low, found.high, n, verdicts.pop())
    judged = replace(judged, unit="samples")  # repeats of one are no further ones
    if not verdicts:
        return judged
    return replace(judged, verdict=UNDECIDED, why="failed answers could turn it: not so at both bounds")


def _judged(condition: Condition, of: str, value: float, low: float, high: float, n: int, verdict: str) -> Judgement:
    gap = abs(value - condition.number)
    side = value - low if condition.number < value else high - value
    needed = None
    if verdict == UNDECIDED:
        needed = min(MOST, math.ceil(n * ((Z_ALPHA + Z_POWER) / Z_ALPHA * side / gap) ** 2)) if gap > 1e-6 else MOST
    return Judgement(condition, of, value, low, high, n, verdict, _p(condition, value, low, high), needed=needed)


def _p(condition: Condition, value: float, low: float, high: float) -> float:
    """The side of the interval that faces the number is Z_ALPHA standard errors long."""
    if not condition.breaks(value):
        return 1.0
    side = value - low if condition.number < value else high - value
    return 2 * NormalDist().cdf(-Z_ALPHA * abs(value - condition.number) / side) if side > 0 else 0.0


def _sessions(estimate: Estimate, threshold: float, n: int) -> int:
    return max(compare_times.MIN_SESSIONS, estimate.needed(estimate.log - threshold, n) if n > 1 else 0)


def _time_places(condition: Condition, run: Timed, base: Timed | None) -> list[compare_times.Place]:
    """At batch 1 or concurrency 1, whole prompts before sampled ones, unless the condition names a protocol."""
    name, _, protocol = condition.metric.partition("/")
    held = {place for session in run.sessions.values() for place in session}
    if base is not None:
        held &= {place for session in base.sessions.values() for place in session}
    wanted = {protocol} if protocol else {"batch-1", "concurrency-1", "full", "state"}
    fits = [p for p in held if TIMES[name].get(p[0]) == p[3] and condition.ctx in (None, p[2])]
    found = [place for place in fits if place[1] in wanted] or [p for p in fits if p[1] == "sampled" and not protocol]
    return sorted(found)


def known(runs: Sequence[Side], profiles: Sequence[Timed]) -> Iterator[str]:
    """What conditions can name, for an error."""
    yield from sorted({task.split("/", 1)[0] for side in runs for task, _ in side.entrant.cells})
    yield from sorted({format_length(ctx) for side in runs for _, ctx in side.entrant.cells})
    if any(side.entrant.gains for side in runs):
        yield "failures and cut (gains, in nats per token, are for kleval compare)"
    values = {place[3] for side in profiles for session in side.sessions.values() for place in session}
    yield from (name for name, of in TIMES.items() if values & set(of.values()))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
