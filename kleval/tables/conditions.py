"""Conditions of a gate, read from text: `metric[@length] op number`, several by commas. Each says what must not be.

- metric: a task, a family or group of tasks (`ruler`, `ruler/vt`) or `all`, in points of 100; `failures`, `cut`, shares of the
  answers in `%`; `tpot`, `ttft` (ms), `prefill` (s), `state` (bytes) of a profile, at batch 1 or concurrency 1 unless a protocol
  follows (`tpot/largest-batch`, `tpot/concurrency-8`).
- @length: `ruler@128k`; without it, over all lengths.
- op: `<` or `>`.
- number: with a sign, against --against: points of scores (`ruler < -2`), `%` of times and bytes (`tpot@64k > +10%`). Without one,
  the value itself (`ruler@128k < 60`, `tpot > 30`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kleval.types import UsageError

ALL = "all"
SHARES = ("failures", "cut")
TIMES = {
    "tpot": {"decode": "ms_per_token", "served": "tpot_ms"},
    "ttft": {"served": "ttft_ms"},
    "prefill": {"prefill": "seconds"},
    "state": {"memory": "state_bytes"},
}
DEFAULTS = ("failures > 1%", "cut > 1%")
GRAMMAR = "write metric[@length] < or > number, like ruler < -2, ruler@128k < 60, tpot@64k > +10% or failures > 1%"
_CONDITION = re.compile(r"([\w./-]+)(?:@(\w+))?\s*([<>])\s*([+-]?)(\d+(?:\.\d+)?)\s*(%?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Condition:
    """number: a share of 1 for scores (differences too), shares and times against another, else in the metric's unit. against:
    whether it is a difference or ratio to the base."""

    text: str
    metric: str
    ctx: int | None
    op: str
    number: float
    against: bool

    @property
    def is_time(self) -> bool:
        return self.metric.split("/", 1)[0] in TIMES

    @property
    def is_share(self) -> bool:
        return self.metric in SHARES

    @property
    def threshold(self) -> float:
        """As the value is: for times against another a ratio."""
        return 1 + self.number if self.is_time and self.against else self.number

    def breaks(self, value: float) -> bool:
        return value < self.threshold if self.op == "<" else value > self.threshold

    def verdict(self, low: float, high: float) -> str:
        """Of one interval: `fail` where all of it is beyond the number, `pass` where none of it is, else `undecided`."""
        ends = [self.breaks(low), self.breaks(high)]
        return "fail" if all(ends) else "undecided" if any(ends) or math.isnan(low) else "pass"


def conditions(texts: Sequence[str]) -> list[Condition]:
    """Of what --fail-on says. UsageError for what does not follow the grammar."""
    return [_condition(part) for text in texts for part in text.split(",") if part.strip()]


def defaults(given: Sequence[Condition]) -> list[Condition]:
    """DEFAULTS, but for metrics that are given."""
    named = {one.metric for one in given}
    return [one for one in map(_condition, DEFAULTS) if one.metric not in named]


def _condition(text: str) -> Condition:
    from kleval.lengths import parse_length

    text = " ".join(text.replace("\u2212", "-").split())
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is no condition: {GRAMMAR}")
    metric, length, op, sign, digits, percent = match.groups()
    found = Condition(text, metric, parse_length(length) if length else None, op, 0.0, bool(sign))
    if found.is_share and (sign or not percent):
        raise UsageError(f"'{text}': {metric} are a share of the answers, like {metric} > 1%")
    if found.is_time and bool(sign) != bool(percent):
        raise UsageError(
            f"'{text}': {metric} against --against takes a sign and %, like {metric} > +10%; its value neither"
        )
    if percent and not (found.is_share or found.is_time):
        raise UsageError(f"'{text}': scores are in points of 100, like {metric} < -2")
    scale = 1.0 if found.is_time and not sign else 100.0
    number = (-1 if sign == "-" else 1) * float(digits) / scale
    return Condition(text, metric, found.ctx, op, number, bool(sign))
