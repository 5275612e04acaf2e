"""Problems of the code tasks: official ones from files under the data directory, in any format that `tables` reads, builtin ones
from `items.toml`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, packaged, tables
from kleval.types import UsageError


def find(task_id: str, folder: str, stems: Sequence[str], data_dir: Path | None) -> list[Path]:
    """The file of the first of `folder/STEM` that is there, in any format or in parts; MissingData when none is."""
    return find_all(task_id, folder, stems, data_dir, first=True)


def find_all(
    task_id: str, folder: str, stems: Sequence[str], data_dir: Path | None, *, first: bool = False
) -> list[Path]:
    """`find` for a benchmark that comes in several files: all of them that are there."""
    root, family = data.data_folder("code", data_dir), data.family_of(task_id)
    theirs = data.data_folder(family, data_dir)
    bases = dict.fromkeys((root / folder, theirs / folder, theirs))
    for base in bases:
        found = [paths for stem in stems if (paths := _existing(base, stem))]
        if found:
            return found[0] if first else [path for paths in found for path in paths]
    raise data.missing(f"{task_id} (official)", f"{folder}/{stems[0]}.jsonl or .parquet", family, root, data_dir)


def _existing(base: Path, stem: str) -> list[Path]:
    return list(datafile.parts(base / stem) or datafile.parts(base / "data" / stem))


def read(paths: Sequence[Path], make: Callable[[str, dict[str, Any]], Any]) -> tuple[list[Any], str, str]:
    """What `make` makes of each row (None: passed over); revision and sha256 of the files."""
    made = [one for path in paths for where, row in tables.rows(path) if (one := make(where, row)) is not None]
    sums = [data.file_sha256(path) for path in paths]
    digest = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
    if not made:
        raise UsageError(f"{paths[0]} has no problem for this task")
    return made, data.known_revisions("code").get(digest, f"unpinned sha256:{digest[:16]}"), digest


def bank(name: str) -> list[dict[str, Any]]:
    """Rows of that name, made by kleval."""
    rows: list[dict[str, Any]] = packaged.load("code/items.toml")[name]
    return rows


def of_edition(
    task_id: str,
    edition: str,
    place: tuple[str, Sequence[str]],
    items: str,
    make: Callable[[str, dict[str, Any]], Any],
    data_dir: Path | None,
) -> tuple[list[Any], str, str]:
    """Problems, their revision and digest. place: folder and stems of the official ones; items: name of the builtin ones."""
    if edition == "official":
        return read(find(task_id, *place, data_dir), make)
    problems = [make(f"item {n}", row) for n, row in enumerate(bank(items))]
    return problems, "builtin-1", own_digest(problems)


def own_digest(problems: Sequence[Any]) -> str:
    """sha256 over the texts of a builtin edition."""
    return hashlib.sha256("\0".join(f"{one.plain}{one.data}" for one in problems).encode()).hexdigest()
