"""Stored runs as one table: a row per (model, task, ctx, metric, edition, protocol), for spreadsheets and for pasting.

Scores, limits and bounds are shown x 100. A family's average has the family as task and `average` as metric; n_tasks
of n_tasks_expected tell how many tasks it covers, and an average over fewer than all is not the family's score. Text
that a spreadsheet would take for a formula is kept from being one.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.files import write_text
from kleval.store import RunStore
from kleval.tables.cells import Cell
from kleval.tables.scores import Entrant, collect, expected_tasks

COLUMNS = (
    "model",
    "task",
    "ctx",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "ci_method",
    "n",
    "n_scored",
    "n_failed",
    "n_skipped",
    "bound_low",
    "bound_high",
    "n_tasks",
    "n_tasks_expected",
    "edition",
    "protocol",
    "task_version",
    "data_revision",
    "data_digest",
    "seed",
    "temperature",
    "repeats",
    "backend",
    "dtype",
    "device",
    "kleval_version",
    "commit",
    "run_id",
    "run_status",
    "date",
)
MARKDOWN_COLUMNS = ("model", "task", "ctx", "metric", "value", "95 % interval", "n", "failed", "edition", "protocol")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_rows(runs: Sequence[RunStore]) -> list[dict[str, Any]]:
    """One dict per cell with the keys of COLUMNS, numbers as numbers, None for what is not there.

    Ordered as the runs and their models are, families' averages before their tasks, then by task, metric and ctx.
    UsageError when there is nothing to show.
    """
    return entrant_rows(collect(runs))


def entrant_rows(entrants: Sequence[Entrant]) -> list[dict[str, Any]]:
    """The rows of entrants that are collected already; see to_rows."""
    rows = []
    for entrant in entrants:
        cells = [*entrant.averages.values(), *entrant.cells.values(), *entrant.others]
        for cell in sorted(cells, key=lambda c: (c.task, not c.headline, c.metric, c.ctx, c.edition, c.protocol)):
            rows.append(_row(entrant, cell, average=(cell.task, cell.ctx) in entrant.averages))
    return rows


def write_csv(runs: Sequence[RunStore], path: Path) -> Path:
    """Write to_csv(to_rows(runs)) to path, all of it or nothing. UsageError when it cannot be written."""
    return write_text(path, to_csv(to_rows(runs)))


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of to_rows as CSV: a header, a line per row, `\\n` line ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell_text(row.get(name)) for name in COLUMNS] for row in rows)
    return buffer.getvalue()


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of to_rows as a markdown table of the columns that a reader compares by."""
    lines = [MARKDOWN_COLUMNS, tuple("---:" if name in ("ctx", "value", "n") else "---" for name in MARKDOWN_COLUMNS)]
    for row in rows:
        partial = row["n_tasks"] is not None and row["n_tasks"] < row["n_tasks_expected"]
        task = f"{row['task']} ({row['n_tasks']} of {row['n_tasks_expected']} tasks)" if partial else row["task"]
        value = "" if row["value"] is None else f"{row['value']:.1f}"
        limits = "" if row["ci_low"] is None else f"{row['ci_low']:.1f} – {row['ci_high']:.1f}"
        n = f"{row['n_scored']}/{row['n']}"
        failed = str(row["n_failed"]) if row["n"] else "skipped"
        lines.append(
            (row["model"], task, row["ctx"], row["metric"], value, limits, n, failed, row["edition"], row["protocol"])
        )
    return "".join("| " + " | ".join(_markdown_cell(cell) for cell in line) + " |\n" for line in lines)


def cell_text(value: Any) -> str:
    """A CSV cell: empty for None, numbers as they are, text that a spreadsheet would run as a formula after a quote."""
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return str(value)
    text = str(value)
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


def _row(entrant: Entrant, cell: Cell, average: bool) -> dict[str, Any]:
    run, task = entrant.run, entrant.task(cell.task)
    if average:
        members = [entrant.task(name) for name, _ in entrant.cells if name.startswith(f"{cell.task}/")]
        task = {name: _common(members, name) for name in ("version", "data_revision", "data_digest")}
    return {
        "model": cell.model,
        "task": cell.task,
        "ctx": cell.ctx,
        "metric": cell.metric,
        "value": percent(cell.value),
        "ci_low": percent(cell.ci_low),
        "ci_high": percent(cell.ci_high),
        "ci_method": cell.ci_method,
        "n": cell.n_total,
        "n_scored": cell.n_scored,
        "n_failed": cell.n_failed,
        "n_skipped": cell.n_skipped,
        "bound_low": percent(cell.bound_low),
        "bound_high": percent(cell.bound_high),
        "n_tasks": cell.n_tasks if average else None,
        "n_tasks_expected": expected_tasks(cell.task, cell) if average else None,
        "edition": cell.edition,
        "protocol": cell.protocol,
        "task_version": task.get("version"),
        "data_revision": task.get("data_revision"),
        "data_digest": task.get("data_digest"),
        "seed": run.setting("seed"),
        "temperature": entrant.temperature,
        "repeats": run.setting("repeats"),
        "backend": entrant.about.get("backend"),
        "dtype": entrant.described("dtype"),
        "device": entrant.described("device"),
        "kleval_version": run.get("kleval", "version"),
        "commit": run.get("kleval", "commit"),
        "run_id": run.id,
        "run_status": run.status,
        "date": str(run.get("started", default=""))[:10],
    }


def percent(value: float | None) -> float | None:
    """x 100 to two digits, more than any interval here warrants; None for NaN."""
    return None if value is None or math.isnan(value) else round(value * 100, 2)


def _common(members: Sequence[Mapping[str, Any]], name: str) -> Any:
    """The value that all tasks of a family share, else `mixed`."""
    values = list(dict.fromkeys(member.get(name) for member in members))
    return values[0] if len(values) == 1 else "mixed" if values else None


def _markdown_cell(value: Any) -> str:
    return (
        ""
        if value is None
        else str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("\r", " ")
    )
