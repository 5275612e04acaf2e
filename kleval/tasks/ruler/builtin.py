"""Builtin questions of RULER, made one by one: no downloads, no shared random state, ends by construction.

Each sample draws from a state of its own (sha256 over task, version, edition, ctx, seed and index), shuffles included,
so that answers lie at other places in other samples. Its size is the largest that fits: the question at a size is a
function of state and size, so the search evaluates it at a few sizes between a bound that fits and one that does not.
The first guess comes from a probe question that is the same for all samples of a task, tokenizer and ctx.

Budget: the longest reference among PROBES probe questions, as a model would write it (all answers of a multi-answer
task), × 1.5 + 16 tokens; more for a sample whose own reference is longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kleval.tasks.draws import own_draws
from kleval.tasks.fitting import budget_for
from kleval.tasks.ruler.official import DoesNotFit, Drafter, Fitted, Measure
from kleval.tasks.ruler.spec import Draft

PROBES = 32
_SECANT_ROUNDS = 6
_WIDEN = 8


@dataclass(frozen=True, slots=True)
class Source:
    """How one task's samples are made at one ctx.

    draft_for: index -> what drafts that sample at a size. least: the smallest size. written: answers as a model writes
    them. key: what the random state of a sample is derived from, before its index.
    """

    draft_for: Callable[[int], Drafter]
    least: int
    written: Callable[[Sequence[str]], str]
    key: tuple[object, ...]

    def at(self, index: int, size: int, probe: bool = False) -> Draft:
        who = (*self.key, f"probe-{index}" if probe else index)
        draft = self.draft_for(index)
        try:
            return draft(own_draws(*who), size, index)
        except IndexError:
            # vt drew one name twice: one sample in a million, whatever its size.
            return draft(own_draws(*who, "again"), size, index)


@dataclass(frozen=True, slots=True)
class Guess:
    """What a probe question tells of all samples at a ctx: tokens grow by about `per_unit` with each unit of size, and
    `size` units fill it."""

    size: int
    per_unit: float
    budget: int


def probe(source: Source, measure: Measure, count: Callable[[str], int], ctx: int) -> Guess:
    """Budget and first guess for all samples at ctx. DoesNotFit when the probe question does not fit at all."""
    longest = max(count(source.written(source.at(i, source.least, probe=True).answers)) for i in range(PROBES))
    budget = budget_for(longest)
    small, large = source.least, source.least * 8
    low, high = (measure(source.at(0, size, probe=True)) for size in (small, large))
    while 0 < high * _WIDEN < ctx - budget:
        large *= _WIDEN
        high = measure(source.at(0, large, probe=True))
    per_unit = max((high - low) / (large - small), 1e-3)
    first = Guess(small + max(0, int((ctx - budget - low) / per_unit)), per_unit, budget)
    fitted, size = _fit_within(lambda n: source.at(0, n, probe=True), measure, ctx, budget, small, first)
    if size > small:
        per_unit = max((fitted.tokens - low) / (size - small), 1e-3)
    return Guess(size, per_unit, budget)


def sample(
    source: Source, measure: Measure, count: Callable[[str], int], ctx: int, guess: Guess, index: int
) -> tuple[Fitted, int]:
    """Sample `index` and its budget. DoesNotFit when it is too long even at its smallest."""
    budget = guess.budget
    while True:
        fitted, _ = _fit_within(lambda n: source.at(index, n), measure, ctx, budget, source.least, guess)
        own = budget_for(count(source.written(fitted.draft.answers)))
        if own <= budget:
            return fitted, budget
        budget = own


def _fit_within(
    build: Callable[[int], Draft], measure: Measure, ctx: int, budget: int, least: int, guess: Guess
) -> tuple[Fitted, int]:
    try:
        return fit(build, measure, ctx - budget, least, guess)
    except DoesNotFit as error:
        raise DoesNotFit(None if error.needed_tokens is None else error.needed_tokens + budget) from error


def fit(build: Callable[[int], Draft], measure: Measure, limit: int, least: int, guess: Guess) -> tuple[Fitted, int]:
    """The largest size whose question has at most `limit` tokens, and that question.

    Keeps a size that fits (or none yet) and one that does not, and tries the size between them that the tokens per unit
    suggest; after _SECANT_ROUNDS the middle. Stops when less than one average unit is left, or nothing is between.
    DoesNotFit (needed_tokens without budget) when the smallest is too long.
    """
    best: Fitted | None = None
    good, bad = least - 1, 0  # bad: smallest size known to be too long, 0 for none yet
    size = max(guess.size, least)
    rounds = 0
    while True:
        rounds += 1
        drawn = build(size)
        tokens = measure(drawn)
        room = limit - tokens
        if room >= 0:
            best, good = Fitted(drawn, tokens), size
        else:
            bad = size
        if best is not None and (0 <= room < guess.per_unit or bad == good + 1):
            return best, good
        if bad == least:
            raise DoesNotFit(tokens)
        size += math.floor(room / guess.per_unit)
        if rounds > _SECANT_ROUNDS:
            size = (good + bad) // 2 if bad else good * 2
        size = max(size, good + 1)
        if bad:
            size = min(size, bad - 1)
