"""Provider of the tasks that begin with `ppl:` (see `kleval.tasks.registry.Provider`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kleval.tasks import texts
from kleval.tasks.ppl.task import PplTask
from kleval.tasks.registry import check_protocol
from kleval.types import Task, UsageError

HINT = "name a text: ppl:FILE, or a folder of texts"
OF_DOCUMENTS = True
PREFIX = "ppl:"


def expand(name: str, edition: str) -> list[str]:
    return [name]


def load(name: str, edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    place = name.removeprefix(PREFIX)
    if not place:
        raise UsageError(f"ppl: names no text: {HINT}")
    check_protocol(name, protocol, (PplTask.protocol,))
    return PplTask(texts.read(Path(place)))


def verify(name: str, data_dir: Path | None) -> list[Any]:
    raise UsageError(f"{name} is a text of your own: there is nothing to verify")


def fetch(name: str, data_dir: Path | None, progress: Any) -> list[Any]:
    raise UsageError(f"{name} is a text of your own: there is nothing to fetch")
