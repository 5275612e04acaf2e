"""Scores in grids: heat maps of task and depth against context length, the paper's eight columns, and the table of all scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kleval.report.figure import Cell, Grid, Row
from kleval.report.score_curves import Looks, Shape
from kleval.report.sections import Card, Section
from kleval.tables import cells
from kleval.tables.columns import COLUMNS, PAPER, PAPER_CTX, column_rows
from kleval.tables.depths import Depths
from kleval.tables.scores import Entrant, column_tasks, expected_tasks
from kleval.text import DASH, format_length, limits, plural, score

SKIPPED, FAILED = "skipped", "failed"


def heat_section(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section:
    """A heat map per model: its averages, then its tasks, at every length."""
    lead = "Score of every task at every length. Hover over a cell for its interval and how many answers it rests on."
    cards = [Card(title=e.label, look=looks[e.key], grid=heat_grid(e, shape)) for e in entrants]
    return Section("heat", "Task by context length", "Task × length", lead, tuple(cards), "pair", keys=_keys(cards))


def _keys(cards: Sequence[Card]) -> tuple[str, ...]:
    kinds = {cell.kind for card in cards if card.grid for row in card.grid.rows for cell in row.cells}
    return ("ramp", *(kind for kind in (SKIPPED, FAILED) if kind in kinds))


def heat_grid(entrant: Entrant, shape: Shape) -> Grid:
    rows = [
        Row(f"{family} average", tuple(_average(entrant, family, ctx) for ctx in shape.ctxs), kind="average")
        for family in shape.families
    ]
    rows += [Row(shape.name(task), tuple(_task(entrant, task, c) for c in shape.ctxs)) for task in shape.tasks]
    return Grid(("", *shape.columns), tuple(rows), "heat")


def _average(entrant: Entrant, family: str, ctx: int) -> Cell:
    cell = entrant.averages.get((family, ctx))
    if cell is None or math.isnan(cell.value):
        return Cell(DASH, kind="empty", title="no task has a score here")
    expected = expected_tasks(family, cell)
    subs = [f"{cell.n_tasks}/{expected} tasks" if cell.n_tasks < expected else "", _lost(cell.n_failed)]
    title = f"95 % interval {limits(cell.ci_low, cell.ci_high)}; {cell.n_tasks} of {expected} tasks"
    return Cell(score(cell.value), tuple(filter(None, subs)), title=title, level=100 * cell.value)


def _task(entrant: Entrant, task: str, ctx: int) -> Cell:
    cell = entrant.cells.get((task, ctx))
    if cell is None:
        return Cell("", kind="empty", title="not asked, or not answered yet")
    if not cell.n_total:
        return Cell(DASH, kind=SKIPPED, title=f"skipped: {skip_reason(entrant, task, ctx)}")
    subs = (_lost(cell.n_failed),) if cell.n_failed else ()
    if math.isnan(cell.value):
        why = (
            f"all {plural(cell.n_total, 'answer')} failed" if cell.n_failed == cell.n_total else "no answer was scored"
        )
        return Cell(DASH, subs, FAILED, f"no score: {why}")
    title = f"95 % interval {limits(cell.ci_low, cell.ci_high)}; {cell.n_scored} of {cell.n_total} answers scored"
    if cell.n_failed:
        title += f"; {limits(cell.bound_low, cell.bound_high)} if the {cell.n_failed} failed were wrong – right"
    return Cell(score(cell.value), subs, title=title, level=100 * cell.value)


def _lost(n: int) -> str:
    return f"{n} failed" if n else ""


def skip_reason(entrant: Entrant, task: str, ctx: int) -> str:
    for skip in entrant.run.get("skips", default=[]):
        if (skip.get("model"), skip.get("task"), skip.get("ctx")) == (entrant.model, task, ctx):
            return str(skip.get("reason") or "no reason stored")
    return "no reason stored"


def depth_section(entrants: Sequence[Entrant], depths: Depths, shape: Shape, looks: Looks) -> Section | None:
    """A heat map per model with such answers: depth of the needle against length. None where no model has any."""
    cards = []
    for e in entrants:
        found = depths.cells(e)
        ctxs = sorted({ctx for _, ctx in found})
        rows = [Row(name, tuple(_depth(found.get((name, ctx))) for ctx in ctxs)) for name in depths.names]
        if found:
            grid = Grid(("", *(format_length(ctx) for ctx in ctxs)), tuple(rows), "heat")
            cards.append(Card(title=e.label, look=looks[e.key], grid=grid))
    if not cards:
        return None
    lead = (
        "Where in the prompt the answer stands, from its beginning (0 %) to its end, against length: the mean score of all "
        f"samples whose answer stands at one place ({', '.join(task for task in shape.tasks if task in depths.tasks)})."
    )
    return Section(
        "depth", "Needle depth by context length", "Depth × length", lead, tuple(cards), "pair", keys=_keys(cards),
        methods=("depth",),
    )  # fmt: skip


def _depth(cell: cells.Cell | None) -> Cell:
    if cell is None:
        return Cell("", kind="empty", title="no sample has its answer here")
    subs = (_lost(cell.n_failed),) if cell.n_failed else ()
    if math.isnan(cell.value):
        return Cell(DASH, subs, FAILED, "no score: no answer was scored")
    title = f"95 % interval {limits(cell.ci_low, cell.ci_high)}; {cell.n_scored} of {cell.n_total} answers scored"
    return Cell(score(cell.value), subs, title=title, level=100 * cell.value)


def column_section(entrants: Sequence[Entrant], looks: Looks, official: bool) -> Section | None:
    """The paper's eight columns, its own rows under them. None while a model has values in one of them only."""
    rows = []
    for e in entrants:
        for ctx, (columns, mean) in column_rows([*e.cells.values(), *e.averages.values()]).items():
            title = "" if mean is None else f"95 % interval {limits(mean.low, mean.high)}"
            average = Cell(DASH if mean is None else score(mean.mean), title=title)
            found = (*(_column(cell) for cell in columns), average)
            rows.append(Row(e.label, (Cell(format_length(ctx)), *found), look=looks[e.key]))
    if not rows:
        return None
    for name, values in PAPER.items():
        shown = [Cell(f"{value:.1f}") for value in (*values, sum(values) / len(values))]
        rows.append(Row(f"paper: {name}", (Cell(format_length(PAPER_CTX)), *shown), kind="light"))
    lead = (
        "Averages of the families that the Kimi Linear paper's Table 5 has as columns, 0 to 100. The paper's own rows are of "
        "unreleased models at 128k with tasks, prompts and metrics that it states in part only"
        f"{'' if official else ', on official data'}: beside these for orientation, not for comparison. Hover over a cell for its "
        "interval and how many answers it rests on."
    )
    heads = ("Model", "ctx", *COLUMNS, "Average")
    grid = Grid(heads, tuple(rows), "plain", numbers=frozenset(range(1, len(heads))))
    return Section("columns", "The eight columns of the paper", "Eight columns", lead, (Card(grid=grid),))


