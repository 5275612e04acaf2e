"""Long Code Arena's data: rows of the two tasks, from Parquet as published or from JSON or JSON lines.

No hash of the published files is known here, so that a download cannot be checked against one: every row's fields are
checked instead, and the file's own hash is the data digest of every result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from kleval.tasks import data
from kleval.types import UsageError

LIBRARY_FILE = "lca-library-based-code-generation.parquet"
COMMIT_FILE = "lca-commit-message-generation.parquet"
_OTHER_FORMATS = (".jsonl", ".json")
_CHANGE_TYPES = ("ADD", "COPY", "DELETE", "MODIFY", "RENAME", "UNKNOWN")


@dataclass(frozen=True, slots=True)
class LibraryRow:
    """names: what the library defines, for the BM25 prompt."""

    instruction: str = field(repr=False)
    reference: str = field(repr=False)
    apis: tuple[str, ...]
    names: tuple[str, ...] = field(repr=False)
    repository: str


@dataclass(frozen=True, slots=True)
class CommitRow:
    repository: str
    hash: str
    message: str
    mods: tuple[dict[str, Any], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    path: Path
    revision: str
    sha256: str


def find(task_id: str, file: str, data_dir: Path | None) -> Source:
    """`file`, or the same name with .jsonl or .json. UsageError naming what gets it when none is there."""
    folder = data.data_folder("lca", data_dir)
    for path in (folder / file, *((folder / file).with_suffix(suffix) for suffix in _OTHER_FORMATS)):
        if path.is_file():
            sha256 = data.file_sha256(path)
            return Source(path, f"unpinned {path.name} sha256:{sha256[:16]}", sha256)
    status = data.need("lca", file, f"{task_id} (official)", data_dir)
    return Source(status.path, status.revision, status.sha256)


@lru_cache(maxsize=1)
def read_library(source: Source) -> tuple[LibraryRow, ...]:
    return tuple(_library_row(where, row) for where, row in _rows(source.path))


@lru_cache(maxsize=1)
def read_commits(source: Source) -> tuple[CommitRow, ...]:
    return tuple(_commit_row(where, row) for where, row in _rows(source.path))


def _library_row(where: str, row: Any) -> LibraryRow:
    return LibraryRow(
        _text(where, row, "instruction"),
        _text(where, row, "clean_reference"),
        _texts(where, row, "unique_apis"),
        _texts(where, row, "project_defined_elements"),
        str(row.get("repo_full_name") or row.get("repo_name") or ""),
    )


def _commit_row(where: str, row: Any) -> CommitRow:
    mods = _value(where, row, "mods")
    if not isinstance(mods, list):
        raise UsageError(f"{where}: field 'mods' must be a list")
    for i, mod in enumerate(mods):
        inside = f"{where} mod {i}"
        kind = _text(inside, mod, "change_type")
        if kind not in _CHANGE_TYPES:
            raise UsageError(f"{inside}: change_type {kind!r} is none of {', '.join(_CHANGE_TYPES)}")
        _text(inside, mod, "diff")
        for name in ("old_path", "new_path"):
            if not isinstance(_value(inside, mod, name), str | None):
                raise UsageError(f"{inside}: field {name!r} must be a text or null")
    return CommitRow(_text(where, row, "repo"), _text(where, row, "hash"), _text(where, row, "message"), tuple(mods))


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(file and row for messages, row)."""
    read: dict[str, Callable[[Path], Iterator[Any]]] = {
        ".parquet": _parquet,
        ".jsonl": _json_lines,
        ".json": _json_list,
    }
    n = 0
    for i, row in enumerate(read[path.suffix](path)):
        n += 1
        yield f"{path} row {i}", row
    if not n:
        raise UsageError(f"{path} has no rows")


def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f"reading {path.name} needs pyarrow: pip install 'kleval[data]'") from error
    try:
        # From one open file: given a path, pyarrow would look for partitions in the folders' names.
        with path.open("rb") as file:
            yield from pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{path} cannot be read as Parquet: {_line(error)}") from error


def _json_lines(path: Path) -> Iterator[Any]:
    for i, line in enumerate(_read(path).splitlines()):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UsageError(f"{path} row {i} is not JSON: {_line(error)}") from error


def _json_list(path: Path) -> Iterator[Any]:
    try:
        rows = json.loads(_read(path))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {_line(error)}") from error
    if not isinstance(rows, list):
        raise UsageError(f"{path} must hold a list of rows")
    yield from rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _value(where: str, row: Any, name: str) -> Any:
    if not isinstance(row, dict) or name not in row:
        raise UsageError(f"{where}: field {name!r} is missing")
    return row[name]


def _text(where: str, row: Any, name: str) -> str:
    value = _value(where, row, name)
    if not isinstance(value, str):
        raise UsageError(f"{where}: field {name!r} must be a text, is {type(value).__name__}")
    return value


def _texts(where: str, row: Any, name: str) -> tuple[str, ...]:
    value = _value(where, row, name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"{where}: field {name!r} must be a list of texts")
    return tuple(value)
