"""Data that come with the package: item banks, word lists, cards and tables of files, as TOML beside the code that reads them."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def load(name: str) -> dict[str, Any]:
    """What `name` holds, a path below kleval/tasks. It is read once, and shared: not to be changed."""
    return tomllib.loads(resources.files("kleval.tasks").joinpath(name).read_text("utf-8"))


@cache
def words(name: str, *keys: str) -> tuple[str, ...]:
    """A list of words in that file, which has it as a list or as one text. keys: from the outermost table inwards."""
    found: Any = load(name)
    for key in keys:
        found = found[key]
    return tuple(found.split() if isinstance(found, str) else found)
