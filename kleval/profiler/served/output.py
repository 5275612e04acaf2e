"""Lengths of the answers that are asked for: one for all, or drawn for each request.

Written `32`, `16-256` (any of them alike) or `exp:128` (exponential, of that mean, at most eight times it).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from kleval.types import UsageError

LEAST = 2  # a time between tokens needs two
LONGEST = 8  # times the mean
GRAMMAR = "write --decode-tokens 32, 16-256 (drawn, all alike) or exp:128 (exponential, of that mean)"
_FORM = re.compile(r"(\d+)|(\d+)-(\d+)|exp:(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Output:
    """least, most: tokens of an answer. mean: of an exponential distribution, 0 for a uniform one."""

    least: int
    most: int
    mean: int = 0

    @property
    def average(self) -> int:
        """Tokens of an answer of middling length."""
        return max(self.mean, self.least) if self.mean else (self.least + self.most) // 2

    def draw(self, rng: random.Random) -> int:
        if self.least == self.most:
            return self.least
        if self.mean:
            return min(max(round(rng.expovariate(1 / self.mean)), self.least), self.most)
        return rng.randint(self.least, self.most)


def parse_output(asked: int | str) -> Output:
    """UsageError for what does not follow the grammar."""
    match = _FORM.fullmatch(str(asked).replace(" ", "").lower())
    if match is None:
        raise UsageError(f"--decode-tokens does not know '{asked}': {GRAMMAR}")
    fixed, low, high, mean = (None if part is None else int(part) for part in match.groups())
    if fixed is not None:
        found = Output(fixed, fixed)
    else:
        found = Output(LEAST, LONGEST * mean, mean) if mean is not None else Output(low or 0, high or 0)
    if not LEAST <= found.least <= found.most:
        raise UsageError(
            f"--decode-tokens {asked}: at least {LEAST} (a time between tokens needs two), rising: {GRAMMAR}"
        )
    return found
