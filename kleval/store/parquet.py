"""Rows of a cell as one Parquet file, the compact form of what is finished: typed columns, zstd, pages with checksums.

A column per field of a Row; `failure`, `metrics`, `extracted`, `outcomes` and `meta`, which have no one type, are JSON. Rows stand in
the order in which they are read. A file is never changed, only replaced. Needs pyarrow (extra `data`).
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from kleval.packages import need
from kleval.store.records import Row, from_fields, to_line
from kleval.types import UsageError

SUFFIX = ".parquet"
GROUP_ROWS, GROUP_BYTES = 1024, 4 << 20  # of rows that are written, and read, at once: what is held of a file
AS_JSON = frozenset({"failure", "metrics", "extracted", "outcomes", "meta"})
KINDS = {"ctx": "int64", "repeat": "int64", "index": "int64", "prompt_tokens": "int64", "max_new_tokens": "int64"} | {
    "score": "float64",
    "seconds": "float64",
}


def write(rows: Iterable[Row], out: BinaryIO) -> tuple[int, str]:
    """Put rows into a file; how many there were, and their digest."""
    pyarrow, parquet = _modules("the compact form of rows")
    schema, found = _schema(pyarrow), hashlib.sha256()
    n = n_bytes = 0
    group: list[dict[str, Any]] = []
    with parquet.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True) as writer:
        for row in rows:
            line = to_line(row)
            found.update(line)
            group.append({name: _put(name, value) for name, value in json.loads(line).items()})
            n, n_bytes = n + 1, n_bytes + len(line)
            if len(group) >= GROUP_ROWS or n_bytes >= GROUP_BYTES:
                writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
                group, n_bytes = [], 0
        if group:
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
    return n, found.hexdigest()


def digest(file: Path) -> tuple[int, str]:
    """What `write` said of a file, from what can be read in it."""
    found = hashlib.sha256()
    table = Table(file)
    for row in table.rows():
        found.update(to_line(row))
    return len(table), found.hexdigest()


class Table:
    """A file that is read. UsageError for one that is damaged, or that kleval did not write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pyarrow, parquet = _modules(str(path))
        with path.open("rb"):
            pass  # what the disk says of it is an OSError, as of any file
        try:
            self._file = parquet.ParquetFile(path, page_checksum_verification=True)
            known = {field.name: field.type for field in _schema(self._pyarrow)}
            other = [f.name for f in self._file.schema_arrow if known.get(f.name) != f.type]
            about = self._file.metadata
            self._ends = [*accumulate(about.row_group(at).num_rows for at in range(about.num_row_groups))]
        except (self._pyarrow.ArrowException, OSError) as error:
            raise self._damaged(error) from error
        if other:
            raise UsageError(f"{path} is not a file of rows (its column {other[0]}): restore the one that kleval wrote")
        self._at, self._group = -1, list[dict[str, Any]]()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def rows(self, first: int = 0) -> Iterator[Row]:
        return map(self.row, range(first, len(self)))

    def row(self, number: int) -> Row:
        """Fast for numbers that ascend: the rows around the last one are kept."""
        at = bisect_right(self._ends, number)
        try:
            if at != self._at:
                self._group = self._file.read_row_group(at).to_pylist()
                self._at = at
            found = self._group[number - self._ends[at]]  # counted from its end
            return from_fields(Row, {name: _got(name, value) for name, value in found.items()})
        except (self._pyarrow.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def close(self) -> None:
        self._file.close()

    def _damaged(self, error: Exception) -> UsageError:
        return UsageError(f"{self.path} is damaged ({' '.join(str(error).split())}): restore it from a copy")


def _modules(what: str) -> tuple[Any, Any]:
    pyarrow, parquet = (need(name, "data", what) for name in ("pyarrow", "pyarrow.parquet"))
    return pyarrow, parquet


def _schema(pyarrow: Any) -> Any:
    text = pyarrow.list_(pyarrow.string())
    return pyarrow.schema(
        [
            (field.name, text if field.name == "references" else getattr(pyarrow, KINDS.get(field.name, "string"))())
            for field in fields(Row)
        ]
    )


def _put(name: str, value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if name in AS_JSON and value is not None else value


def _got(name: str, value: Any) -> Any:
    return json.loads(value) if name in AS_JSON and value is not None else value
