"""LongBench v2's data: 503 rows {_id, domain, sub_domain, difficulty, length, question, choice_A … choice_D, answer, context}.

`data.json` as published (a JSON list), or the same rows in another format. No hash of the published file is known
here: every row's fields are checked when it is read, and the file's own hash is the data digest of every result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.tasks import data, tables
from kleval.tasks.data import Source
from kleval.tasks.longbench2.scoring import LETTERS
from kleval.types import UsageError

FILE = "data.json"
DIFFICULTIES = ("easy", "hard")
LENGTHS = ("short", "medium", "long")


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    domain: str
    sub_domain: str
    difficulty: str
    length: str
    question: str = field(repr=False)
    choices: tuple[str, ...] = field(repr=False)
    answer: str
    context: str = field(repr=False)


def find(task_id: str, data_dir: Path | None) -> Source:
    """The data's file. UsageError naming the command that gets it when there is none."""
    status = data.need("longbench2", FILE, f"{task_id} (official)", data_dir)
    return Source(
        (status.path,), f"LongBench-v2 unpinned {status.path.name} sha256:{status.sha256[:16]}", status.sha256
    )


def read(source: Source) -> Iterator[Row]:
    """Rows in the file's order, one at a time. UsageError naming file and row of what is not what it must be."""
    for where, row in tables.rows(source.path):
        yield _row(where, row)


def _row(where: str, row: dict[str, Any]) -> Row:
    return Row(
        tables.text(where, row, "_id"),
        tables.text(where, row, "domain"),
        tables.text(where, row, "sub_domain"),
        _one_of(where, row, "difficulty", DIFFICULTIES),
        _one_of(where, row, "length", LENGTHS),
        tables.text(where, row, "question"),
        tuple(tables.text(where, row, f"choice_{letter}") for letter in LETTERS),
        _one_of(where, row, "answer", LETTERS),
        tables.text(where, row, "context"),
    )


def _one_of(where: str, row: dict[str, Any], name: str, known: tuple[str, ...]) -> str:
    found = tables.text(where, row, name)
    if found not in known:
        raise UsageError(f"{where}: field {name!r} must be one of {', '.join(known)}, is {found[:40]!r}")
    return found
