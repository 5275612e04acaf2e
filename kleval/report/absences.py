"""Answers that are not there: what failed, and what was never asked because it does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kleval.tables.scores import Entrant
from kleval.text import places


@dataclass(frozen=True, slots=True)
class FailureRow:
    label: str
    kind: str
    message: str
    n: int
    where: str


@dataclass(frozen=True, slots=True)
class SkipRow:
    """One reason, and everything that was skipped for it. n: answers that were not asked for."""

    label: str
    where: str
    reason: str
    n: int


def failure_rows(entrants: Sequence[Entrant]) -> list[FailureRow]:
    """Per model and message, the most frequent first."""
    rows = [
        FailureRow(e.label, kind, message, len(where), places(where))
        for e in entrants
        for (kind, message), where in e.failures.items()
    ]
    return sorted(rows, key=lambda r: (-r.n, r.label, r.kind, r.message))


def skip_rows(entrants: Sequence[Entrant]) -> list[SkipRow]:
    """What was never asked: tasks that do not fit at a length, and tasks that broke before they had samples."""
    merged: dict[tuple[str, str], list[tuple[tuple[str, int], int]]] = {}
    for e in entrants:
        for skip in e.run.get("skips", default=[]):
            if skip.get("model") == e.model:
                place = (str(skip.get("task")), int(skip.get("ctx", 0)))
                merged.setdefault((e.label, str(skip.get("reason") or "")), []).append((place, int(skip.get("n", 0))))
        for broken in e.run.get("errors", default=[]):
            if broken.get("model") == e.model:
                place = (str(broken.get("task")), int(broken.get("ctx", 0)))
                reason = f"the task could not make its samples: {broken.get('message')}"
                merged.setdefault((e.label, reason), []).append((place, 0))
    return [
        SkipRow(label, places([place for place, _ in parts]), reason, sum(n for _, n in parts))
        for (label, reason), parts in merged.items()
    ]
