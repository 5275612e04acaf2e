"""Score against context length: curves with bands of 95 % intervals, of families' averages and task by task.

Every figure has the same axes, so that panels compare by eye.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kleval.report.figure import Cell, Figure, Grid, Look, Row, Series, lengths, scores
from kleval.report.sections import Card, Section, section
from kleval.tables import cells, ruler
from kleval.tables.scores import Entrant, expected_tasks
from kleval.text import DASH, format_length, limits, plural, score, short_task

Looks = Mapping[str, Look]

# More bands than these lie on each other until none can be read: whiskers instead, and further apart.
MAX_BANDS = 4
MAX_PANEL_BANDS = 2
FEW_LENGTHS = 4  # below, tables fit side by side
APART = 0.011  # of the x axis, between markers that would lie on each other
WHISKERS_APART = 0.027  # in a panel, where whiskers need the room


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that the entrants were asked together, in the order it is shown."""

    tasks: tuple[str, ...]
    ctxs: tuple[int, ...]
    families: tuple[str, ...]

    @staticmethod
    def of(entrants: Sequence[Entrant]) -> Shape:
        """Tasks in the order of the runs' manifests, lengths ascending, families that have an average."""
        tasks = dict.fromkeys(task for e in entrants for task in e.run.get("tasks", default={}))
        places = [place for e in entrants for place in e.cells]
        asked = {task for task, _ in places}
        tasks.update(dict.fromkeys(sorted(asked)))
        return Shape(
            tasks=tuple(task for task in tasks if task in asked),
            ctxs=tuple(sorted({ctx for _, ctx in places})),
            families=tuple(dict.fromkeys(family for e in entrants for family, _ in sorted(e.averages))),
        )

    def name(self, task: str) -> str:
        """A task's name on the page: without its family where there is one family only."""
        return short_task(task) if len({other.split("/", 1)[0] for other in self.tasks}) == 1 else task

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(format_length(ctx) for ctx in self.ctxs)


