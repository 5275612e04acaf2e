"""Command line as run.json keeps it: the same one with fewer options, and whether two of them ask the same."""

from __future__ import annotations

import shlex
from collections.abc import Collection

# Those of `run`, `profile` and `verify` that change nothing of what is asked and measured: what it is called, may cost and says.
CALLED = ("--name", "--tag")
LIMITS = ("--max-cost", "--max-requests", "--max-errors", "--price-per-mtok", "--judge-price-per-mtok")
SAYS = ("--quiet", "-q", "--json")


def without(line: str, valued: Collection[str], flags: Collection[str] = ()) -> list[str]:
    """The words of a command line but for these options, `--option value` or `--option=value`, and flags."""
    words, kept = iter(shlex.split(line)), list[str]()
    for word in words:
        if word in valued:
            next(words, None)
        elif word not in flags and word.partition("=")[0] not in valued:
            kept.append(word)
    return kept


def same(one: str, other: str) -> bool:
    """Whether two command lines ask the same, so that the one goes on where the other stopped."""
    if one == other:
        return True
    return without(one, CALLED + LIMITS, SAYS) == without(other, CALLED + LIMITS, SAYS)
