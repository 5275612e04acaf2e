"""Point: one measurement, or one failed attempt at it, and the file that a run keeps its points in.

    points.jsonl     append-only, one JSON line per point, fsynced; a line cut short by a kill is cut off at the next start

A point that failed may be measured again and the new one stands for it; one that was measured is never overwritten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from kleval.store import files
from kleval.store.rows import json_line
from kleval.types import UsageError

Kind = Literal["prefill", "decode", "memory", "kernel", "machine", "served"]
Number = int | float | None
Count = Annotated[int, Field(ge=0)]
FILE = "points.jsonl"
METRIC = {"prefill": "seconds", "decode": "ms_per_token"}  # the value that a kind is compared by


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One thing measured once (one repeat).

    id: stable, derived from what is measured (`prefill/full/kimi-linear@nano/131072/b1/r0`).
    model: as it is printed; the operator of a `kernel` point, empty for `machine`. ctx: prompt length, depth, or T of a kernel.
    protocol: prefill `full` or `sampled`; decode `batch-1` or `largest-batch`; memory `state`; kernel `chunk` or `recurrent`;
    machine `copy` or `matmul`; served `concurrency-N`, N requests submitted together (batch is N).
    values: measured, units in the names. closed_form: computed from the config, the same units. None: does not apply.
    estimate: values are extrapolated from part of the work (sampled prefill).
    settings: what shaped the measurement (chunk_tokens, dtype, device). environment: the fingerprint of machine and software.
    failure: {"kind", "message"}; such a point has no values. finished: UTC, ISO 8601.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: Annotated[str, Field(min_length=1)]
    kind: Kind
    model: str
    ctx: Count
    batch: Count
    protocol: str
    repeat: Count
    values: dict[str, Number] = field(default_factory=dict)
    closed_form: dict[str, Number] = field(default_factory=dict)
    estimate: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, str] | None = None
    finished: str = ""

    @property
    def failed(self) -> bool:
        return self.failure is not None


_ADAPTER = TypeAdapter(Point)
_FIELDS = tuple(f.name for f in dataclasses.fields(Point))


def to_line(point: Point) -> bytes:
    """The point as one JSON line, newline included. NaN and infinities become null."""
    return json_line({name: getattr(point, name) for name in _FIELDS})


def from_line(line: bytes) -> Point:
    """The point of a line. ValueError with one line of text saying what is wrong with it."""
    try:
        point = _ADAPTER.validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    if point.failure is not None and point.values:
        raise ValueError("values: a failed point cannot have any")
    return point


class PointFile:
    """The points of a run directory. The caller holds the run's lock when it appends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._points: dict[str, Point] | None = None

    def append(self, point: Point) -> None:
        """Add a point, durable when this returns. ValueError when it is measured already or not valid; UsageError when
        the disk is full (the file is as it was before)."""
        earlier = self._known().get(point.id)
        if earlier is not None and not earlier.failed:
            raise ValueError(f"{point.id} is measured already")
        line = to_line(point)
        kept = from_line(line)
        files.append_line(self.path, line)
        self._known()[point.id] = kept

    def repair(self) -> bool:
        """Cut off a line that a kill cut short; whether there was one."""
        self._points = None
        return self.path.exists() and bool(files.cut_torn_line(self.path))

    def points(self, fresh: bool = True) -> Iterator[Point]:
        """One point per id, by kind, model, protocol, ctx, batch and repeat. fresh: read the file again."""
        if fresh:
            self._points = None
        yield from sorted(self._known().values(), key=_order)

    def _known(self) -> dict[str, Point]:
        if self._points is None:
            self._points = self._read()
        return self._points

    def _read(self) -> dict[str, Point]:
        points: dict[str, Point] = {}
        if not self.path.exists():
            return points
        with files.usage_errors(self.path), self.path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if not line.endswith(b"\n"):
                    break  # still being written, or cut off by `repair` before anything is appended
                try:
                    point = from_line(line)
                except ValueError as error:
                    raise UsageError(
                        f"{self.path} line {number} is not a valid point ({error}): delete that line and run the same "
                        "command again, which measures it again"
                    ) from error
                earlier = points.get(point.id)
                if earlier is None or earlier.failed:
                    points[point.id] = point
        return points


def _order(point: Point) -> tuple[str, str, str, int, int, int, str]:
    return point.kind, point.model, point.protocol, point.ctx, point.batch, point.repeat, point.id
