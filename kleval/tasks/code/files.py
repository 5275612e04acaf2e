"""Data files of the code tasks: under the data directory, in any format that `tables` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kleval.tasks import assets_code, data, tables
from kleval.types import UsageError

_FORMATS = (".jsonl", ".parquet", ".json")


def find(task_id: str, folder: str, stems: Sequence[str], data_dir: Path | None) -> list[Path]:
    """The file of the first of `folder/STEM.jsonl` (.parquet, .json; or its parts STEM-*.parquet) that is there; MissingData
    when none is."""
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
    where = f" --data-dir {data_dir}" if data_dir else ""
    raise data.MissingData(
        f"{task_id} (official) needs {folder}/{stems[0]}.jsonl or .parquet, which is not in {root}:"
        f" `kleval data fetch {family}{where}` gets it, --data-dir names another folder, --edition builtin needs no files",
        family,
    )


def _existing(base: Path, stem: str) -> list[Path]:
    for path in (base / f"{stem}{suffix}" for suffix in _FORMATS):
        if path.is_file():
            return [path]
    return sorted((base / "data").glob(f"{stem}-*.parquet")) or sorted(base.glob(f"{stem}-*.parquet"))


def read(paths: Sequence[Path], make: Callable[[str, dict[str, Any]], Any]) -> tuple[list[Any], str, str]:
    """What `make` makes of each row (None: passed over); revision and sha256 of the files."""
    made = [one for path in paths for where, row in tables.rows(path) if (one := make(where, row)) is not None]
    sums = [data.file_sha256(path) for path in paths]
    digest = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
    if not made:
        raise UsageError(f"{paths[0]} has no problem for this task")
    return made, assets_code.KNOWN.get(digest, f"unpinned sha256:{digest[:16]}"), digest


def own_digest(*parts: str) -> str:
    """sha256 over the texts of a builtin edition."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
