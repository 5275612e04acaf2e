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
