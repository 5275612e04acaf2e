"""Long Code Arena's data: rows of the two tasks, from Parquet as published or any other format.

No hash of the published files is known here, so that a download cannot be checked against one: every row's fields are
checked instead, and the file's own hash is the data digest of every result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from kleval.tasks import data, tables
from kleval.tasks.data import Source
from kleval.types import UsageError

LIBRARY_FILE = "lca-library-based-code-generation.parquet"
COMMIT_FILE = "lca-commit-message-generation.parquet"
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


def find(task_id: str, file: str, data_dir: Path | None) -> Source:
    """`file`, or the same in another format. UsageError naming what gets it when none is there."""
    status = data.need("lca", file, f"{task_id} (official)", data_dir)
    return Source((status.path,), f"unpinned {status.path.name} sha256:{status.sha256[:16]}", status.sha256)


@lru_cache(maxsize=1)
def read_library(source: Source) -> tuple[LibraryRow, ...]:
    return tuple(_library_row(where, row) for where, row in tables.rows(source.path))


@lru_cache(maxsize=1)
def read_commits(source: Source) -> tuple[CommitRow, ...]:
    return tuple(_commit_row(where, row) for where, row in tables.rows(source.path))


def _library_row(where: str, row: Any) -> LibraryRow:
    return LibraryRow(
        tables.text(where, row, "instruction"),
        tables.text(where, row, "clean_reference"),
        tables.texts(where, row, "unique_apis"),
        tables.texts(where, row, "project_defined_elements"),
        str(row.get("repo_full_name") or row.get("repo_name") or ""),
    )


def _commit_row(where: str, row: Any) -> CommitRow:
    mods = tables.value(where, row, "mods")
    if not isinstance(mods, list):
        raise UsageError(f"{where}: field 'mods' must be a list")
    for i, mod in enumerate(mods):
        inside = f"{where} mod {i}"
        kind = tables.text(inside, mod, "change_type")
        if kind not in _CHANGE_TYPES:
            raise UsageError(f"{inside}: change_type {kind!r} is none of {', '.join(_CHANGE_TYPES)}")
        tables.text(inside, mod, "diff")
        for name in ("old_path", "new_path"):
            found = tables.value(inside, mod, name)
            if not isinstance(found, str | None) or not tables.is_unicode(found or ""):
                raise UsageError(f"{inside}: field {name!r} must be a text or null")
    return CommitRow(
        tables.text(where, row, "repo"),
        tables.text(where, row, "hash"),
        tables.text(where, row, "message"),
        tuple(mods),
    )
