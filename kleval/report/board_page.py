"""Leaderboard as a page: the rows of `kleval.tables.leaderboard` in one table that sorts by any column and filters by words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kleval.report.figure import Cell, Grid, Row
from kleval.report.header import Header
from kleval.report.page import document
from kleval.report.sections import Card, section
from kleval.report.verdict import Verdict
from kleval.tables.leaderboard import COLUMNS, spelled
from kleval.text import DASH, format_length, moment

_NUMBERS = ("Length", "Score", "Scored", "Failed")


def board(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page's text."""
    found = section("leaderboard", [Card(grid=board_grid(rows))])
    title = Header(lead_in="Leaderboard", names=(), sheets=(), lines=(), notices=(), data=None)
    runs = list(dict.fromkeys(str(row["run"]) for row in rows))
    return document([replace(found, id="table")], title, Verdict(""), {}, {}, runs)


def board_grid(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """Columns that say nothing in any row are left out; costs stand behind."""
    costs = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in COLUMNS]
    lines = [(str(row["run"]), {**_cells(row), **{name: _number(row.get(name)) for name in costs}}) for row in rows]
    heads = [head for head in (lines[0][1] if lines else ()) if any(cells[head].text for _, cells in lines)]
    numbers = frozenset(i for i, head in enumerate(heads, 1) if head in (*_NUMBERS, *costs[1:]))
    shown = tuple(Row(run, tuple(cells[head] for head in heads)) for run, cells in lines)
    return Grid(("Run", *heads), shown, "full", "scores", numbers)


def _cells(row: Mapping[str, Any]) -> dict[str, Cell]:
    value, (shown, interval) = row["value"], spelled(row)
    few = row["n_tasks"] is not None and row["n_tasks"] < row["n_tasks_expected"]
    task = f"{row['task']} ({row['n_tasks']} of {row['n_tasks_expected']})" if few else str(row["task"])
    return {
        "Started": Cell(moment(row["date"])),
        "Model": Cell(str(row["model"]), kind="main"),
        "Task": Cell(task, kind="main"),
        "Length": Cell(format_length(row["ctx"]), sort=row["ctx"]),
        "Score": Cell(shown or DASH, kind="main", sort=-1.0 if value is None else value),
        "95 % interval": Cell(interval),
        "Scored": Cell(f"{row['n_scored']} / {row['n']}" if row["n"] else "skipped", sort=row["n_scored"]),
        "Failed": Cell(str(row["n_failed"]), kind="warned" if row["n_failed"] else ""),
        "Metric": Cell(f"{row['metric']}, {row['unit']}" if row["unit"] else str(row["metric"])),
        "Engine": Cell(str(row["engine_version"] or "")),
        "Hardware": Cell(str(row["hardware"] or "")),
        "Tags": Cell(str(row["tags"])),
        "Edition": Cell(str(row["edition"])),
        "Protocol": Cell(str(row["protocol"])),
        "Status": Cell(str(row["run_status"])),
    }


def _number(value: Any) -> Cell:
    if isinstance(value, (int, float)):
        return Cell(f"{value:.4g}", sort=value)
    return Cell("" if value is None else str(value), sort=-1.0 if value is None else None)
