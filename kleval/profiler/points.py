"""Points of a profile: what is planned of one, what measuring it comes to, and what all of them come to."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from kleval.store import Point
from kleval.store.manifest import now
from kleval.store.records import Kind
from kleval.text import load
from kleval.work import Session, Verdict

Values = dict[str, float | int | None]
MACHINE = {"copy": "copy bandwidth", "matmul": "matrix rate"}


@dataclass(frozen=True, slots=True)
class PlannedPoint:
    """One point to come. seconds: expected, filling included; 0 of a served one, which weighs the tokens it sends.

    state_bytes: of the states it holds. heads: of a kernel.
    """

    id: str
    kind: Kind
    model: str
    ctx: int
    batch: int
    protocol: str
    repeat: int
    seconds: float = 0.0
    state_bytes: int = 0
    steps: int = 0
    dropped: int = 0
    heads: int = 0

    n: ClassVar[int] = 1
    n_done: ClassVar[int] = 0
    prompt: ClassVar[None] = None

    @classmethod
    def of(
        cls, kind: Kind, protocol: str, model: str, ctx: int, batch: int, repeat: int, seconds: float = 0.0, **more: int
    ) -> PlannedPoint:
        """With the id that its place gives it."""
        name = point_id(kind, protocol, model, ctx, batch, repeat)
        return cls(name, kind, model, ctx, batch, protocol, repeat, seconds, **more)

    @property
    def weight(self) -> float:
        return float(max(self.batch, 1) * (self.ctx + self.steps)) if self.kind == "served" else self.seconds

    @property
    def group(self) -> Hashable:
        return self.kind, self.protocol, self.ctx, self.heads

    @property
    def optional(self) -> bool:
        return self.repeat > 0

    @property
    def label(self) -> str:
        if self.kind == "machine":
            return MACHINE[self.protocol]
        if self.kind == "served":
            return f"{self.model} at {self.ctx}" + (
                "" if self.protocol == "concurrency-1" else f", {load(self.protocol)}"
            )
        if self.kind == "kernel":
            return f"{self.model} {self.protocol}, {self.ctx} tokens, {self.heads} heads"
        batch = f", batch {self.batch}" if self.batch != 1 else ""
        return f"{self.kind} {self.protocol}, {self.model} at {self.ctx}{batch}"

    def point(self, outcome: Outcome, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> Point:
        """The record of it. settings, environment: what every point of a profile carries."""
        return Point(
            id=self.id,
            kind=self.kind,
            model=self.model,
            ctx=self.ctx,
            batch=outcome.batch or self.batch,
            protocol=self.protocol,
            repeat=self.repeat,
            values=dict(outcome.values),
            closed_form=dict(outcome.closed_form),
            estimate=outcome.estimate,
            settings={**settings, **outcome.settings},
            environment=dict(environment),
            failure=None if outcome.failure is None else dict(outcome.failure),
            finished=now(),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """values, closed_form: of the point. batch: where it differs from the plan's. failure: why there are no values."""

    values: Values
    closed_form: Values = field(default_factory=dict)
    estimate: bool = False
    batch: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    failure: Mapping[str, str] | None = None


Measured = Iterator[tuple[PlannedPoint, Outcome]]


def point_id(kind: str, protocol: str, model: str, ctx: int, batch: int, repeat: int) -> str:
    if kind == "machine":
        return f"machine/{protocol}"
    rows = "max" if protocol == "largest-batch" else batch  # what fits may turn out smaller than planned
    return f"{kind}/{protocol}/{model}/{ctx}/b{rows}/r{repeat}"


def machine_points() -> list[PlannedPoint]:
    """What the machine can do, which bounds are computed from."""
    return [PlannedPoint.of("machine", protocol, "", 0, 0, 0, 0.5) for protocol in MACHINE]


def point_verdict(session: Session, left_out: int | None = None, /, **fields: Any) -> Verdict:
    """Complete unless something failed or is missing. fields: of the manifest, among them `unmeasured` where points are skipped.

    left_out: repeats that there was no time for; None: none are left out by design. Neither they nor what was skipped are missing.
    """
    points = {point.id: point for point in session.store.points()}
    failed = [point for point in points.values() if point.failed]
    n, unmeasured = len(session.units), sum(skip["n"] for skip in session.skips)
    missing = sum(unit.id not in points for unit in session.units) - (left_out or 0) - unmeasured
    counts = {"planned": n, "measured": len(points) - len(failed), "failed": len(failed), "missing": missing}
    if left_out is not None:
        counts["left_out"] = left_out
    if "unmeasured" in fields:
        counts["unmeasured"] = unmeasured
    problem = ""
    if failed:
        first = failed[0]
        problem = f"{len(failed)} of {n} points failed ({first.id}: {(first.failure or {})['message']})"
    elif missing:
        problem = f"{missing} of {n} points are missing"
    if session.stopped:
        problem += f"{'; ' if problem else ''}{session.stopped}"
    return Verdict(counts, problem, fields)
