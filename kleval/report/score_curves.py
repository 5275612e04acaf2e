"""Score against context length: curves with bands of 95 % intervals, of families' averages and task by task.

Every figure has the same axes, so that panels compare by eye.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kleval.report.figure import GREY, SYMBOLS, Cell, Figure, Grid, Look, Row, Series, lengths, scores
from kleval.report.paper_curves import paper_figures
from kleval.report.sections import Card, Section, card, section
from kleval.tables import cells, ruler
from kleval.tables.scores import EVERYTHING, Entrant, expected_tasks, members
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


def overall_card(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Card:
    """The mean over everything that was asked; empty at a single length."""
    figure = score_figure(entrants, EVERYTHING, shape, looks)
    partly = any(any(one.hollow) for one in figure.series)
    if len(shape.ctxs) < 2 or figure.empty:
        return Card()
    limits = "Bands" if figure.banded else "Whiskers"
    same = len({frozenset(task for task, _ in e.cells) for e in entrants}) == 1
    over = tasks_in_words(shape.tasks) if same else "average of the tasks that each model was asked"
    return card("overall", [figure], also=["partial"] if partly else [], over=over, limits=limits)


def tasks_in_words(tasks: Sequence[str]) -> str:
    """What a mean over everything is over."""
    return f"average of all {len(tasks)} tasks" if len(tasks) > 1 else f"score of {tasks[0]}"


def average_section(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section:
    """A card per family, with a grid of its averages; without a curve where the family is everything that was asked."""
    cards, zeros = [], [family for family in shape.families if _zero(entrants, family, shape)]
    for i, family in enumerate(shape.families):
        if family in zeros:
            continue
        figure, grid = score_figure(entrants, family, shape, looks), average_grid(entrants, family, shape, looks)
        everything = all(len(members(family, e, shape.tasks)) == len(shape.tasks) for e in entrants)
        said = [
            (e, ruler.in_words(e.averages[family, c] for c in shape.ctxs if (family, c) in e.averages))
            for e in entrants
        ]
        notes = [f"{e.label}: {summary}." for e, summary in said if summary]
        title = family if len(shape.families) > 1 else ""
        drawn = () if everything and len(shape.ctxs) > 1 else (figure,)
        cards.append(Card(f"average-{i}", title, figures=drawn, grid=grid, notes=tuple(notes)))
    figures = [figure for card in cards for figure in card.figures]
    limits = "Bands and whiskers" if any(figure.whiskers for figure in figures) else "Bands"
    partly = any(any(one.hollow) for figure in figures for one in figure.series)
    layout = "pair" if len(cards) > 1 and len(shape.ctxs) < FEW_LENGTHS else "column"
    also = [*(["partial"] if partly else []), *_folded(zeros)]
    return section("averages", cards, also, layout, limits=limits, zeros=_zeros(zeros, "average"))


def task_section(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section | None:
    """A panel per task; those that are 0 throughout are one line. None at a single length, which has no curve, and without a score."""
    if len(shape.ctxs) < 2 or not any(e.overall for e in entrants):
        return None
    zeros = [task for task in shape.tasks if _zero(entrants, task, shape)]
    panels = [
        Card(f"task-{i}", shape.name(task), figures=(score_figure(entrants, task, shape, looks),))
        for i, task in enumerate(shape.tasks)
        if task not in zeros
    ]
    return section(
        "tasks", panels, _folded(zeros), "panels", zeros=_zeros([shape.name(task) for task in zeros], "task")
    )


def _zero(entrants: Sequence[Entrant], name: str, shape: Shape) -> bool:
    """Whether every score that there is is 0."""
    found = [cell for e in entrants for ctx in shape.ctxs if (cell := cell_at(e, name, ctx)) is not None]
    known = [cell.value for cell in found if not math.isnan(cell.value)]
    return bool(known) and not any(known)


def _folded(zeros: Sequence[str]) -> list[str]:
    return ["zero"] if zeros else []


def _zeros(names: Sequence[str], noun: str) -> str:
    """`3 tasks: mrcr/2needle, mrcr/4needle, mrcr/8needle`"""
    return f"{plural(len(names), noun)}: {', '.join(names)}"


def score_figure(entrants: Sequence[Entrant], name: str, shape: Shape, looks: Looks) -> Figure:
    """The mean over everything or a family's average (hollow where it covers fewer tasks than it should) or a task, at all lengths
    of the page."""
    family = name if name in (EVERYTHING, *shape.families) else ""
    series = []
    for e in entrants:
        found = [cell_at(e, name, ctx) for ctx in shape.ctxs]
        known = [None if cell is None or math.isnan(cell.value) else cell for cell in found]
        one = Series(
            e.key,
            e.label,
            looks[e.key],
            list(shape.ctxs),
            [None if c is None else round(100 * c.value, 4) for c in known],
            [() if c is None else notes(e, c, family) for c in known],
            [0.0 if c is None else 100 * c.ci_low for c in known],
            [0.0 if c is None else 100 * c.ci_high for c in known],
            hollow=[c is not None and bool(partial(family, c)) for c in known],
        )
        series += [one] if any(known) or not family else []
    series += _published(name, shape)
    banded = len(series) <= (MAX_BANDS if family else MAX_PANEL_BANDS)
    apart = APART if banded or family else WHISKERS_APART
    axis = lengths(shape.ctxs, "")
    return Figure(axis, scores(), tuple(series), banded=banded, apart=apart, small=not family)


def _published(family: str, shape: Shape) -> list[Series]:
    """What the paper says of a family at lengths between those of the page."""
    figure = paper_figures().get(family) if family in shape.families else None
    series = []
    for i, (name, values) in enumerate(figure.curves.items() if figure else ()):
        inside = [(ctx, value) for ctx, value in values.items() if shape.ctxs[0] <= ctx <= shape.ctxs[-1]]
        if figure and inside:
            label, look = f"{name}: paper ({figure.figure})", Look(GREY, SYMBOLS[i % len(SYMBOLS)], "dash")
            notes = [(f"{label} at {format_length(ctx)}", f"{value:.1f}", figure.note) for ctx, value in inside]
            xs, ys = [ctx for ctx, _ in inside], [value for _, value in inside]
            series.append(Series(f"paper {name}", label, look, xs, ys, notes, style="paper"))
    return series


def cell_at(entrant: Entrant, name: str, ctx: int) -> cells.Cell | None:
    """The mean over everything, a family's average or a task's score."""
    if name == EVERYTHING:
        return entrant.overall.get(ctx)
    return entrant.averages.get((name, ctx)) or entrant.cells.get((name, ctx))


def notes(entrant: Entrant, cell: cells.Cell, family: str = "") -> list[str]:
    """What a point says on hover."""
    lines = [
        f"{entrant.label} at {format_length(cell.ctx)}",
        f"{score(cell.value, cell.unit)}  (95 %: {limits(cell.ci_low, cell.ci_high, cell.unit)})"
        + (f" {cell.unit}" if cell.unit else ""),
    ]
    if family:
        lines.append(f"{cell.n_tasks} of {expected_tasks(family, cell)} tasks")
    lines.append(f"{cell.n_scored} of {cell.n_total} answers scored")
    if cell.n_failed and cell.unit:
        lines.append(f"{cell.n_failed} failed")
    elif cell.n_failed:
        lines.append(f"{cell.n_failed} failed: {limits(cell.bound_low, cell.bound_high)} if wrong – if right")
    return lines


def average_grid(entrants: Sequence[Entrant], family: str, shape: Shape, looks: Looks) -> Grid:
    """Of the entrants that were asked the family."""
    rows = [
        Row(e.label, tuple(shown(e, cell_at(e, family, ctx), family) for ctx in shape.ctxs), look=looks[e.key])
        for e in entrants
        if any((family, ctx) in e.averages for ctx in shape.ctxs)
    ]
    return Grid((f"{family} average", *shape.columns), tuple(rows))


def shown(
    entrant: Entrant,
    cell: cells.Cell | None,
    family: str = "",
    missing: str = "no task has a score here",
    full: float = 1.0,
) -> Cell:
    """A score for any grid: its limits, what is missing in it, and the strength of its colour. missing: why there is none at all. full:
    the value that has the whole colour; one below 0 has none."""
    if cell is None or (math.isnan(cell.value) and not cell.n_total):
        return Cell(DASH, kind="empty", title=missing)
    failed = f"{cell.n_failed} failed" if cell.n_failed else ""
    warnings = tuple(text for text in (partial(family, cell), failed) if text)
    if math.isnan(cell.value):
        lost = cell.n_failed == cell.n_total
        why = f"all {plural(cell.n_total, 'answer')} failed" if lost else "no answer was scored"
        return Cell(DASH, kind="failed", title=f"no score: {why}", warnings=warnings)
    title, interval = "; ".join(notes(entrant, cell, family)[1:]), limits(cell.ci_low, cell.ci_high, cell.unit)
    level = round(100 * min(max(cell.value / full, 0.0), 1.0), 1)
    return Cell(score(cell.value, cell.unit), (interval,), "", title, warnings, level=level)


def partial(family: str, cell: cells.Cell) -> str:
    """`9 of 13 tasks` for an average that does not cover its family, else the empty text."""
    expected = expected_tasks(family, cell) if family else 0
    return f"{cell.n_tasks} of {expected} tasks" if cell.n_tasks < expected else ""