def _column(cell: cells.Cell | None) -> Cell:
    if cell is None:
        return Cell(DASH)
    n, expected = column_tasks(cell)
    warnings = [f"{n} of {plural(expected, 'task')}" if n < expected else "", _lost(cell.n_failed)]
    title = f"95 % interval {limits(cell.ci_low, cell.ci_high)}; {cell.n_scored} of {cell.n_total} answers scored"
    return Cell(score(cell.value), title=title, warnings=tuple(filter(None, warnings)))


def table_section(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section:
    """Every score with its interval, its bounds and what it rests on."""
    grid = score_grid(entrants, shape, looks)
    lead = (
        "Bounds are shown where answers have no score: the score if all of those were wrong, and if all were right."
        + (
            " Broken: answers that the budget cut, that are empty, or that repeat one token or a short loop to their end."
            if "Broken" in grid.columns
            else ""
        )
    )
    return Section(
        "table", "All scores", "Table", lead, (Card(grid=grid),), methods=("scores", "intervals", "absences")
    )


def score_grid(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Grid:
    """Averages first, then tasks as they were planned, by length and model."""
    broken = any(cell.broken for e in entrants for cell in e.cells.values())
    heads = ("Task", "Length", "Model", "Score", "95 % interval", "", "Scored", "Failed", "Bounds")
    heads += (*(("Broken",) if broken else ()), "Edition", "Metric", "Interval by")
    rows = [
        _row(e, e.averages[family, ctx], looks, broken, family)
        for family in shape.families
        for ctx in shape.ctxs
        for e in entrants
        if (family, ctx) in e.averages
    ]
    for task in shape.tasks:
        for ctx in shape.ctxs:
            for e in entrants:
                rows += [_row(e, e.cells[task, ctx], looks, broken)] if (task, ctx) in e.cells else []
                rows += [_row(e, c, looks, broken) for c in e.others if (c.task, c.ctx) == (task, ctx)]
    return Grid(heads, tuple(rows), "full", "scores", frozenset({1, 3, 4, 5, 6, 7, 8}))


def _row(entrant: Entrant, cell: cells.Cell, looks: Looks, broken: bool, family: str = "") -> Row:
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
        *([Cell(_broken(cell))] if broken else []),
        Cell(cell.edition),
        Cell(cell.metric + coverage),
        Cell(cell.ci_method),
    ]
    return Row(cell.task, tuple(found), look=looks[entrant.key], kind="average" if family else "")


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
