"""Scores in grids: heat maps of task and depth against context length, the paper's eight columns, and the table of all scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from kleval.report.figure import Cell, Grid, Row
from kleval.report.score_curves import Looks, Shape, cell_at, shown
from kleval.report.sections import Card, Section, section, words
from kleval.tables import bins, cells
from kleval.tables.columns import COLUMNS, PAPER, PAPER_CTX, column_rows
from kleval.tables.depths import Depths
from kleval.tables.scores import Entrant, column_tasks, expected_tasks
from kleval.text import DASH, format_length, limits, plural, score

# Of the table of all scores, behind the task.
SCORE_HEADS = (
    *("Length", "Model", "Score", "95 % interval", "", "Scored", "Failed", "Bounds"),
    *("Broken", "Edition", "Metric", "Interval by"),
)


def heat_section(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section:
    """A heat map per model: its averages, then its tasks, at every length."""
    return _heat("heat", [Card(title=e.label, look=looks[e.key], grid=heat_grid(e, shape)) for e in entrants])


def _heat(name: str, cards: Sequence[Card], **said: str) -> Section:
    kinds = {cell.kind for card in cards if card.grid for row in card.grid.rows for cell in row.cells}
    keys = ("ramp", *(kind for kind in ("skipped", "failed") if kind in kinds))
    return replace(section(name, cards, layout="pair", **said), keys=keys)


def heat_grid(entrant: Entrant, shape: Shape) -> Grid:
    rows = []
    for family in shape.families:
        found = tuple(shown(entrant, cell_at(entrant, family, ctx), family) for ctx in shape.ctxs)
        rows.append(Row(f"{family} average", found, kind="average"))
    rows += [Row(shape.name(task), tuple(_task(entrant, task, c) for c in shape.ctxs)) for task in shape.tasks]
    return Grid(("", *shape.columns), tuple(rows), "heat")


def _task(entrant: Entrant, task: str, ctx: int) -> Cell:
    cell = entrant.cells.get((task, ctx))
    if cell is None:
        return Cell("", kind="empty", title="not asked, or not answered yet")
    if not cell.n_total:
        return Cell(DASH, kind="skipped", title=f"skipped: {skip_reason(entrant, task, ctx)}")
    return shown(entrant, cell)


def skip_reason(entrant: Entrant, task: str, ctx: int) -> str:
    for skip in entrant.run.get("skips", default=[]):
        if (skip.get("model"), skip.get("task"), skip.get("ctx")) == (entrant.model, task, ctx):
            return str(skip.get("reason") or "no reason stored")
    return "no reason stored"


def depth_section(entrants: Sequence[Entrant], depths: Depths, shape: Shape, looks: Looks) -> Section | None:
    """A heat map per model with such answers: depth of the needle against length, of all such tasks and of each. None where no model
    has any."""
    tasks = [task for task in shape.tasks if task in depths.tasks]
    cards = _depth_cards(entrants, depths, looks)
    if not cards:
        return None
    each = [one for task in tasks for one in _depth_cards(entrants, depths, looks, task)] if len(tasks) > 1 else []
    found = _heat("depth", cards, tasks=", ".join(tasks))
    return replace(found, more=tuple(each), more_title=f"Each of the {len(tasks)} tasks by itself" if each else "")


def _depth_cards(entrants: Sequence[Entrant], depths: Depths, looks: Looks, task: str | None = None) -> list[Card]:
    cards = []
    for e in entrants:
        found = depths.cells(e, task)
        ctxs = sorted({ctx for _, ctx in found})
        none = "no sample has its answer here"
        rows = [Row(name, tuple(shown(e, found.get((name, ctx)), "", none) for ctx in ctxs)) for name in depths.names]
        if found:
            grid = Grid(("", *(format_length(ctx) for ctx in ctxs)), tuple(rows), "heat")
            cards.append(Card(title=f"{task} · {e.label}" if task else e.label, look=looks[e.key], grid=grid))
    return cards


def column_section(entrants: Sequence[Entrant], looks: Looks) -> Section | None:
    """The paper's eight columns, its own rows under them. None while a model has values in one of them only."""
    rows = []
    for e in entrants:
        for ctx, (columns, mean) in column_rows([*e.cells.values(), *e.averages.values()]).items():
            title = "" if mean is None else f"95 % interval {limits(mean.low, mean.high)}"
            average = Cell(DASH if mean is None else score(mean.mean), title=title)
            found = (*(_column(e, cell) for cell in columns), average)
            rows.append(Row(e.label, (Cell(format_length(ctx)), *found), look=looks[e.key]))
    if not rows:
        return None
    for name, values in PAPER.items():
        cells_of = [Cell(f"{value:.1f}") for value in (*values, sum(values) / len(values))]
        rows.append(Row(f"paper: {name}", (Cell(format_length(PAPER_CTX)), *cells_of), kind="light"))
    heads = ("Model", "ctx", *COLUMNS, "Average")
    grid = Grid(heads, tuple(rows), "plain", numbers=frozenset(range(1, len(heads))))
    return section("columns", [Card(grid=grid)])


