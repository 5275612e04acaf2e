"""Differences between the first model and each of the others, cell by cell, paired sample by sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kleval.report.figure import Cell, Grid, Row, plain
from kleval.report.score_curves import FEW_LENGTHS, Shape
from kleval.report.sections import Card, Section, section
from kleval.tables import compare, compare_times, differences
from kleval.tables.costs import Profile
from kleval.tables.formats import to_csv
from kleval.tables.scores import Entrant, conflicts, expected_tasks, members
from kleval.text import DASH, places, plural, signed
from kleval.types import UsageError

EFFECT, EFFECT_OF_TIMES = 0.02, 0.1


def contrast_sections(entrants: Sequence[Entrant], shape: Shape) -> list[Section | None]:
    """The first entrant against each of the others: differences, and their tests where they are comparable. Of what has a unit
    (`Entrant.gains`) under names of its own. Empty for a single entrant."""
    if len(entrants) < 2:
        return []
    first, *others = entrants
    prefix = "gain-" if _unit(first) else ""
    cards = [difference_card(first, other, shape) for other in others]
    layout = "pair" if len(cards) > 1 and len(shape.ctxs) < FEW_LENGTHS else "column"
    side = compare.Side(first)
    tested = [_tests(side, compare.Side(other)) for other in others if not conflicts(first, other)]
    tests = section(f"{prefix}tests", tested)
    return [section(f"{prefix}differences", cards, layout=layout), tests if tests.cards else None]


def ratio_section(profiles: Sequence[Profile]) -> Section | None:
    """The first profile (A) against each of the others (B), model by model; None where none has a model and place in common."""
    cards = []
    sides = [compare_times.read_timed([profile]) for profile in profiles]
    for profile, side in zip(profiles[1:], sides[1:], strict=True):
        for a, b in ((a, b) for a in sides[0] for b in side if a.model == b.model and a.model):
            try:
                rows = compare_times.rows(a, b, EFFECT_OF_TIMES)
            except UsageError:
                continue
            grid = plain(compare_times.HEADS, map(compare_times.spelled, rows))
            title = f"{b.model}: B is {profile.name}, A is {profiles[0].name}"
            notes = tuple(f"Differs: {text}." for text in compare_times.labels(a, b))
            cards.append(Card(title=title, grid=grid, notes=notes, csv=to_csv(rows, list(rows[0]))))
    return section("profile-ratios", cards) if cards else None


def _tests(first: compare.Side, other: compare.Side) -> Card:
    """The first as B, so that signs are those of its differences. Averages, and the tasks that differ."""
    try:
        found = compare.compared(other, first)
    except UsageError:
        return Card()
    rows = compare.rows(found, EFFECT)
    shown = [row for row, line in zip(rows, found.lines, strict=True) if len(line.places) > 1 or line.sign] or rows
    unit = rows[0]["unit"]
    effect = f"{EFFECT} {unit}" if unit else f"{100 * EFFECT:.0f} points"
    return Card(
        title=f"B is {first.label}, A is {other.label}",
        text=f"Averages and the tasks that differ; effect {effect}. Every task, and flips by sample: kleval compare.",
        grid=plain(compare.HEADS, map(compare.spelled, shown)),
        notes=tuple(f"{note['record'].capitalize()}: {note['text']}." for note in compare.notes(found)),
    )


def difference_card(a: Entrant, b: Entrant, shape: Shape) -> Card:
    """a - b. Where they are not comparable the card says why and has no grid; its notes say why single cells are not."""
    title, unit = f"{a.label} minus {b.label}", _unit(a)
    reasons = conflicts(a, b)
    if not a.ids.keys() & b.ids.keys():
        reasons = ["no task was asked of both at the same length"]
    if reasons:
        return Card(title=title, text=f"Not comparable. They differ in what was asked: {'; '.join(reasons)}.")
    found = {
        (task, ctx): differences.paired(a.scores.get((task, ctx), {}), b.scores.get((task, ctx), {}), unit=unit)
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
            sizes = [d.n for d in parts] if family in a.run.groups else None
            cells.append(_shown(differences.mean(parts, sizes), "no task has a score from both", note, unit))
        rows.append(Row(f"{family} average", tuple(cells), kind="average"))
    for task in shape.tasks:
        shown = [_shown(found[task, c], _unpaired(a, b, task, c), _uneven(a, b, task, c), unit) for c in shape.ctxs]
        rows.append(Row(shape.name(task), tuple(shown)))
    remarks = _remarks(a, b, [place for place, d in found.items() if d is None])
    grid = Grid(("Task", *shape.columns), tuple(rows), "diff")
    return Card(title=title, grid=grid, notes=(" ".join(remarks),) if remarks else ())


def _remarks(a: Entrant, b: Entrant, unpaired: Sequence[tuple[str, int]]) -> list[str]:
    """One sentence per reason and the places it holds for; skipped by both needs no word."""
    by_reason: dict[str, list[tuple[str, int]]] = {}
    for task, ctx in unpaired:
        if a.ids.get((task, ctx)) or b.ids.get((task, ctx)):
            by_reason.setdefault(_unpaired(a, b, task, ctx), []).append((task, ctx))
    return [f"{reason[0].upper()}{reason[1:]} ({places(where)})." for reason, where in by_reason.items()]


def _unit(entrant: Entrant) -> str:
    """What its values are in, "" for scores."""
    return next((cell.unit for cell in entrant.cells.values()), "")


def _shown(d: differences.Difference | None, reason: str, note: str, unit: str) -> Cell:
    """kind: up | down where the difference is clear (Difference.clear), else even; none where there is none, title says why."""
    if d is None:
        return Cell(DASH, kind="none", title=reason)
    kind = "even" if not d.clear else "up" if d.value > 0 else "down"
    interval = "" if math.isnan(d.low) else f"{signed(d.low, unit)} … {signed(d.high, unit)}"
    title = ", ".join(filter(None, (interval and f"95 % interval {interval}", plural(d.n, "pair"))))
    return Cell(signed(d.value, unit), tuple(filter(None, (interval, note))), kind, title)


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
