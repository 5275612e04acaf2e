"""The difference tables of the page: the first model against each of the others, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kleval.report.views import Shape
from kleval.tables import differences
from kleval.tables.scores import Entrant, conflicts, expected_tasks, members
from kleval.text import places, plural, signed


@dataclass(frozen=True, slots=True)
class DiffCell:
    """tone: up | down where the difference is clear (Difference.clear), else even; none where there is none, title says why."""

    text: str
    limits: str = ""
    tone: str = "none"
    title: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class DiffRow:
    label: str
    cells: tuple[DiffCell, ...]
    average: bool = False


@dataclass(frozen=True, slots=True)
class DiffTable:
    """first - second. reasons: why they are not comparable; then there are no rows. remarks: why single cells are not."""

    first: Entrant
    second: Entrant
    reasons: tuple[str, ...]
    rows: tuple[DiffRow, ...] = ()
    remarks: tuple[str, ...] = ()


def diff_tables(entrants: Sequence[Entrant], shape: Shape) -> list[DiffTable]:
    """The first entrant against each of the others."""
    return [_diff_table(entrants[0], other, shape) for other in entrants[1:]]


def _diff_table(a: Entrant, b: Entrant, shape: Shape) -> DiffTable:
    reasons = tuple(conflicts(a, b))
    if not a.ids.keys() & b.ids.keys():
        reasons = ("no task was asked of both at the same length",)
    if reasons:
        return DiffTable(a, b, reasons)
    found = {
        (task, ctx): differences.paired(a.scores.get((task, ctx), {}), b.scores.get((task, ctx), {}))
        for task in shape.tasks
        for ctx in shape.ctxs
    }
    rows = []
    for family in shape.families:
        over = members(family, a, shape.tasks)
        expected = max(
            (expected_tasks(family, e.averages[place]) for e in (a, b) for place in e.averages if place[0] == family),
            default=len(over),
        )
        cells = []
        for ctx in shape.ctxs:
            parts = [d for task in over if (d := found[task, ctx]) is not None]
            note = f"{len(parts)} of {expected} tasks" if len(parts) < expected else ""
            cells.append(_shown_difference(differences.mean(parts), "no task has a score from both", note))
        rows.append(DiffRow(f"{family} average", tuple(cells), average=True))
    rows += [
        DiffRow(
            shape.name(task),
            tuple(
                _shown_difference(found[task, c], _unpaired(a, b, task, c), _uneven(a, b, task, c)) for c in shape.ctxs
            ),
        )
        for task in shape.tasks
    ]
    return DiffTable(a, b, (), tuple(rows), _remarks(a, b, [place for place, d in found.items() if d is None]))


def _remarks(a: Entrant, b: Entrant, unpaired: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """One sentence per reason and the places it holds for; skipped by both needs no word."""
    by_reason: dict[str, list[tuple[str, int]]] = {}
    for task, ctx in unpaired:
        if a.ids.get((task, ctx)) or b.ids.get((task, ctx)):
            by_reason.setdefault(_unpaired(a, b, task, ctx), []).append((task, ctx))
    return tuple(f"{reason[0].upper()}{reason[1:]} ({places(where)})." for reason, where in by_reason.items())


def _shown_difference(d: differences.Difference | None, reason: str, note: str) -> DiffCell:
    if d is None:
        return DiffCell("–", title=reason)
    tone = "even" if not d.clear else "up" if d.value > 0 else "down"
    shown = f"{signed(d.low)} … {signed(d.high)}"
    return DiffCell(signed(d.value), shown, tone, f"95 % interval {shown}, {plural(d.n, 'pair')}", note)


def _unpaired(a: Entrant, b: Entrant, task: str, ctx: int) -> str:
    """Why a cell has no paired difference."""
    ours, theirs = a.ids.get((task, ctx), frozenset()), b.ids.get((task, ctx), frozenset())
    if not ours or not theirs:
        return f"not comparable: no answers of {(a if not ours else b).label}"
    if not ours & theirs:
        return "not comparable: they were asked different samples"
    if not a.scores.get((task, ctx)) or not b.scores.get((task, ctx)):
        return "not comparable: one of the two has no scored answer"
    return "not comparable: the samples share their ids but not their text (made for different tokenizers), or no scored pair"


def _uneven(a: Entrant, b: Entrant, task: str, ctx: int) -> str:
    """`8 pairs` where not every sample could be paired."""
    ours, theirs = a.scores.get((task, ctx), {}), b.scores.get((task, ctx), {})
    shared = len(ours.keys() & theirs.keys())
    asked = len(a.ids.get((task, ctx), frozenset()) | b.ids.get((task, ctx), frozenset()))
    return plural(shared, "pair") if 0 < shared < asked else ""
