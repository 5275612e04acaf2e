"""What a run says while it goes: plain values for whoever shows them. The harness itself prints nothing.

Order: Started, Planned, Skipped (those known from the start), then RowDone + Progress pairs with Skipped, Retrying and
TaskFailed between, and Finished as the last one, whatever happened: a run that was refused before it started has no
events at all, every other stream ends with Finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kleval.harness.plan import Plan, Skip
from kleval.harness.spec import RunResult, RunSpec
from kleval.store import Row


@dataclass(frozen=True, slots=True)
class Started:
    """models: the names that are printed. repaired: files whose last line was cut short by a kill and has been removed.
    amended: what the command adds to the run that was there."""

    spec: RunSpec
    out: Path | None
    models: tuple[str, ...]
    continued: bool
    caveats: tuple[str, ...] = ()
    repaired: tuple[Path, ...] = ()
    amended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    plan: Plan


@dataclass(frozen=True, slots=True)
class Skipped:
    """A task does not fit into a ctx; recorded and counted."""

    skip: Skip


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A task could not make its samples at a ctx; the run goes on and ends incomplete."""

    model: str
    task: str
    ctx: int
    message: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """Requests that failed for a reason that may pass, and are asked again after a wait."""

    model: str
    n_requests: int
    wait_seconds: float
    message: str


@dataclass(frozen=True, slots=True)
class RowDone:
    """row: as stored; it is on the disk."""

    row: Row


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the run is, in answers and in tokens (prompt + generation budget of each answer).

    tokens_total is an estimate (ctx per answer) for samples that are not made yet and exact for the others; when every
    planned answer is there, tokens_done equals it. Answers of earlier sessions count as done, never as speed.
    tokens_per_second, eta_seconds: over this session; None before anything is known. n_failed: in this session.
    """

    model: str
    n_done: int
    n_total: int
    tokens_done: int
    tokens_total: int
    n_failed: int
    elapsed_seconds: float
    tokens_per_second: float | None
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class Finished:
    """Last of every stream. result.status and exit_code also tell a run that an error ended (exit codes 1 and 2)."""

    result: RunResult


Event = Started | Planned | Skipped | TaskFailed | Retrying | RowDone | Progress | Finished
