"""What a profile came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kleval.profiler.plan import Plan
from kleval.store.manifest import Status

EXIT_CODES: dict[Status, int] = {"complete": 0, "incomplete": 3, "interrupted": 130}


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """counts: planned, measured, failed, missing points. message: one line for people, why it is not complete; empty when it is.
    out: None for a dry run."""

    status: Status
    exit_code: int
    out: Path | None
    plan: Plan
    counts: dict[str, int] = field(default_factory=dict)
    message: str = ""
