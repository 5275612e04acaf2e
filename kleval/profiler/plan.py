"""Plan of a native profile: its points, how many times each, and what it will cost; made before anything is timed for real.

The time budget is shared out: decode gets DECODE_SHARE of it, prefill the rest. Within decode every depth and protocol has an equal
slot; steps and repeats go down until it fits, and what a slot leaves goes to the deeper ones. kleval.profiler.prefill_levels shares out
the time of prefill. What a plan cannot do without is planned even if it does not fit; `Plan.seconds` says what it comes to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kleval.profiler.decode_levels import DROPPED_STEPS, choose_levels
from kleval.profiler.integrate import positions_for, sample_positions
from kleval.profiler.memory import largest
from kleval.profiler.points import PlannedPoint, machine_points
from kleval.profiler.prefill_levels import prefill_repeats
from kleval.profiler.workload import DECODE_TOKENS, Batch, ProfileSpec, protocol_of, unique_lengths

if TYPE_CHECKING:
    from kleval.models.config import ModelConfig
    from kleval.profiler.rates import Rates
    from kleval.store import RunStore

DECODE_SHARE = 0.35
SETUP_SHARE = 0.1  # of the time budget, for building, warming up and the report
MAX_ROWS = {"cpu": 32, "cuda": 1024}  # of a largest batch; a CPU's time per step grows with the rows
MIN_BUDGET_BYTES = 1 << 28
FREE_SHARE = {"cpu": 0.5, "cuda": 0.9}  # of free memory that a largest batch may take by default


@dataclass(frozen=True, slots=True)
class Plan:
    """points: in the order of measuring. unmeasured: what was asked for and cannot be, {model, ctx, protocol, reason}.
    n_first: how many of the points are the first session's; 0 for all."""

    points: tuple[PlannedPoint, ...]
    chunk_tokens: int
    memory_budget: int
    unmeasured: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = field(default=())
    n_first: int = 0

    def another_session(self, old: RunStore) -> Plan:
        """With further repeats of all that is timed, once the first is measured in `old`; until then this plan."""
        there = {point.id for point in old.points()}
        if any(point.id not in there and not point.optional for point in self.points):
            return self
        first = self.points[: self.n_first or None]
        timed = [point for point in first if point.kind not in ("machine", "memory")]
        sessions = 1 + (len(self.points) - len(first)) // len(timed)
        repeats = Counter((point.kind, point.protocol, point.model, point.ctx, point.batch) for point in timed)
        more = [
            PlannedPoint.of(
                *(point.kind, point.protocol, point.model, point.ctx, point.batch),
                point.repeat + sessions * repeats[point.kind, point.protocol, point.model, point.ctx, point.batch],
                point.seconds,
                state_bytes=point.state_bytes,
                steps=point.steps,
                dropped=point.dropped,
            )
            for point in timed
        ]
        return replace(self, points=(*self.points, *more), n_first=len(first))

    @property
    def seconds(self) -> float:
        return sum(point.seconds for point in self.points)

    def record(self) -> dict[str, Any]:
        """JSON values, read back by `from_record`."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Plan:
        points = tuple(PlannedPoint(**point) for point in record["points"])
        rest = {name: tuple(record[name]) for name in ("unmeasured", "notes")}
        return cls(points, record["chunk_tokens"], record["memory_budget"], **rest, n_first=record.get("n_first", 0))


def default_memory_budget(
    spec: ProfileSpec, configs: Mapping[str, ModelConfig], dtype: str, free: int, device: str
) -> int:
    """On CUDA most of what is free. On a CPU, where time is dear, room for one sequence of the longest ctx (or the largest batch
    asked for by number) in the model that needs most and a sixteenth more, at least 256 MiB, at most half of what is free."""
    if device == "cuda":
        return int(FREE_SHARE[device] * free)
    rows = max((batch for batch in spec.batches if batch != "max"), default=1)
    depth = max(spec.ctxs) + fed_tokens(spec, device)
    most = max(config.state_bytes(depth, rows, dtype).total for config in configs.values())
    return min(max(most + most // 16, MIN_BUDGET_BYTES), int(FREE_SHARE[device] * free))


def fed_tokens(spec: ProfileSpec, device: str) -> int:
    """What a decode measurement adds to its depth."""
    return (spec.decode_tokens or DECODE_TOKENS) + DROPPED_STEPS[device]


def make_plan(
    spec: ProfileSpec,
    configs: Mapping[str, ModelConfig],
    rates: Mapping[str, Rates],
    dtype: str,
    chunk: int,
    memory_budget: int,
    device: str,
) -> Plan:
    """spec: checked. rates: of every model in configs. device: `cpu` or `cuda`."""
    ctxs = unique_lengths(spec.ctxs)
    decode, unmeasured = _decode(spec, ctxs, configs, rates, dtype, memory_budget, device)
    spent = sum(point.seconds for point in decode)
    left = spec.time_budget * (1 - SETUP_SHARE) - spent
    prefill = _prefill(spec, ctxs, configs, rates, dtype, chunk, left)
    points = (*machine_points(), *_in_order([*prefill, *decode]))
    seconds, notes = sum(point.seconds for point in points), []
    if seconds > spec.time_budget:
        notes.append(
            f"the shortest plan for what is asked takes about {seconds:.0f} s, more than the time budget of "
            f"{spec.time_budget:.0f} s"
        )
    if any(point.protocol == "sampled" for point in points):
        notes.append("sampled prefill is an estimate; lengths that were also run in full say how good it is")
    return Plan(points, chunk, memory_budget, tuple(unmeasured), tuple(notes))


def _decode(
    spec: ProfileSpec,
    ctxs: Sequence[int],
    configs: Mapping[str, ModelConfig],
    rates: Mapping[str, Rates],
    dtype: str,
    budget: int,
    device: str,
) -> tuple[list[PlannedPoint], list[dict[str, Any]]]:
    """Decode points, and the memory point of every model and length, whatever batches fit."""
    cells: list[tuple[int, Batch, dict[str, int]]] = []
    unmeasured = []
    fed = fed_tokens(spec, device)
    for ctx in ctxs:
        for batch in spec.batches:
            rows: dict[str, int] = {}
            for name, config in configs.items():
                total = lambda n, c=config: c.state_bytes(ctx + fed, n, dtype).total  # noqa: E731, B023
                most = max(largest(total, budget, MAX_ROWS[device]), 1)
                rows[name] = most if batch == "max" else batch
                need = config.state_bytes(ctx + fed, rows[name], dtype).total
                if need > budget and batch != 1:
                    reason = f"{rows[name]} x {need // rows[name]} bytes of state, {budget} in the budget"
                    unmeasured.append({"model": name, "ctx": ctx, "protocol": protocol_of(batch), "reason": reason})
                    del rows[name]
            cells.append((ctx, batch, rows))

    def cost(cell: tuple[int, Batch, dict[str, int]], steps: int) -> float:
        ctx, _, rows = cell
        return sum(rates[name].fill(b, ctx) + steps * rates[name].step(b, ctx) for name, b in rows.items())

    dropped = DROPPED_STEPS[device]
    levels = choose_levels(cells, cost, DECODE_SHARE * spec.time_budget, spec.decode_tokens, spec.repeats, dropped)
    points = []
    for ctx in ctxs:
        for name, config in configs.items():
            one, seconds = config.state_bytes(ctx, 1, dtype).total, rates[name].fill(1, ctx) + rates[name].step(1, ctx)
            points.append(PlannedPoint.of("memory", "state", name, ctx, 1, 0, seconds, state_bytes=one))
    for (ctx, batch, rows), (steps, repeats) in zip(cells, levels, strict=True):
        protocol = protocol_of(batch)
        for repeat in range(repeats):
            for name, b in rows.items():
                rate, nbytes = rates[name], configs[name].state_bytes(ctx, b, dtype).total
                fill = rate.fill(b, ctx)
                seconds = (fill if repeat == 0 else 0) + (steps + dropped) * rate.step(b, ctx)
                more = {"state_bytes": nbytes, "steps": steps, "dropped": dropped}
                points.append(PlannedPoint.of("decode", protocol, name, ctx, b, repeat, seconds, **more))
    return points, unmeasured


def _prefill(
    spec: ProfileSpec,
    ctxs: Sequence[int],
    configs: Mapping[str, ModelConfig],
    rates: Mapping[str, Rates],
    dtype: str,
    chunk: int,
    left: float,
) -> list[PlannedPoint]:
    """How often each length is run in full and sampled, then the points."""
    full, sampled = prefill_repeats(spec, ctxs, rates, chunk, left)
    points = []
    for counts, protocol in ((full, "full"), (sampled, "sampled")):
        done: set[int] = set()
        for ctx in sorted(counts):
            for repeat in range(counts[ctx]):
                for name, config in configs.items():
                    rate, nbytes = rates[name], config.state_bytes(ctx, 1, dtype).total
                    if protocol == "full":
                        seconds = rate.prefill(ctx, chunk)
                    else:
                        new = [
                            p for p in positions_for(ctx, chunk, sample_positions(list(counts), chunk)) if p not in done
                        ]
                        fill = rate.fill(1, ctx) if repeat == 0 else 0.0
                        seconds = fill + sum(rate.chunk(p) for p in new)
                    points.append(
                        PlannedPoint.of("prefill", protocol, name, ctx, 1, repeat, seconds, state_bytes=nbytes)
                    )
            if protocol == "sampled":
                done |= set(positions_for(ctx, chunk, sample_positions(list(counts), chunk)))
    return points


def _in_order(points: Iterable[PlannedPoint]) -> list[PlannedPoint]:
    """By length; within one, memory and decode, prefill in full, then sampled; within that by repeat, models in turn."""
    rank = {"memory": 0, "decode": 1, "prefill": 2}
    place = {"state": 0, "full": 0, "sampled": 1}
    return sorted(points, key=lambda p: (p.ctx, rank[p.kind], place.get(p.protocol, 0), p.protocol, p.repeat))
