"""Rows as text or bytes: CSV, JSON, JSON lines, markdown, Parquet.

CSV and Parquet hold every column, unrounded; text that a spreadsheet would take for a formula is kept from being one in CSV.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kleval.packages import need

FORMATS = ("csv", "md", "json", "jsonl", "parquet", "html")
ENDINGS = {".html": "html", ".md": "md", ".json": "json", ".jsonl": "jsonl", ".parquet": "parquet"}
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

Rows = Sequence[Mapping[str, Any]]


def to_csv(rows: Rows, columns: Sequence[str]) -> str:
    """A header and a line per row, `\\n` line ends."""
    return csv_text(columns, ([cell_text(row.get(name)) for name in columns] for row in rows))


def csv_text(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """As `to_csv`, of cells that are text already."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return buffer.getvalue()


def cell_text(value: Any) -> str:
    """A CSV cell: empty for None, numbers as they are, text that a spreadsheet would run as a formula after a quote."""
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return str(value)
    text = str(value)
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


def to_json(rows: Rows, columns: Sequence[str]) -> str:
    """One list of objects, null for what is not there."""
    return json.dumps([{name: row.get(name) for name in columns} for row in rows], indent=1, ensure_ascii=False) + "\n"


def to_json_lines(rows: Rows, columns: Sequence[str]) -> str:
    """An object per line, null for what is not there."""
    return "".join(json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False) + "\n" for row in rows)


def to_markdown(columns: Sequence[str], lines: Sequence[Sequence[Any]], right: Sequence[str] = ()) -> str:
    """A table; right: the columns whose cells stand on the right."""
    rule = ["---:" if name in right else "---" for name in columns]
    return "".join("| " + " | ".join(_markdown(cell) for cell in line) + " |\n" for line in (columns, rule, *lines))


def to_parquet(rows: Rows, columns: Sequence[str]) -> bytes:
    """One file; a column that holds words anywhere is text. UsageError without pyarrow."""
    pyarrow, parquet = (need(name, "data", "writing Parquet") for name in ("pyarrow", "pyarrow.parquet"))
    values = {name: [row.get(name) for row in rows] for name in columns}
    for name, column in values.items():
        if any(isinstance(value, str) for value in column):
            values[name] = [None if value is None else str(value) for value in column]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(values), buffer)
    return buffer.getvalue()


def _markdown(value: Any) -> str:
    text = "" if value is None else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("\r", " ")


# What writes every column of rows as text, by the name of its format.
COMPLETE = {"csv": to_csv, "json": to_json, "jsonl": to_json_lines}