def _column(entrant: Entrant, cell: cells.Cell | None) -> Cell:
    if cell is None:
        return Cell(DASH)
    n, expected = column_tasks(cell)
    found = shown(entrant, cell)
    few = (f"{n} of {plural(expected, 'task')}",) if n < expected else ()
    return replace(found, warnings=(*few, *found.warnings))


def table_section(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section:
    """Every score with its interval, its bounds and what it rests on."""
    grid = score_grid(entrants, shape, looks)
    notes = tuple(f"{e.label}: {line}." for e in entrants for line in bins.in_words(e.others))
    return section("table", [Card(grid=grid, notes=notes)], ["broken"] if "Broken" in grid.columns else [])


def score_grid(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Grid:
    """Averages first, then tasks as they were planned, by length and model. Columns that say nothing are left out."""
    rows = []
    for name, ctx, e in product((*shape.families, *shape.tasks), shape.ctxs, entrants):
        found = [cell_at(e, name, ctx), *(c for c in e.others if (c.task, c.ctx) == (name, ctx))]
        rows += [_row(e, cell, looks, name if name in shape.families else "") for cell in found if cell is not None]
    kept = [i for i in range(len(SCORE_HEADS)) if any(row.cells[i].text or row.cells[i].bar for row in rows)]
    shown = tuple(replace(row, cells=tuple(row.cells[i] for i in kept)) for row in rows)
    numbers = frozenset(place for place, i in enumerate(kept, 1) if i in (0, 2, 3, 4, 5, 6, 7))
    return Grid(("Task", *(SCORE_HEADS[i] for i in kept)), shown, "full", "scores", numbers)


def _row(entrant: Entrant, cell: cells.Cell, looks: Looks, family: str = "") -> Row:
    missing = math.isnan(cell.value)
    order = -1.0 if missing else cell.value
    bar = None if missing else (100 * cell.ci_low, 100 * cell.value, 100 * cell.ci_high)
    # A side metric may not apply to a question that was answered: that is no failure, and bounds nothing.
    bounded = cell.n_scored < cell.n_total and (cell.headline or cell.n_failed)
    coverage = f", {cell.n_tasks} of {expected_tasks(family, cell)}" if family else ""
    found = [
        Cell(format_length(cell.ctx), kind="main", sort=cell.ctx),
        Cell(entrant.label, kind="model"),
        Cell(score(cell.value), kind="main", sort=order),
        Cell(limits(cell.ci_low, cell.ci_high), sort=bar[0] if bar else -1.0),
        Cell("", sort=order, bar=bar),
        Cell(f"{cell.n_scored} / {cell.n_total}" if cell.n_total else "skipped", sort=cell.n_scored),
        Cell(str(cell.n_failed), kind="warned" if cell.n_failed else ""),
        Cell(limits(cell.bound_low, cell.bound_high) if bounded else "", sort=order),
        Cell(_broken(cell)),
        Cell(cell.edition),
        Cell(cell.metric + (" ↓" if lower_is_better(cell.metric) else "") + coverage),
        Cell(cell.ci_method),
    ]
    kind = "average" if family else "" if cell.headline else "side"
    return Row(cell.task, tuple(found), look=looks[entrant.key], kind=kind)


def lower_is_better(metric: str) -> bool:
    return "lower is better" in words()["metric"].get(metric, "")


def _broken(cell: cells.Cell) -> str:
    """`2 cut, 1 empty`: answers that the budget ended, that are empty, that repeat one token or a short loop to the end, or of which
    only the reasoning came."""
    counts = (
        ("cut", cell.n_cut),
        ("empty", cell.n_empty),
        ("looping", cell.n_looped),
        ("reasoning cut", cell.n_reasoning_cut),
    )
    return ", ".join(f"{n} {name}" for name, n in counts if n and cell.headline)
