"""Events: what a command says while it goes, as plain values for whoever shows them. Nothing below cli/ prints.

Order: Started, Phase (what takes a while: building, trying out), Planned, Skipped (those known from the start), then UnitDone with
Progress before and after, with Skipped, Failed and Phase between, and Finished as the last one, whatever happened. A command
that was refused before it started has no events at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.store import Point, Row
from kleval.work.result import Result
from kleval.work.unit import Spec, Unit


@dataclass(frozen=True, slots=True)
class Started:
    """models: by the name that is printed, what is known of each. continued: whether the run directory was there before."""

    spec: Spec
    models: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    continued: bool


@dataclass(frozen=True, slots=True)
class Phase:
    """Something that takes a while: building, trying out, waiting before requests are sent again."""

    text: str


@dataclass(frozen=True, slots=True)
class Planned:
    """units: all, those done by earlier sessions included. n_total, n_done: records. facts: the manifest as it begins.

    skips: what was asked for and will not be done. repaired: files whose last line was cut short by a kill and has been
    removed. amended: what the command adds to the run that was there. caveats: what a reader must know before any number.
    """

    units: tuple[Unit, ...]
    n_total: int
    n_done: int
    facts: Mapping[str, Any]
    skips: tuple[Mapping[str, Any], ...] = ()
    repaired: tuple[Path, ...] = ()
    amended: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """skip: what was asked for and is not done, with its `reason`; it is recorded and counted."""

    skip: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The first of its kind: units that could not be made, a record that failed; the command goes on and ends incomplete.
    traceback: of a fault in a task's own code."""

    label: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class UnitDone:
    """record: as stored; a process that is killed now has it."""

    record: Row | Point


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the command is, in records and in work (tokens, expected seconds: whatever the units weigh).

    label: what was done last, or is being done. Records of earlier sessions count as done, never as speed. work_total is exact
    for what is made and an estimate for what is not; when every planned record is there, work_done equals it.
    n_failed: in this session. work_per_second, eta_seconds: over this session; None before anything is known.
    """

    label: str
    n_done: int
    n_total: int
    work_done: float
    work_total: float
    n_failed: int
    elapsed_seconds: float
    work_per_second: float | None
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class Finished:
    """Last of every stream. result.status and exit_code also tell a command that an error ended (exit codes 1 and 2)."""

    result: Result


Event = Started | Phase | Planned | Skipped | Failed | UnitDone | Progress | Finished
