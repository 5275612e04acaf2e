"""What a profile says while it goes: plain values for whoever shows them. The profiler itself prints nothing.

Order: Started, Phase (building, trying out), Planned, then PointDone with Progress before and after, and Finished as the last one.
A profile that was refused before it started has no events at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.profiler.plan import Plan
from kleval.profiler.result import ProfileResult
from kleval.profiler.served.spec import ServedSpec
from kleval.store import Point


@dataclass(frozen=True, slots=True)
class Started:
    """models: the names that are printed. repaired: files whose last line was cut short by a kill and has been removed."""

    spec: ServedSpec
    models: tuple[str, ...]
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    continued: bool


@dataclass(frozen=True, slots=True)
class Phase:
    """Something that takes a while before the first point."""

    text: str


@dataclass(frozen=True, slots=True)
class Planned:
    """n_done: points that are there from an earlier session. repaired: files whose torn last line was removed."""

    plan: Plan
    n_done: int
    repaired: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class PointDone:
    """point: as stored; it is on the disk."""

    point: Point


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the profile is, in points and in expected seconds of this session's work. label: what is being measured."""

    label: str
    n_done: int
    n_total: int
    seconds_done: float
    seconds_total: float
    elapsed_seconds: float
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class Finished:
    """Last of every stream."""

    result: ProfileResult


Event = Started | Phase | Planned | PointDone | Progress | Finished
