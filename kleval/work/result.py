"""The result of a command: its status, its exit code, its counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.store.manifest import Status
from kleval.types import INCOMPLETE, INTERRUPTED, OK
from kleval.work.unit import Unit

EXIT_CODES: dict[Status, int] = {"complete": OK, "incomplete": INCOMPLETE, "interrupted": INTERRUPTED}


@dataclass(frozen=True, slots=True)
class Result:
    """What a command came to.

    out: None for a dry run. counts: `planned` and what became of them; empty when it ended before it was planned. message: one
    line for people, why it is not complete; empty when it is. units: what was planned, those of earlier sessions included.
    skips: what was asked for and is not done, each with its reason. again: whether running the same command again may help.
    """

    status: Status
    exit_code: int
    out: Path | None
    counts: Mapping[str, int] = field(default_factory=dict)
    message: str = ""
    units: tuple[Unit, ...] = ()
    skips: tuple[Mapping[str, Any], ...] = ()
    again: bool = True
