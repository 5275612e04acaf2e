"""Failures and gaps: answers and measurements that failed, and what was never asked or measured, with the reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from kleval.report.figure import plain
from kleval.report.sections import Card, Section, section
from kleval.tables.costs import Profile
from kleval.tables.scores import Entrant
from kleval.text import format_length, places

MAX_FAILURES = 20  # distinct messages in one table; the records hold all
MAX_CHARS = 300

Line = tuple[int, str, str, str, str]  # how many, what, where, kind, message


def absence_section(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> Section | None:
    """None where nothing is missing."""
    gaps = plain(("Not measured", "Where", "Reason"), (line for profile in profiles for line in _gaps(profile)))
    skips = plain(("Skipped", "Model", "Where", "Reason"), (line for e in entrants for line in _skips(e)), [0])
    cards = [
        _failures(chain.from_iterable(map(_failed_answers, entrants)), "Model", "rows"),
        Card(grid=skips),
        _failures(chain.from_iterable(map(_failed_points, profiles)), "Measured", "points"),
        Card(grid=gaps),
    ]
    found = section("failures", cards)
    return found if found.cards else None


def _failures(found: Iterator[Line], what: str, records: str) -> Card:
    """The most frequent first."""
    lines = sorted(found, key=lambda line: (-line[0], *line[1:]))
    heads = ("Failed", what, "Where", "Kind", "Message")
    more = len(lines) - MAX_FAILURES
    return Card(
        grid=plain(heads, ((f"{n:,}", *words, _clipped(message)) for n, *words, message in lines[:MAX_FAILURES]), [0]),
        notes=(f"{more:,} further messages are in the {records}.",) if more > 0 else (),
    )


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"


def _failed_answers(entrant: Entrant) -> Iterator[Line]:
    for (kind, message), where in entrant.failures.items():
        yield len(where), entrant.label, places(where), kind, message


def _failed_points(profile: Profile) -> Iterator[Line]:
    found: dict[tuple[str, str, str], list[int]] = {}
    for point in profile.failures:
        what = f"{point.model} · {point.kind} {point.protocol}".removeprefix(" · ")
        reason = point.failure or {}
        found.setdefault((what, reason.get("kind", "unknown"), reason.get("message", "")), []).append(point.ctx)
    for (what, kind, message), ctxs in found.items():
        yield len(ctxs), what, ", ".join(map(format_length, sorted(set(ctxs)))), kind, message


def _skips(entrant: Entrant) -> Iterator[tuple[str, ...]]:
    """Tasks that do not fit at a length, and tasks that broke before they had samples: one line per reason."""
    merged: dict[str, list[tuple[tuple[str, int], int]]] = {}
    skips = [(one, str(one.get("reason") or "")) for one in entrant.run.get("skips", default=[])]
    for one in entrant.run.get("errors", default=[]):
        skips.append((one, f"the task could not make its samples: {one.get('message')}"))
    for one, reason in skips:
        if one.get("model") == entrant.model:
            place = (str(one.get("task")), int(one.get("ctx", 0)))
            merged.setdefault(reason, []).append((place, int(one.get("n", 0))))
    for reason, parts in merged.items():
        yield f"{sum(n for _, n in parts):,}", entrant.label, places([place for place, _ in parts]), reason


def _gaps(profile: Profile) -> Iterator[tuple[str, ...]]:
    """What was asked of a profile and never measured."""
    for one in profile.get("unmeasured", default=[]):
        heads = f", {one['heads']} heads" if one.get("heads") else ""
        what = f"{one.get('model') or one.get('operator')} · {one.get('protocol')}{heads}"
        yield what, format_length(int(one.get("ctx") or 0)), str(one.get("reason") or "")