def average_section(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section:
    """A card per family, with a grid of its averages."""
    cards = []
    for i, family in enumerate(shape.families):
        figure, grid = average_figure(entrants, family, shape, looks), average_grid(entrants, family, shape, looks)
        notes = [
            f"{e.label}: {summary}."
            for e in entrants
            if (summary := ruler.in_words(e.averages[family, c] for c in shape.ctxs if (family, c) in e.averages))
        ]
        title = family if len(shape.families) > 1 else ""
        cards.append(Card(f"average-{i}", title, figures=(figure,), grid=grid, notes=tuple(notes)))
    figures = [figure for card in cards for figure in card.figures]
    limits = "Bands and whiskers" if any(figure.whiskers for figure in figures) else "Bands"
    partly = any(any(one.hollow) for figure in figures for one in figure.series)
    layout = "pair" if len(cards) > 1 and len(shape.ctxs) < FEW_LENGTHS else "column"
    return section("averages", cards, ["partial"] if partly else [], layout, limits=limits)


def task_section(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section:
    """A panel per task."""
    panels = [
        Card(f"task-{i}", shape.name(task), figures=(task_figure(entrants, task, shape, looks),))
        for i, task in enumerate(shape.tasks)
    ]
    return section("tasks", panels, layout="panels")


def average_figure(entrants: Sequence[Entrant], family: str, shape: Shape, looks: Looks) -> Figure:
    """The family's average of every entrant; hollow where it covers fewer tasks than the family has."""
    series = [
        _series(
            e, looks[e.key], {c: e.averages[family, c] for c in shape.ctxs if (family, c) in e.averages}, shape, family
        )
        for e in entrants
        if any(place[0] == family for place in e.averages)
    ]
    return Figure(lengths(shape.ctxs, ""), scores(), tuple(series), banded=len(series) <= MAX_BANDS, apart=APART)


def task_figure(entrants: Sequence[Entrant], task: str, shape: Shape, looks: Looks) -> Figure:
    """One task of every entrant, at all lengths of the page, so that all panels have the same axis."""
    series = [
        _series(e, looks[e.key], {c: e.cells[task, c] for c in shape.ctxs if (task, c) in e.cells}, shape)
        for e in entrants
    ]
    banded = len(entrants) <= MAX_PANEL_BANDS
    apart = APART if banded else WHISKERS_APART
    return Figure(lengths(shape.ctxs, ""), scores(), tuple(series), banded=banded, apart=apart, small=True)


def _series(entrant: Entrant, look: Look, found: Mapping[int, cells.Cell], shape: Shape, family: str = "") -> Series:
    known = [None if (c := found.get(ctx)) is None or math.isnan(c.value) else c for ctx in shape.ctxs]
    return Series(
        entrant.key,
        entrant.label,
        look,
        list(shape.ctxs),
        [None if c is None else round(100 * c.value, 4) for c in known],
        [() if c is None else notes(entrant, c, family) for c in known],
        [0.0 if c is None else 100 * c.ci_low for c in known],
        [0.0 if c is None else 100 * c.ci_high for c in known],
        hollow=[c is not None and bool(partial(family, c)) for c in known],
    )


def notes(entrant: Entrant, cell: cells.Cell, family: str = "") -> list[str]:
    """What a point says on hover."""
    lines = [
        f"{entrant.label} at {format_length(cell.ctx)}",
        f"{score(cell.value)}  (95 %: {limits(cell.ci_low, cell.ci_high)})",
    ]
    if family:
        lines.append(f"{cell.n_tasks} of {expected_tasks(family, cell)} tasks")
    lines.append(f"{cell.n_scored} of {cell.n_total} answers scored")
    if cell.n_failed:
        lines.append(f"{cell.n_failed} failed: {limits(cell.bound_low, cell.bound_high)} if wrong – if right")
    return lines


def average_grid(entrants: Sequence[Entrant], family: str, shape: Shape, looks: Looks) -> Grid:
    """Of the entrants that were asked the family."""
    rows = [
        Row(e.label, tuple(shown(e.averages.get((family, ctx)), family) for ctx in shape.ctxs), look=looks[e.key])
        for e in entrants
        if any((family, ctx) in e.averages for ctx in shape.ctxs)
    ]
    return Grid((f"{family} average", *shape.columns), tuple(rows))


def shown(cell: cells.Cell | None, family: str = "", missing: str = "no task has a score here") -> Cell:
    """A score for any grid: its limits, what is missing in it, and the strength of its colour. missing: why there is none at all."""
    if cell is None or (math.isnan(cell.value) and not cell.n_total):
        return Cell(DASH, kind="empty", title=missing)
    failed = f"{cell.n_failed} failed" if cell.n_failed else ""
    warnings = tuple(text for text in (partial(family, cell), failed) if text)
    if math.isnan(cell.value):
        why = (
            f"all {plural(cell.n_total, 'answer')} failed" if cell.n_failed == cell.n_total else "no answer was scored"
        )
        return Cell(DASH, kind="failed", title=f"no score: {why}", warnings=warnings)
    title = f"95 % interval {limits(cell.ci_low, cell.ci_high)}; {cell.n_scored} of {cell.n_total} answers scored"
    if cell.n_failed:
        title += f"; {limits(cell.bound_low, cell.bound_high)} if the {cell.n_failed} failed were wrong – right"
    if family:
        title += f"; {cell.n_tasks} of {expected_tasks(family, cell)} tasks"
    return Cell(
        score(cell.value), (limits(cell.ci_low, cell.ci_high),), "", title, warnings, level=round(100 * cell.value, 1)
    )


def partial(family: str, cell: cells.Cell) -> str:
    """`9 of 13 tasks` for an average that does not cover its family, else the empty text."""
    expected = expected_tasks(family, cell) if family else 0
    return f"{cell.n_tasks} of {expected} tasks" if cell.n_tasks < expected else ""
