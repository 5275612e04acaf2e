"""Named lists of tasks. A name in `tasks` is a task id or a family, which stands for all of its tasks."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from kleval.types import UsageError


@dataclass(frozen=True, slots=True)
class Suite:
    """limit: samples per task and length, when the user names none; None leaves the command's own default. edition: the
    one that the suite is of; None leaves it to the user."""

    name: str
    description: str
    tasks: tuple[str, ...]
    limit: int | None = None
    edition: str | None = None


# The columns of arXiv 2510.26692, Table 5.
_LONG = ("ruler", "mrcr", "helmet_icl", "longbench2", "frames", "repoqa", "lca")
_EIGHT = "RULER, MRCR, HELMET-ICL, LongBench v2, FRAMES, RepoQA, Long Code Arena"

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("long", f"the eight long-context columns of the paper: {_EIGHT}", _LONG),
        Suite("long-official", "the same on their official data", _LONG, edition="official"),
        Suite("smoke", "one sample of every long-context task, to see that a model runs", _LONG, limit=1),
    )
}


def suite(name: str) -> Suite:
    """The suite of that name; UsageError with the nearest names when there is none."""
    if name in SUITES:
        return SUITES[name]
    near = difflib.get_close_matches(name, SUITES, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(SUITES)}"
    raise UsageError(f"unknown suite {name!r}: {hint}")
