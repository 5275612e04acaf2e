"""Failures and gaps: answers and measurements that failed, and what was never asked or measured, with the reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kleval.report.figure import Cell, Grid, Row
from kleval.report.sections import Card, Section
from kleval.tables.costs import Profile
from kleval.tables.scores import Entrant
from kleval.text import format_length, format_lengths, places

MAX_FAILURES = 20  # distinct messages in one table; the records hold all
MAX_CHARS = 300

Line = tuple[int, str, str, str, str]  # how many, what, where, kind, message


def absence_section(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> Section | None:
    """None where nothing is missing."""
    cards = [
        _failures(_failed_answers(entrants), "Model", "rows"),
        _skips(entrants),
        _failures([line for profile in profiles for line in _failed_points(profile)], "Measured", "points"),
        _gaps(profiles),
    ]
    kept = tuple(card for card in cards if not card.empty)
    if not kept:
        return None
    lead = (
        "What failed has no value anywhere on this page: a failed answer is neither wrong nor right. What was skipped was never "
        "asked for or left out before it was begun."
    )
    return Section("failures", "Failures and gaps", "Failures and gaps", lead, kept, methods=("absences",))


def _failures(found: Iterable[Line], what: str, records: str) -> Card:
    """The most frequent first."""
    lines = sorted(found, key=lambda line: (-line[0], *line[1:]))
    rows = [
        Row(f"{n:,}", (Cell(name), Cell(where), Cell(kind, kind="code"), Cell(_clipped(message))))
        for n, name, where, kind, message in lines[:MAX_FAILURES]
    ]
    more = len(lines) - len(rows)
    notes = (f"{more:,} further messages are in the {records}.",) if more else ()
    heads = ("Failed", what, "Where", "Kind", "Message")
    return Card(grid=Grid(heads, tuple(rows), "plain", numbers=frozenset({0})), notes=notes)


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"


def _failed_answers(entrants: Sequence[Entrant]) -> list[Line]:
    return [
        (len(where), e.label, places(where), kind, message)
        for e in entrants
        for (kind, message), where in e.failures.items()
    ]


def _failed_points(profile: Profile) -> list[Line]:
    found: dict[tuple[str, str, str], list[int]] = {}
    for point in profile.failures:
        what = f"{point.model} · {point.kind} {point.protocol}".removeprefix(" · ")
        reason = point.failure or {}
        found.setdefault((what, reason.get("kind", "unknown"), reason.get("message", "")), []).append(point.ctx)
    return [
        (len(ctxs), what, format_lengths(sorted(set(ctxs))).replace(",", ", "), kind, message)
        for (what, kind, message), ctxs in found.items()
    ]


def _skips(entrants: Sequence[Entrant]) -> Card:
    """Tasks that do not fit at a length, and tasks that broke before they had samples: one line per model and reason."""
    merged: dict[tuple[str, str], list[tuple[tuple[str, int], int]]] = {}

    def add(e: Entrant, found: dict[str, Any], reason: str) -> None:
        if found.get("model") == e.model:
            place = (str(found.get("task")), int(found.get("ctx", 0)))
            merged.setdefault((e.label, reason), []).append((place, int(found.get("n", 0))))

    for e in entrants:
        for skip in e.run.get("skips", default=[]):
            add(e, skip, str(skip.get("reason") or ""))
        for broken in e.run.get("errors", default=[]):
            add(e, broken, f"the task could not make its samples: {broken.get('message')}")
    rows = [
        Row(f"{sum(n for _, n in parts):,}", (Cell(label), Cell(places([p for p, _ in parts])), Cell(reason)))
        for (label, reason), parts in merged.items()
    ]
    heads = ("Skipped", "Model", "Where", "Reason")
    return Card(grid=Grid(heads, tuple(rows), "plain", numbers=frozenset({0})))


def _gaps(profiles: Sequence[Profile]) -> Card:
    """What was asked of a profile and never measured."""
    rows = []
    for one in (one for profile in profiles for one in profile.get("unmeasured", default=[])):
        heads = f", {one['heads']} heads" if one.get("heads") else ""
        what = f"{one.get('model') or one.get('operator')} · {one.get('protocol')}{heads}"
        rows.append(Row(what, (Cell(format_length(int(one.get("ctx") or 0))), Cell(str(one.get("reason") or "")))))
    return Card(grid=Grid(("Not measured", "Where", "Reason"), tuple(rows), "plain"))
