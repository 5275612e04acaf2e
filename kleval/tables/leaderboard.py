"""Stored runs as one table: a row per (model, task, ctx, metric, edition, protocol), for spreadsheets and for pasting.

Scores, limits and bounds are shown x 100; where `unit` says one (`nats per token`) they are in it. A family's average has the family as
task and `average` as metric; n_tasks of n_tasks_expected tell how many tasks it covers, and an average over fewer than all is not the
family's score. Text that a spreadsheet would take for a formula is kept from being one. `run` is what people call the run, `run_uid`
tells it from all others, `date` is when it began (UTC, ISO 8601). `area…`: under the curve of the row's task and metric over the
lengths of the run (`kleval.tables.area`), the same in each of its rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.files import write_text
from kleval.store import RunStore
from kleval.tables import formats
from kleval.tables.area import Area, area
from kleval.tables.cells import Cell
from kleval.tables.costs import Profile, read_profile
from kleval.tables.joined import columns, engine_version, joined, run_setting
from kleval.tables.scores import Entrant, collect, expected_tasks, members
from kleval.text import moment

LIMITS = ("value", "ci_low", "ci_high", "bound_low", "bound_high", "value_completed")  # of a cell, x 100
BROKEN = ("cut", "empty", "looped")
COLUMNS = (
    *("model", "task", "ctx", "metric", "value", "ci_low", "ci_high", "ci_method"),
    *("n", "n_scored", "n_failed", "n_skipped", "bound_low", "bound_high", "n_tasks", "n_tasks_expected"),
    *("edition", "protocol", "task_version", "data_revision", "data_digest", "seed", "temperature", "repeats"),
    *("backend", "dtype", "device", "kleval_version", "commit", "run_id", "run_status", "date"),
    *("n_texts", *(f"n_{name}" for name in BROKEN), *(f"share_{name}" for name in BROKEN)),
    *("value_completed", "n_completed", "n_reasoning_cut"),
    *("run", "tags", "engine_version", "hardware", "verified", "run_uid"),
    *("area", "area_low", "area_high", "area_ctx"),
    *("unit", "n_samples"),
)
MARKDOWN_COLUMNS = ("model", "task", "ctx", "metric", "value", "95 % interval", "n", "failed", "edition", "protocol")


def to_rows(runs: Sequence[RunStore], profiles: Sequence[RunStore] = ()) -> list[dict[str, Any]]:
    """One dict per cell with the keys of COLUMNS, numbers as numbers, None for what is not there; with profiles also `cost_of` and
    the columns of what the row's length costs its model (`kleval.tables.joined`).

    Ordered as the runs and their models are, families' averages before their tasks, then by task, metric and ctx.
    UsageError when there is nothing to show.
    """
    return entrant_rows(collect(runs), [read_profile(store) for store in profiles])


def entrant_rows(entrants: Sequence[Entrant], profiles: Sequence[Profile] = ()) -> list[dict[str, Any]]:
    """The rows of entrants that are collected already; see to_rows."""
    rows = []
    costs = joined(entrants, profiles) if profiles else {}
    names = columns(costs)
    for entrant in [one for e in entrants for one in ((e, e.gains) if e.cells else (e.gains,)) if one is not None]:
        cells = [*entrant.averages.values(), *entrant.cells.values(), *entrant.others]
        curves: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            curves.setdefault((cell.task, cell.metric), []).append(cell)
        again, tasks = entrant.again, tuple(dict.fromkeys(task for task, _ in entrant.cells))
        areas = {
            (task, metric): area(of, not again.isdisjoint([task, *members(task, entrant, tasks)]))
            for (task, metric), of in curves.items()
        }
        for cell in sorted(cells, key=lambda c: (c.task, not c.headline, c.metric, c.ctx, c.edition, c.protocol)):
            row = _row(entrant, cell, (cell.task, cell.ctx) in entrant.averages, areas[cell.task, cell.metric])
            if costs:
                cost = costs[entrant.key, cell.ctx]
                row |= {"cost_of": cost.of, **{name: cost.values.get(name) for name in names}}
            rows.append(row)
    return rows


def write_csv(runs: Sequence[RunStore], path: Path) -> Path:
    """Write to_csv(to_rows(runs)) to path, all of it or nothing. UsageError when it cannot be written."""
    return write_text(path, to_csv(to_rows(runs)))


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of to_rows as CSV."""
    return formats.to_csv(rows, columns_of(rows))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """COLUMNS, then what costs add."""
    return list(dict.fromkeys([*COLUMNS, *(rows[0] if rows else ())]))


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of to_rows as a markdown table of the columns that a reader compares by; of several runs, which and when, and what else
    tells them apart."""
    several = len({row["run_uid"] for row in rows}) > 1
    apart = [name for name in ("engine_version", "hardware", "tags") if len({row[name] for row in rows}) > 1]
    which = ["run", "date", *apart] if several else []
    broken = any(row[f"share_{name}"] for row in rows for name in BROKEN)
    costs = columns_of(rows)[len(COLUMNS) :]
    lines = []
    for row in rows:
        partial = row["n_tasks"] is not None and row["n_tasks"] < row["n_tasks_expected"]
        task = f"{row['task']} ({row['n_tasks']} of {row['n_tasks_expected']} tasks)" if partial else row["task"]
        value, limits = spelled(row)
        failed = str(row["n_failed"]) if row["n"] else "skipped"
        said = [moment(row[name]) if name == "date" else row[name] for name in which]
        line = [
            row["model"],
            *said,
            task,
            row["ctx"],
            f"{row['metric']} ({row['unit']})" if row["unit"] else row["metric"],
            value,
            limits,
            f"{row['n_scored']}/{row['n']}",
            failed,
        ]
        line += [row["edition"], row["protocol"]]
        if broken:
            whole = "" if row["value_completed"] is None else f"{row['value_completed']:.1f} (n {row['n_completed']})"
            line += [*("" if row["share_cut"] is None else f"{row[f'share_{name}']:.0f} %" for name in BROKEN), whole]
        line += [f"{row[name]:.4g}" if isinstance(row[name], float) else row[name] for name in costs]
        lines.append(line)
    names = [
        MARKDOWN_COLUMNS[0],
        *which,
        *MARKDOWN_COLUMNS[1:],
        *((*BROKEN, "value of completed") if broken else ()),
        *costs,
    ]
    return formats.to_markdown(names, lines, right=("ctx", "value", "n", *BROKEN, *costs[1:]))


def _row(entrant: Entrant, cell: Cell, average: bool, over: Area | None) -> dict[str, Any]:
    run, task = entrant.run, entrant.task(cell.task)
    if average:
        names = members(cell.task, entrant, dict.fromkeys(name for name, _ in entrant.cells))
        task = {
            name: _common([entrant.task(one) for one in names], name)
            for name in ("version", "data_revision", "data_digest")
        }
    row = {name: getattr(cell, name) for name in COLUMNS if name in Cell.__dataclass_fields__}
    row |= {name: _shown(getattr(cell, name), cell) for name in LIMITS}
    row |= {f"share_{name}": _share(getattr(cell, f"n_{name}"), cell.n_texts) for name in BROKEN}
    row |= {
        "n": cell.n_total,
        "n_tasks": cell.n_tasks if average else None,
        "n_tasks_expected": expected_tasks(cell.task, cell) if average else None,
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
        "date": str(run.get("started", default="")),
        "run": run.title,
        "tags": " ".join(f"{key}={value}" for key, value in run.get("tags", default={}).items()),
        "engine_version": engine_version(entrant),
        "hardware": run_setting(entrant)["hardware"],
        "verified": run.get("verify", entrant.model, "verdict"),
        "run_uid": run.store.uid,
        "area": _shown(over.value, cell) if over else None,
        "area_low": _shown(over.low, cell) if over else None,
        "area_high": _shown(over.high, cell) if over else None,
        "area_ctx": f"{over.first}-{over.last}" if over else None,
    }
    return {name: row[name] for name in COLUMNS}


def _share(n: int, of: int) -> float | None:
    """In percent, None of nothing."""
    return percent(n / of) if of else None


def spelled(row: Mapping[str, Any]) -> tuple[str, str]:
    """Value and interval of a row in words."""
    form, to = (".3f", "to") if row["unit"] else (".1f", "–")
    value = "" if row["value"] is None else f"{row['value']:{form}}"
    return value, "" if row["ci_low"] is None else f"{row['ci_low']:{form}} {to} {row['ci_high']:{form}}"


def _shown(value: float, cell: Cell) -> float | None:
    """As a table has it: x 100, or in its unit to six digits."""
    if not cell.unit:
        return percent(value)
    return None if math.isnan(value) else round(value, 6)


def percent(value: float | None) -> float | None:
    """x 100 to four digits, so that who rounds it to one has what the page and the terminal show; None for NaN."""
    return None if value is None or math.isnan(value) else round(value * 100, 4)


def _common(members: Sequence[Mapping[str, Any]], name: str) -> Any:
    """The value that all tasks of a family share, else `mixed`."""
    values = list(dict.fromkeys(member.get(name) for member in members))
    return values[0] if len(values) == 1 else "mixed" if values else None
