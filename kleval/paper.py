"""Benchmarks of the Kimi Linear paper (arXiv 2510.26692, Tables 3, 4, 5, 8 and 9), and the task that asks each (`paper.toml`).

Per row: what kleval asks it with (task ids, shots, metric), how the paper sampled it, the scores it prints, and what
differs; or why there is no task. Scores are in per cent. Tables 3 to 5 are of models after 1.4T tokens, none of which was
released; Tables 8 and 9 of the released ones after 5.7T beside Moonlight 16B-A3B. The paper samples everything at temperature
1.0, takes the mean of several answers where it says Avg@k, and scores base models by likelihood on MMLU, MMLU-Redux,
GPQA-Diamond and C-Eval. Its shots are printed in Table 8 alone, and taken from there for the base models of Table 3 too; what
it states nowhere is kleval's choice and marked so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from kleval.files import packaged
from kleval.types import UsageError

TEMPERATURE = 1.0
_FOUND = packaged("paper.toml")
TABLES: dict[str, str] = {number: table["of"] for number, table in _FOUND["tables"].items()}


@dataclass(frozen=True, slots=True)
class Row:
    """One benchmark of one table.

    tasks: task ids or families, several where the score is their mean; empty where there is none, and `note` says why.
    shots: as kleval asks. paper_shots: as Table 8 states for the benchmark, None where the paper does not.
    metric: the headline, as in the rows of results.
    repeats: the paper's Avg@k. ctx: for long context. scores: column -> per cent, None where the paper prints none.
    note: what differs from the paper, or why there is no task.
    """

    table: str
    benchmark: str
    tasks: tuple[str, ...]
    shots: int
    paper_shots: int | None
    metric: str
    repeats: int
    ctx: str
    scores: Mapping[str, float | None]
    note: str

    def record(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "table": self.table,
            "of": TABLES[self.table],
            "benchmark": self.benchmark,
            "tasks": list(self.tasks),
            "shots": self.shots if self.tasks else None,
            "paper_shots": self.paper_shots,
            "metric": self.metric,
            "temperature": TEMPERATURE,
            "repeats": self.repeats,
            "ctx": self.ctx,
            "scores": dict(self.scores),
            "note": self.note,
        }


def _row(number: str, row: Mapping[str, Any]) -> Row:
    table, note = _FOUND["tables"][number], row.get("note", "")
    return Row(
        number,
        row["benchmark"],
        tuple(row.get("tasks", "").split()),
        row.get("shots", 0),
        _FOUND["shots"].get(row["benchmark"]) if table.get("base") else None,
        row.get("metric", ""),
        row.get("repeats", 1),
        row.get("ctx", table.get("ctx", "")),
        dict(zip_longest(table["columns"], row["scores"])),
        _FOUND["notes"].get(note, note),
    )


ROWS: tuple[Row, ...] = tuple(_row(number, row) for number, table in _FOUND["tables"].items() for row in table["rows"])


def rows(table: str | None = None) -> tuple[Row, ...]:
    """All rows, or those of one table. UsageError for a table that has none."""
    if table is None:
        return ROWS
    if table not in TABLES:
        raise UsageError(f"the paper's tables are {', '.join(TABLES)}, not {table!r}")
    return tuple(row for row in ROWS if row.table == table)


def tasks(table: str, code: bool = True) -> tuple[str, ...]:
    """Task ids of a table, in its order. code: with those that run what a model writes."""
    found = [task for row in rows(table) for task in row.tasks if code or not _runs_code(task)]
    return tuple(dict.fromkeys(found))


def _runs_code(task: str) -> bool:
    """Whether the card of the task's family says so of all of it."""
    return "code execution" in packaged(f"tasks/{task.partition('/')[0]}/card.toml").get("needs", ())
