"""Names of folders and files inside a run directory."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def folder_name(name: str) -> str:
    """A model's name as one folder's. Two names may share one: rows carry the name itself."""
    safe = re.sub(r"[^A-Za-z0-9._@+=-]", "_", name.replace("/", "__"))
    if safe.startswith(".") or len(safe) > 100:
        safe = safe.lstrip(".")[:80] + "-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return safe


def row_file(task: str, ctx: int) -> str:
    return f"{folder_name(task)}.{ctx}.jsonl"


def cell_order(file: Path) -> tuple[str, str, int, str]:
    """The same for the files of a cell (model, task, length), whatever their form."""
    task, _, ctx = file.stem.rpartition(".")
    return file.parent.name, task, int(ctx) if ctx.isdecimal() else 0, file.stem


def row_file_order(file: Path) -> tuple[tuple[str, str, int, str], bool]:
    """The compact file of a cell before its lines, which were appended since."""
    return cell_order(file), file.suffix == ".jsonl"
