"""What the page shows of the scores, as plain values for the template: averages, heat maps, the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kleval.tables import ruler
from kleval.tables.cells import Cell
from kleval.tables.scores import Entrant, expected_tasks
from kleval.text import format_length, limits, plural, score, short_task


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


@dataclass(frozen=True, slots=True)
class HeatCell:
    """kind: scored | failed | skipped | empty. level: 0 to 100, how strong the colour is. title: shown on hover."""

    kind: str
    text: str
    level: float = 0.0
    title: str = ""
    failed: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class HeatRow:
    label: str
    cells: tuple[HeatCell, ...]
    average: bool = False


def heat_rows(entrant: Entrant, shape: Shape) -> list[HeatRow]:
    """The entrant's averages, then its tasks, at every length of the report."""
    rows = [
        HeatRow(f"{family} average", tuple(_average_cell(entrant, family, ctx) for ctx in shape.ctxs), average=True)
        for family in shape.families
    ]
    for task in shape.tasks:
        rows.append(HeatRow(shape.name(task), tuple(_heat_cell(entrant, task, ctx) for ctx in shape.ctxs)))
    return rows


def _average_cell(entrant: Entrant, family: str, ctx: int) -> HeatCell:
    cell = entrant.averages.get((family, ctx))
    if cell is None or math.isnan(cell.value):
        return HeatCell("empty", "–", title="no task has a score here")
    expected = expected_tasks(family, cell)
    coverage = f"{cell.n_tasks}/{expected} tasks" if cell.n_tasks < expected else ""
    title = f"95 % interval {limits(cell.ci_low, cell.ci_high)}; {cell.n_tasks} of {expected} tasks"
    return HeatCell("scored", score(cell.value), cell.value * 100, title, cell.n_failed, coverage)


def _heat_cell(entrant: Entrant, task: str, ctx: int) -> HeatCell:
    cell = entrant.cells.get((task, ctx))
    if cell is None:
        return HeatCell("empty", "", title="not asked, or not answered yet")
    if not cell.n_total:
        return HeatCell("skipped", "–", title=f"skipped: {skip_reason(entrant, task, ctx)}")
    if math.isnan(cell.value):
        failed = cell.n_failed == cell.n_total
        why = f"all {plural(cell.n_total, 'answer')} failed" if failed else "no answer was scored"
        return HeatCell("failed", "–", title=f"no score: {why}", failed=cell.n_failed)
    title = f"95 % interval {limits(cell.ci_low, cell.ci_high)}; {cell.n_scored} of {cell.n_total} answers scored"
    if cell.n_failed:
        title += f"; {limits(cell.bound_low, cell.bound_high)} if the {cell.n_failed} failed were wrong – right"
    return HeatCell("scored", score(cell.value), cell.value * 100, title, cell.n_failed)


def skip_reason(entrant: Entrant, task: str, ctx: int) -> str:
    for skip in entrant.run.get("skips", default=[]):
        if (skip.get("model"), skip.get("task"), skip.get("ctx")) == (entrant.model, task, ctx):
            return str(skip.get("reason") or "no reason stored")
    return "no reason stored"


def partial_coverage(family: str, cell: Cell) -> str:
    """`9 of 13 tasks` for an average that does not cover its family, else the empty text."""
    expected = expected_tasks(family, cell)
    return f"{cell.n_tasks} of {expected} tasks" if cell.n_tasks < expected else ""


@dataclass(frozen=True, slots=True)
class AverageCell:
    text: str
    limits: str
    coverage: str
    failed: int


@dataclass(frozen=True, slots=True)
class AverageRow:
    """summary: what else the family's rules make of the averages."""

    entrant: Entrant
    cells: tuple[AverageCell, ...]
    summary: str = ""


def average_rows(entrants: Sequence[Entrant], family: str, ctxs: Sequence[int]) -> list[AverageRow]:
    """Of the entrants that were asked the family."""
    rows = []
    for e in entrants:
        cells = {ctx: cell for ctx in ctxs if (cell := e.averages.get((family, ctx))) is not None}
        if not cells:
            continue
        shown = tuple(_shown_average(cells.get(ctx), family) for ctx in ctxs)
        rows.append(AverageRow(e, shown, ruler.in_words(cells.values())))
    return rows


def _shown_average(cell: Cell | None, family: str) -> AverageCell:
    if cell is None or math.isnan(cell.value):
        return AverageCell("–", "", "", 0)
    text, coverage = score(cell.value), partial_coverage(family, cell)
    return AverageCell(text, limits(cell.ci_low, cell.ci_high), coverage, cell.n_failed)


@dataclass(frozen=True, slots=True)
class TableRow:
    """One line of the full table. bar: (low, value, high) x 100 for the little drawing, None without a value."""

    entrant: Entrant
    task: str
    metric: str
    ctx: int
    length: str
    value: str
    sort_value: float
    limits: str
    bar: tuple[float, float, float] | None
    method: str
    n_scored: int
    n_total: int
    n_failed: int
    n_skipped: int
    bounds: str
    edition: str
    coverage: str
    average: bool
    broken: str = ""


def table_rows(entrants: Sequence[Entrant], shape: Shape) -> list[TableRow]:
    """Averages first, then tasks as they were planned, by length and model."""
    rows: list[TableRow] = []
    for family in shape.families:
        for ctx in shape.ctxs:
            rows += [_table_row(e, e.averages[family, ctx], family) for e in entrants if (family, ctx) in e.averages]
    for task in shape.tasks:
        for ctx in shape.ctxs:
            for e in entrants:
                if (task, ctx) in e.cells:
                    rows.append(_table_row(e, e.cells[task, ctx]))
                rows += [_table_row(e, c) for c in e.others if (c.task, c.ctx) == (task, ctx)]
    return rows


def _table_row(entrant: Entrant, cell: Cell, family: str = "") -> TableRow:
    missing = math.isnan(cell.value)
    return TableRow(
        entrant=entrant,
        task=cell.task,
        metric=cell.metric,
        ctx=cell.ctx,
        length=format_length(cell.ctx),
        value=score(cell.value),
        sort_value=-1.0 if missing else cell.value,
        limits=limits(cell.ci_low, cell.ci_high),
        bar=None if missing else (cell.ci_low * 100, cell.value * 100, cell.ci_high * 100),
        method=cell.ci_method,
        n_scored=cell.n_scored,
        n_total=cell.n_total,
        n_failed=cell.n_failed,
        n_skipped=cell.n_skipped,
        # A side metric may not apply to a question that was answered: that is no failure, and bounds nothing.
        bounds=limits(cell.bound_low, cell.bound_high)
        if cell.n_scored < cell.n_total and (cell.headline or cell.n_failed)
        else "",
        edition=cell.edition,
        coverage=f"{cell.n_tasks} of {expected_tasks(family, cell)}" if family else "",
        average=bool(family),
        broken=_broken(cell),
    )


def _broken(cell: Cell) -> str:
    """`2 cut, 1 empty`: answers that the budget ended, that are empty, that repeat one token or a short loop to the end, or of which
    only the reasoning came."""
    counts = (
        ("cut", cell.n_cut),
        ("empty", cell.n_empty),
        ("looping", cell.n_looped),
        ("reasoning cut", cell.n_reasoning_cut),
    )
    return ", ".join(f"{n} {name}" for name, n in counts if n and cell.headline)
