"""What a kernel profile says while it goes: plain values for whoever shows them. The profiler itself prints nothing."""

from __future__ import annotations

from dataclasses import dataclass

from kleval.store import Point


@dataclass(frozen=True, slots=True)
class Phase:
    """Something that takes a while before the first point."""

    text: str


@dataclass(frozen=True, slots=True)
class PointDone:
    """point: as stored; it is on the disk."""

    point: Point


Event = Phase | PointDone
