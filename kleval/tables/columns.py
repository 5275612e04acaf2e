"""The eight columns of the paper's long-context table, from the cells of a run.

arXiv 2510.26692, Table 5: models of 1.4T tokens at 128k, temperature 1.0. Which tasks, prompts and metrics are behind its
columns is stated in part only, so its numbers stand beside a run's for orientation. A column is a family's average or,
where the paper splits a family, a single task. A model's average is over the eight; there is none while one is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from kleval.files import packaged
from kleval.tables.cells import Cell, has_mean, mover
from kleval.tables.intervals import Interval

PAPER_CTX = 128 * 1024
_TABLE = packaged("paper.toml")["tables"]["5"]
COLUMNS: dict[str, str] = {
    row.get("column", row["benchmark"]): family if has_mean(family := row["tasks"].partition("/")[0]) else row["tasks"]
    for row in _TABLE["rows"]
}
PAPER: dict[str, tuple[float, ...]] = {
    name: tuple(row["scores"][i] for row in _TABLE["rows"]) for i, name in enumerate(_TABLE["columns"])
}


Columns = tuple[list[Cell | None], Interval | None]


def column_rows(cells: Iterable[Cell]) -> dict[int, Columns]:
    """By ctx, a cell per column (None where there is no value) and the average over the eight, None without all.

    cells: one model's headline cells and family averages in one edition. Empty while only one column has values.
    """
    known = {(cell.task, cell.ctx): cell for cell in cells if cell.headline}
    tasks: dict[str, set[str]] = {}
    for task, _ in known:
        tasks.setdefault(task.split("/", 1)[0], set()).add(task)
    # A family of one task has no average: its task is the column.
    names = [next(iter(tasks[name])) if len(tasks.get(name, ())) == 1 else name for name in COLUMNS.values()]
    rows: dict[int, Columns] = {}
    for ctx in sorted({ctx for _, ctx in known}):
        found = [known.get((name, ctx)) for name in names]
        shown = [None if cell is None or math.isnan(cell.value) else cell for cell in found]
        present = [cell for cell in shown if cell is not None]
        rows[ctx] = shown, mover(present) if len(present) == len(COLUMNS) else None
    filled = [any(shown[i] is not None for shown, _ in rows.values()) for i in range(len(COLUMNS))]
    return rows if sum(filled) > 1 else {}
