"""Named lists of tasks. A name in `tasks` is a task id or a family, which stands for all of its tasks."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from kleval.types import UsageError


@dataclass(frozen=True, slots=True)
class Suite:
    """limit: samples per task and length, when the user names none; None leaves the command's own default."""

    name: str
    description: str
    tasks: tuple[str, ...]
    limit: int | None = None


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("long", "long-context tasks: the 13 of RULER", ("ruler",)),
        Suite("smoke", "one sample of every task, to see that a model runs", ("ruler",), limit=1),
    )
}


def suite(name: str) -> Suite:
    """The suite of that name; UsageError with the nearest names when there is none."""
    if name in SUITES:
        return SUITES[name]
    near = difflib.get_close_matches(name, SUITES, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(SUITES)}"
    raise UsageError(f"unknown suite {name!r}: {hint}")
