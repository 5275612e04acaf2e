"""Data that come with the package: item banks, word lists, cards and tables of files, as TOML beside the code that reads them."""

from __future__ import annotations

from functools import cache
from typing import Any

from kleval import files


def load(name: str) -> dict[str, Any]:
    """What `name` holds, a path below kleval/tasks. It is read once, and shared: not to be changed."""
    return files.packaged(f"tasks/{name}")


@cache
def words(name: str, *keys: str) -> tuple[str, ...]:
    """A list of words in that file, which has it as a list or as one text. keys: from the outermost table inwards."""
    found: Any = load(name)
    for key in keys:
        found = found[key]
    return tuple(found.split() if isinstance(found, str) else found)
