"""Rows of a data file, one at a time: Parquet, JSON lines, a JSON list of objects, or CSV or TSV with a header line.

`.json` and `.jsonl` may hold either kind of JSON; text may be packed with gzip and begin with a byte-order mark
(`datafile`). What is wrong with a file is one UsageError naming it and, where it has one, the row (counted from 0). Files are read
piece by piece, so that memory is bounded by the longest rows and not by the file.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from kleval.packages import need
from kleval.tasks.datafile import FORMATS, READ_ERRORS, format_of, one_line, opened, refuse_pointer, unreadable
from kleval.types import UsageError

_CHUNK_CHARS = 1 << 20
_BATCH_ROWS = 16
_CELL_CHARS = 1 << 30
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(?:\.0*)?")


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and row, for messages; the row). UsageError when the file cannot be read, a row is no object or there is none."""
    read = _READERS.get(format_of(path))
    if read is None:
        raise UsageError(f"{path}: rows are read from {', '.join(FORMATS)}")
    n = 0
    try:
        for row in read(path):
            where = f"{path} row {n}"
            if not isinstance(row, dict):
                raise UsageError(f"{where} must be an object, is {type(row).__name__}")
            n += 1
            yield where, row
    except READ_ERRORS as error:
        raise unreadable(path, error) from error
    except csv.Error as error:
        raise UsageError(f"{path} row {n} is not CSV: {one_line(error)}") from error
    except (ValueError, RecursionError) as error:
        expected = "" if n else ", which must hold a list of rows or one row a line"
        raise UsageError(f"{path} row {n} is not JSON that can be read: {one_line(error)}{expected}") from error
    if not n:
        raise UsageError(f"{path} has no rows")


def value(where: str, row: Any, name: str) -> Any:
    """The field of that name. UsageError when it is missing."""
    if not isinstance(row, dict) or name not in row:
        raise UsageError(f"{where}: field {name!r} is missing")
    return row[name]


def text(where: str, row: Any, name: str) -> str:
    found = value(where, row, name)
    if not isinstance(found, str):
        raise UsageError(f"{where}: field {name!r} must be a text, is {type(found).__name__}")
    if not is_unicode(found):
        raise UsageError(f"{where}: field {name!r} holds half of a surrogate pair, which no tokenizer reads")
    return found


def is_unicode(found: str) -> bool:
    """Whether it has a UTF-8 form: JSON may hold halves of surrogate pairs, which have none."""
    try:
        found.encode()
    except UnicodeEncodeError:
        return False
    return True


def texts(where: str, row: Any, name: str) -> tuple[str, ...]:
    found = value(where, row, name)
    if not isinstance(found, list) or not all(isinstance(item, str) and is_unicode(item) for item in found):
        raise UsageError(f"{where}: field {name!r} must be a list of texts")
    return tuple(found)


def integer(where: str, row: Any, name: str) -> int:
    found = value(where, row, name)
    number = whole_number(found)
    if number is None:
        raise UsageError(f"{where}: field {name!r} must be a whole number, is {type(found).__name__}")
    return number


def whole_number(found: Any) -> int | None:
    """3 for 3, for 3.0, as tables write a column in which a number is missing, and for the text that CSV makes of either."""
    if isinstance(found, str) and _WHOLE.fullmatch(found):
        return int(found.partition(".")[0])
    if isinstance(found, float) and found.is_integer():
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _parquet(path: Path) -> Iterator[Any]:
    refuse_pointer(path)
    pyarrow, parquet = (need(name, "data", f"reading {path.name}") for name in ("pyarrow", "pyarrow.parquet"))
    n = 0
    try:
        # From one open file: given a path, pyarrow would look for partitions in the folders' names.
        with path.open("rb") as file:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS):
                for i in range(batch.num_rows):
                    # One by one: bytes that are no UTF-8 and times that are no dates show only here.
                    yield batch.slice(i, 1).to_pylist()[0]
                    n += 1
    except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:
        raise UsageError(f"{path} row {n} cannot be read as Parquet: {one_line(error)}") from error


def _json(path: Path) -> Iterator[Any]:
    with opened(path) as file:
        pieces = _Pieces(file)
        if pieces.next_char() == "[":
            yield from _json_list(path, pieces)
            return
        file.seek(0)
        lines = (line for line in file if line.strip())
        first = list(islice(lines, 2))
        # One object alone, in a file that does not say that it has rows, is more likely something else.
        if format_of(path) == ".json" and len(first) == 1:
            raise UsageError(f"{path} must hold a list of rows, or several rows, one a line")
        yield from map(json.loads, chain(first, lines))


def _json_list(path: Path, pieces: _Pieces) -> Iterator[Any]:
    pieces.at += 1
    mark, n = pieces.next_char(), 0
    pieces.at += mark == "]"
    while mark != "]":
        yield pieces.element()
        mark = pieces.next_char()
        if mark not in (",", "]"):
            raise UsageError(f"{path} is not JSON: after row {n} there is neither a comma nor the list's end")
        pieces.at += 1
        n += 1
    if pieces.next_char():
        raise UsageError(f"{path} is not JSON: there is something after the list's end")


class _Pieces:
    """A JSON text that is read as far as it is needed. at: where in `held` reading goes on."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._decoder = file, json.JSONDecoder()
        self.held, self.at = "", 0

    def next_char(self) -> str:
        """The next character that is no white space, not taken; "" at the end."""
        while True:
            while self.at < len(self.held) and self.held[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.held) or not self._more():
                return self.held[self.at : self.at + 1]

    def element(self) -> Any:
        self.next_char()
        while True:
            try:
                made, self.at = self._decoder.raw_decode(self.held, self.at)
                return made
            except json.JSONDecodeError:
                # As far as what is held it may be damaged or not at its end.
                if not self._more():
                    raise

    def _more(self) -> bool:
        # As much again as is held: a long row is begun anew a few times, not once per piece.
        chunk = self._file.read(max(_CHUNK_CHARS, len(self.held) - self.at))
        self.held, self.at = self.held[self.at :] + chunk, 0
        return bool(chunk)


def _separated(path: Path, separator: str) -> Iterator[Any]:
    csv.field_size_limit(_CELL_CHARS)
    with opened(path, newline="") as file:
        for n, row in enumerate(csv.DictReader(file, delimiter=separator, strict=True)):
            if None in row or None in row.values():
                raise UsageError(f"{path} row {n} does not have as many fields as the header line")
            yield row


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".parquet": _parquet,
    ".jsonl": _json,
    ".json": _json,
    ".csv": partial(_separated, separator=","),
    ".tsv": partial(_separated, separator="\t"),
}
