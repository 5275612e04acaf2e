"""Verdict on a law: its cases tried one by one, a deviation that is no rounding tried again on fresh prompts, and the smallest prompt
that shows it.

`broken`: beyond the limit of legal rounding (yardstick.py) on two fresh prompts at least, or where only texts come back on more of them
than rounding explains; the smallest prompt is one of a length of which that holds too. `undecided`: once and not again, no time, or no
answers. `not testable`: through this interface.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from kleval.verify.engine import Engine, OutOfTime, Unanswered, Untestable
from kleval.verify.laws import Law
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Deviation, Trial
from kleval.verify.yardstick import Yardstick, yardstick

Verdict = Literal["holds", "broken", "not testable", "undecided"]
AGAIN = 4  # fresh prompts for a deviation
SPARE = (0, 1000, 1001)  # prompts of a case of which the first may leave nothing to compare
AGAIN_TEXTS = 18  # the same where only texts come back, as long as fewer do not tell
EXPECTED, ORDINARY = 0.5, 0.05  # texts that part so often by rounding alone say nothing, after a few and after all
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
    breaks it. broken: one trial of each broken case. untold: why a case beyond the limit is not among them."""

    law: Law
    verdict: Verdict = "holds"
    why: str = ""
    tried: int = 0
    planned: int = 0
    worst: Trial | None = None
    held: Yardstick = field(default_factory=lambda: Yardstick(0.0, 0.0))
    smallest: Trial | None = None
    broken: list[Trial] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    untestable: int = 0
    seconds: float = 0.0

    @property
    def cause(self) -> str:
        return self.law.cause(self.broken[0]) if self.broken else ""


class NothingToCompare(Unanswered):
    """A trial that came to no number."""


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
                break
        if self.harmless and self.numbers:
            self.engine.rounding = self.held(self.harmless[-1].case).legal

    def trial(self, case: Case, number: int = 0) -> Trial:
        """A case on its number-th prompt."""
        self.say(case)
        rng = self.plan.rng(case.law, case.name, case.n, case.kind, number, len(self.harmless) if case.harmless else 0)
        ids = self.engine.prompt(case.n, case.kind, rng)
        deviation = case.measure(self.engine, ids, rng)
        if math.isnan(deviation.size):
            raise NothingToCompare("there was nothing to compare: no tokens, or numbers that are not finite")
        return Trial(case, ids, deviation)

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
        if why := law.why_not(self.engine, self.plan):
            found.verdict, found.why = "not testable", why
            return found
        cases = law.cases(self.engine, self.plan)
        found.planned = len(cases)
        try:
            for case in cases:
                self._try(case, found)
                if len(found.broken) >= MOST_BROKEN:
                    break
            self.engine.check_alive()
            if found.broken:
                self._shrink(found)
        except OutOfTime:
            pass
        found.seconds = time.monotonic() - began
        self._conclude(found)
        return found

    def _try(self, case: Case, found: Finding) -> None:
        try:
            trial = self._comparable(case)
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
        beyond = f"{case.label}: beyond the limit"
        found.untold.append(f"{beyond}, and no time was left to try other prompts")  # unless what follows ends
        told = self._again(trial, held, 1)
        found.untold.pop()
        other = self.engine.reference
        if told and case.law == "reference" and other is not None and other.is_narrow != self.engine.is_narrow:
            # By rounding alone a token may go to another expert, and what follows is another function.
            dtypes = f"the engine computes in {self.engine.dtype}, the reference in {other.dtype}"
            found.untold.append(f"{beyond}, but {dtypes}: give one of the same (--dtype)")
        elif told:
            found.broken.append(trial)
        elif told is None:
            found.untold.append(f"{beyond} once, not often enough on other prompts")

    def _comparable(self, case: Case) -> Trial:
        """The case on its prompt, or where that leaves nothing to compare (a server that tells no ids of some answers) on another."""
        for number in SPARE:
            with contextlib.suppress(NothingToCompare):
                return self.trial(case, number)
        return self.trial(case, SPARE[-1] + 1)

    def _again(self, trial: Trial, held: Yardstick, first: int) -> bool | None:
        """Whether a case that was beyond the limit once is so on fresh prompts, from the first-th on; None where that is not told."""
        texts = trial.deviation.texts > 0 and not (self.numbers or trial.case.exact)
        found, by_chance = [trial.deviation], 0.0
        for number in range(first, first + (AGAIN_TEXTS if texts else AGAIN)):
            try:
                found.append(self.trial(trial.case, number).deviation)
            except Unanswered:
                continue
            if not texts and found[-1].size > held.limit:
                return True
            by_chance = _by_chance(found, held.flips) if texts else 0.0
            if texts and by_chance < self.alpha / max(self.n_checks, 1):
                return True
            if len(found) > AGAIN and by_chance > EXPECTED:
                return False
        return False if by_chance > ORDINARY else None

    def _shrink(self, found: Finding) -> None:
        """Shorter fresh prompts of the case that broke first, as long as they break it too: halving, then in between."""
        case, found.smallest = found.broken[0].case, found.broken[0]
        end = time.monotonic() + SHRINK_SECONDS
        if case.exact:
            return
        low, high = 1 + len(self.engine.begin), case.n
        for number in range(SHRINK_TRIES):
            n = low + (high - low) // 2
            if n >= high or n <= low or time.monotonic() > end:
                return
            shorter, held = replace(case, n=n), self.held(replace(case, n=n))
            try:
                tried = (self.trial(shorter, at) for at in (100 * number + 100, 100 * number + 101))
                trial = next((t for t in tried if t.size > held.limit), None)
                breaks = trial is not None and self._again(trial, held, 100 * number + 102)
            except (Unanswered, IndexError, ValueError):
                breaks = False
            if breaks:
                high, found.smallest = n, trial
            else:
                low = n

    def _conclude(self, found: Finding) -> None:
        if found.broken:
            found.verdict = "broken"
            return
        if found.untold:
            found.verdict, found.why = "undecided", found.untold[0]
        elif not found.tried and found.untestable:
            found.verdict, found.why = "not testable", found.unanswered[0]
        elif found.tried < LEAST_SHARE * (found.planned - found.untestable):
            found.verdict = "undecided"
            lost = found.unanswered[0] if found.unanswered else "no time was left"
            found.why = f"{found.tried} of {found.planned} cases tried: {lost}"


def _by_chance(found: Sequence[Deviation], flips: float) -> float:
    """The probability, at most, that in so many trials or more rounding alone makes one pair of texts part, or all of them: pairs of a
    trial have a text in common, so that all part at most as often as one does."""
    from scipy.special import bdtrc

    one = sum(each.parted > 0 for each in found)
    every = sum(each.parted == each.texts for each in found)
    of_one = 1 - (1 - flips) ** max(each.texts for each in found)
    return min(1.0, 2 * float(min(bdtrc(one - 1, len(found), of_one), bdtrc(every - 1, len(found), flips))))


def finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
