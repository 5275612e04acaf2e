"""Verdict on a law: its cases tried one by one, a deviation that is no rounding tried again on fresh prompts, and the smallest prompt
that shows it.

`broken`: beyond the limit of legal rounding (yardstick.py) on two fresh prompts at least, or where only texts come back on more of them
than rounding explains. `undecided`: once and not again, no time, or no answers. `not testable`: through this interface.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from kleval.verify.engine import Engine, OutOfTime, Unanswered, Untestable
from kleval.verify.laws import Law
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Trial
from kleval.verify.yardstick import Yardstick, yardstick

Verdict = Literal["holds", "broken", "not testable", "undecided"]
AGAIN = 4  # fresh prompts for a deviation
MOST_BROKEN = 3  # cases of a law that are broken before it is left
SHRINK_TRIES = 12
SHRINK_SECONDS = 10.0
OTHER_DTYPE = (
    4.0  # times the limit against a reference of another dtype: weights are rounded too, not only what is computed
)
LEAST_SHARE = 0.5  # of a law's cases that must have been tried for it to hold


@dataclass(slots=True)
class Finding:
    """What a law came to. worst: its largest deviation, with the yardstick it was held against. smallest: the shortest trial that
    breaks it. broken: one trial of each broken case. once: of those beyond the limit that were not so again."""

    law: Law
    verdict: Verdict = "holds"
    why: str = ""
    tried: int = 0
    planned: int = 0
    worst: Trial | None = None
    held: Yardstick = field(default_factory=lambda: Yardstick(0.0, 0.0))
    smallest: Trial | None = None
    broken: list[Trial] = field(default_factory=list)
    once: list[Trial] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    untestable: int = 0
    seconds: float = 0.0

    @property
    def cause(self) -> str:
        return self.law.cause(self.broken[0]) if self.broken else ""


@dataclass(slots=True)
class Judge:
    """harmless: trials that the yardstick is made of. n_checks: cases of all laws. say: what is tried, for progress."""

    engine: Engine
    plan: Plan
    alpha: float
    harmless: list[Trial] = field(default_factory=list)
    n_checks: int = 1
    say: Callable[[Case], None] = lambda case: None

    @property
    def numbers(self) -> bool:
        return self.engine.scores or self.engine.tells

    def measure(self, cases: Sequence[Case]) -> None:
        """Try harmless variations until the time is over."""
        for case in cases:
            try:
                self.harmless.append(self.trial(case))
            except Unanswered:
                continue
            except OutOfTime:
                return

    def trial(self, case: Case, number: int = 0) -> Trial:
        """A case on its number-th prompt."""
        self.say(case)
        rng = self.plan.rng(case.law, case.name, case.n, case.kind, number, len(self.harmless) if case.harmless else 0)
        ids = self.engine.prompt(case.n, case.kind, rng)
        return Trial(case, ids, case.measure(self.engine, ids, rng))

    def held(self, case: Case) -> Yardstick:
        if case.exact:
            return Yardstick(0.0, 0.5)
        held = yardstick(
            self.harmless, case.n, self.n_checks, self.alpha, self.engine.dtype, self.numbers, self.engine.step
        )
        other = self.engine.reference
        if case.law == "reference" and other is not None and other.dtype != self.engine.dtype:
            return replace(held, limit=held.limit * OTHER_DTYPE)
        return held

    def try_law(self, law: Law) -> Finding:
        """Its verdict. Dead where the engine gives no answers any more."""
        found, began = Finding(law), time.monotonic()
        if why := law.needs(self.engine, self.plan):
            found.verdict, found.why = "not testable", why
            return found
        cases = law.cases(self.engine, self.plan)
        found.planned = len(cases)
        try:
            for case in cases:
                self._try(case, found)
                if len(found.broken) >= MOST_BROKEN:
                    break
            if found.broken:
                self._shrink(found)
        except OutOfTime:
            pass
        found.seconds = time.monotonic() - began
        self._conclude(found)
        return found

    def _try(self, case: Case, found: Finding) -> None:
        try:
            trial = self.trial(case)
        except Unanswered as error:
            found.unanswered.append(str(error))
            found.untestable += isinstance(error, Untestable)
            return
        found.tried += 1
        held = self.held(case)
        share = trial.size / held.limit
        if found.worst is None or share > found.worst.size / found.held.limit:
            found.worst, found.held = trial, held
        if share <= 1:
            return
        again = self._again(case)
        beyond = 1 + sum(t.size > held.limit for t in again)
        if self._is_broken(beyond, 1 + len(again), held, case):
            found.broken.append(trial)
        else:
            found.once.append(trial)

    def _again(self, case: Case) -> list[Trial]:
        found = []
        for number in range(1, AGAIN + 1):
            try:
                found.append(self.trial(case, number))
            except Unanswered:
                continue
        return found

    def _is_broken(self, beyond: int, n: int, held: Yardstick, case: Case) -> bool:
        if self.numbers or case.exact:
            return beyond >= (min(2, n) if case.exact else 2)
        from scipy.special import bdtrc

        return bool(bdtrc(beyond - 1, n, min(held.flips, 0.9)) < self.alpha)

    def _shrink(self, found: Finding) -> None:
        """Shorter fresh prompts of the case that broke first, as long as they break it too: halving, then in between."""
        case, trial = found.broken[0].case, found.broken[0]
        found.smallest = trial
        limit, end = found.held.limit, time.monotonic() + SHRINK_SECONDS
        if case.exact:
            return
        low, high = 1 + len(self.engine.begin), case.n
        for number in range(SHRINK_TRIES):
            n = low + (high - low) // 2
            if n >= high or n <= low or time.monotonic() > end:
                return
            shorter = Case(case.law, case.name, n, case.measure, case.kind, case.boundary)
            try:
                tried = [self.trial(shorter, 10 + number + k) for k in (0, 100)]
            except (Unanswered, IndexError, ValueError):
                low = n
                continue
            breaking = [t for t in tried if t.size > limit]
            if breaking:
                high, found.smallest = n, breaking[0]
            else:
                low = n

    def _conclude(self, found: Finding) -> None:
        if found.broken:
            found.verdict = "broken"
            return
        if found.once:
            found.verdict = "undecided"
            found.why = f"{found.once[0].case.label}: beyond the limit once, not again on {AGAIN} other prompts"
        elif not found.tried and found.untestable:
            found.verdict, found.why = "not testable", found.unanswered[0]
        elif found.tried < LEAST_SHARE * (found.planned - found.untestable):
            found.verdict = "undecided"
            lost = found.unanswered[0] if found.unanswered else "no time was left"
            found.why = f"{found.tried} of {found.planned} cases tried: {lost}"


def finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
