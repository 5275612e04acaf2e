"""Leaderboard file that grows: rows of runs put into a CSV or JSON file, each run once, by any number of writers at a time.

A run is known by its `run_uid`, wherever its directory lies: what the file holds of it is replaced. Writers wait for each other (a
lock file beside it), and readers see the file before or after, never half of it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kleval.files import usage_errors, write_text
from kleval.tables import formats
from kleval.types import UsageError

KINDS = ("csv", "json")
LOCK_SECONDS = 60.0
RUN = "run_uid"
_CELL = (RUN, "model", "task", "ctx", "metric", "edition", "protocol")

Rows = Sequence[Mapping[str, Any]]


def append(path: Path, rows: Rows, columns: Sequence[str], kind: str) -> Path:
    """Put rows behind those that the file at path holds of other runs. columns: of the rows; the file keeps further ones.

    UsageError for another kind than KINDS, a file that is no leaderboard, and one that cannot be written.
    """
    if kind not in KINDS:
        raise UsageError(f"--append goes on with a CSV or JSON file, not with {kind}: add --out FILE.csv")
    path = Path(path).resolve()
    with usage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise UsageError(f"{path} is being written by another kleval: try again") from None
        except NotImplementedError:
            raise UsageError(f"{path} is on a file system without locks: give a path on a local disk") from None
    with lock:
        return _write(path, rows, columns, kind)


def _write(path: Path, rows: Rows, columns: Sequence[str], kind: str) -> Path:
    known, old = _read(path, kind)
    new = list({tuple(row[name] for name in _CELL): row for row in rows}.values())
    again = {row[RUN] for row in new}
    kept = [row for row in old if row[RUN] not in again]
    names = list(dict.fromkeys([*known, *columns]))
    if kind == "json":
        return write_text(path, formats.to_json([*kept, *new], names))
    # What is in the file is text as it is to be written; only new cells are guarded.
    cells = [[row.get(name) or "" for name in names] for row in kept]
    cells += [[formats.cell_text(row.get(name)) for name in names] for row in new]
    return write_text(path, formats.csv_text(names, cells))


def _read(path: Path, kind: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the file; none where there is no file, or an empty one."""
    with usage_errors(path):
        text = path.read_text("utf-8", "replace") if path.exists() else ""
    if not text.strip():
        return [], []
    try:
        if kind == "json":
            rows = [dict(row) for row in json.loads(text)] if text.lstrip().startswith("[") else [{}]
            columns = list(dict.fromkeys(name for row in rows for name in row))
        else:
            reader = csv.DictReader(io.StringIO(text))
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (ValueError, TypeError, csv.Error):
        rows, columns = [{}], []
    if not all(row.get(RUN) for row in rows) or (kind == "csv" and RUN not in columns):
        raise UsageError(f"{path} is no leaderboard that can be appended to (a row has no {RUN}): give another --out")
    return columns, rows
