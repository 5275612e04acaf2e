"""Finding the run directories that a user means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.store import RunStore


def open_runs(directories: Sequence[Path]) -> list[RunStore]:
    """Every run at or below the directories, each once. UsageError for one that is not there or holds no run."""
    from kleval.store import RunStore

    found: dict[Path, RunStore] = {}
    for directory in directories:
        if not directory.is_dir():
            raise UsageError(f"{directory}: no such run directory; see kleval ls runs")
        paths = RunStore.find_runs(directory)
        if not paths:
            raise UsageError(f"{directory} holds no run (no run.json in it or in its folders)")
        for path in paths:
            if path.resolve() not in found:
                found[path.resolve()] = RunStore.open(path)
    return list(found.values())
