"""Finding the run directories that a user means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.store import RunStore
    from kleval.tables.trainings import Studies


def scored_runs(directories: Sequence[Path]) -> list[RunStore]:
    """`open_runs` without profiles. UsageError when nothing else is there."""
    found = open_runs(directories)
    if found and not any(store.is_run for store in found):
        raise UsageError(f"{found[0].path} is a profile and has no scores: see its profile.csv, or kleval report")
    return [store for store in found if store.is_run]


def open_runs(directories: Sequence[Path]) -> list[RunStore]:
    """Every run at or below the directories, each once. UsageError for one that is not there, holds no run or cannot be read."""
    from kleval.store import RunStore

    return [RunStore.open(path) for path in RunStore.find_named(directories)]


def readable_runs(directories: Sequence[Path]) -> tuple[list[RunStore], list[str]]:
    """`open_runs` of what can be read, and a line on each run that cannot. UsageError where none can."""
    from kleval.store import RunStore

    stores, unread = list[RunStore](), list[str]()
    for path in RunStore.find_named(directories):
        try:
            stores.append(RunStore.open(path))
        except UsageError as error:
            unread.append(str(error))
    if directories and not stores:
        raise UsageError("; ".join(unread))
    return stores, unread


def without_studies(directories: Sequence[Path]) -> tuple[list[Path], Studies]:
    """The directories that may hold runs, and the trainings and studies below all of them. What holds such alone is not among the
    first."""
    from kleval.store import RunStore
    from kleval.tables.trainings import studies

    rest = [place for place in directories if RunStore.find_runs(place) or not studies([place])]
    return rest, studies(directories)
