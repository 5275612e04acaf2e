"""Plan of a run on hardware that is not here: requests, tokens, memory, device-hours and money, before anything is opened.

What is asked is the forecast of `kleval run --dry-run` (`kleval.harness.forecast`) where samples can be made here, and of the official
edition what its cards count (`kleval.tasks.counts`), so that no data need be here. How long it takes is closed forms over rates: those
that the rows of a profile reached, or a share of what a datasheet promises, which is a range and is called an assumption.

Not counted: starting, loading weights, making samples, retries, what a judge takes. Answers are taken to use their whole budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from kleval.harness.forecast import Forecast, Load, forecast
from kleval.harness.spec import RunSpec
from kleval.models.costs import Costs, Split, check_split
from kleval.models.registry import costs_of
from kleval.planning.asking import Asking
from kleval.planning.rates import Rows
from kleval.profiler.hardware import Hardware, parse_hardware
from kleval.profiler.memory import GPU_SHARE, Formats, largest
from kleval.profiler.speeds import Speed
from kleval.text import plural, size
from kleval.types import Task, Tokenizer, UsageError

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Place:
    """A model on the hardware: replicas of `split.devices` devices each. fits: at every length asked for."""

    split: Split
    replicas: int
    weights_bytes: int
    budget_bytes: int
    state_bytes: Mapping[int, int]
    together: Mapping[int, int]

    @property
    def fits(self) -> bool:
        return all(self.together.values())

    def why(self, ctx: int) -> str:
        """Why it does not fit at a length, "" where it does."""
        if self.together[ctx]:
            return ""
        needs = f"{size(self.weights_bytes)} of weights and {size(self.state_bytes[ctx])} of state"
        where = f"{GPU_SHARE:.0%} of {plural(self.split.devices, 'device')}"
        return f"does not fit: {needs} on each device, {size(self.budget_bytes)} in {where}"


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """loads: what is asked of it. seconds: per load, of one replica, (least, most); None where it does not fit or nothing is known.
    batch: requests at a time per length. basis: what the seconds are from."""

    name: str
    place: Place | None
    loads: tuple[Load, ...]
    seconds: tuple[Span | None, ...]
    batch: Mapping[int, int]
    basis: str
    longest: Span = (0.0, 0.0)

    @property
    def forecast(self) -> Forecast:
        return forecast(self.loads)

    @property
    def known(self) -> list[Span]:
        return [span for span in self.seconds if span is not None]

    @property
    def partial(self) -> bool:
        """Whether seconds are without what does not fit, which requests and tokens count."""
        return self.place is not None and None in self.seconds

    @property
    def device_seconds(self) -> Span | None:
        if self.place is None or not self.known:
            return None
        return _times(_sum(self.known), self.place.split.devices)

    @property
    def wall_seconds(self) -> Span | None:
        """With every replica at work; not less than the longest sample, nor than whole rounds of the longer ones."""
        if self.place is None or not self.known:
            return None
        shared, rounds = _times(_sum(self.known), 1 / self.place.replicas), (self._rounds(0), self._rounds(1))
        return (max(shared[0], self.longest[0], rounds[0]), max(shared[1], self.longest[1], rounds[1]))

    def _rounds(self, end: int) -> float:
        """At least: of the samples that take some time or more, however many, a replica has their share, rounded up."""
        assert self.place is not None
        each = [(s[end] / load.n, load.n) for load, s in zip(self.loads, self.seconds, strict=True) if s and load.n]
        each.sort(reverse=True)
        so_far = accumulate(n for _, n in each)
        return max((-(-n // self.place.replicas) * s for (s, _), n in zip(each, so_far, strict=True)), default=0.0)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """assumed, sources: of the counts, by family or task. rows: names of the measured rows that rates are from. skips: tasks and
    lengths that nothing is asked at, with the reason."""

    hardware: Hardware | None
    models: tuple[ModelPlan, ...]
    price: float | None
    formats: Formats
    skips: tuple[Mapping[str, Any], ...]
    assumed: Mapping[str, str]
    sources: Mapping[str, str]
    rows: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def partial(self) -> bool:
        """Whether hours and money are without what does not fit, which requests and tokens count."""
        return any(model.partial for model in self.models)

    @property
    def device_hours(self) -> Span | None:
        spans = [model.device_seconds for model in self.models]
        known = [span for span in spans if span is not None]
        return _times(_sum(known), 1 / 3600) if known else None

    @property
    def wall_hours(self) -> Span | None:
        """Models one after the other."""
        known = [span for model in self.models if (span := model.wall_seconds) is not None]
        return _times(_sum(known), 1 / 3600) if known else None

    @property
    def money(self) -> Span | None:
        hours = self.device_hours
        return None if hours is None or self.price is None else _times(hours, self.price)


def plan_run(
    spec: RunSpec,
    load_task: Callable[[str], Task],
    hardware: str | None = None,
    measured: Sequence[Path] = (),
    *,
    every: bool = False,
    price: float | None = None,
    tp: int | None = None,
    formats: Formats | None = None,
    load_tokenizer: Callable[[str], Tokenizer] | None = None,
) -> RunPlan:
    """load_task: which need not find official data. hardware: `8xh200`; None with a profile is what that was made on, else times are
    not told. measured: profile directories. every: all samples that an official edition has, instead of spec.limit. price: of an
    hour of one device. UsageError for what is not known: hardware, a model's shape, how much a task asks."""
    spec.check()
    formats = formats or Formats()
    rows = Rows(measured)
    machine = rows.machine if hardware is None else parse_hardware(hardware, rows.cpu)
    if machine is not None:
        rows.check(machine)
    asking = Asking(spec, load_task, every, load_tokenizer)
    found = []
    for given in dict.fromkeys(spec.models):
        name, config = costs_of(given)
        found.append(_model_plan(name, config, asking.loads(name, given), spec, machine, rows, tp, formats))
    used = rows.used if machine is not None else ()
    return RunPlan(
        *(machine, tuple(found), price, formats, tuple(asking.skips), asking.assumed, asking.sources, used),
        notes=tuple(asking.notes),
    )


def _model_plan(
    name: str,
    config: Costs,
    asked: tuple[Load, ...],
    spec: RunSpec,
    machine: Hardware | None,
    rows: Rows,
    tp: int | None,
    formats: Formats,
) -> ModelPlan:
    if machine is None:
        return ModelPlan(name, None, asked, (None,) * len(asked), {}, "not told: no --hardware was given")
    ctxs = sorted(set(spec.ctxs))
    place = _place(config, ctxs, machine, tp, formats)
    speeds, basis = rows.speeds(name, config, machine, formats, place.split)
    batch = {}
    for ctx in ctxs:
        n = sum(load.n for load in asked if load.ctx == ctx)
        most = spec.batch or max(1, spec.window_tokens // ctx)
        limits = (place.together[ctx], -(-n // place.replicas), most, *(rows.most_batch(one, ctx) for one in speeds))
        batch[ctx] = max(1, min(limits))
    seconds: list[Span | None] = []
    longest = [0.0, 0.0]
    for load in asked:
        if not place.together[load.ctx]:
            seconds.append(None)
            continue
        spans = [_seconds(speed, load, min(batch[load.ctx], load.n)) for speed in speeds]
        seconds.append((spans[0], spans[-1]))
        for i, speed in enumerate((speeds[0], speeds[-1])):
            longest[i] = max(longest[i], _seconds(speed, replace(load, n=1), 1))
    return ModelPlan(name, place, asked, tuple(seconds), batch, basis, (longest[0], longest[1]))


def _seconds(speed: Speed, load: Load, batch: int) -> float:
    """Of all a load's requests on one replica, `batch` of them decoding together; the first token comes with the prompt."""
    total = 0.0
    whole, rest = divmod(load.n, max(batch, 1))
    for one in load.requests:
        if one.judging:
            continue
        steps, depth = max(0, one.written - 1), one.read + one.written // 2
        total += load.n * speed.prefill(one.read) + whole * steps * speed.step(depth, batch)
        total += steps * speed.step(depth, rest) if rest else 0.0
    return total


def _place(config: Costs, ctxs: Sequence[int], machine: Hardware, tp: int | None, formats: Formats) -> Place:
    """On as few devices as hold the weights and one sequence of the longest length; else on as many as it can be cut over."""
    if tp is not None and (tp < 1 or machine.devices % tp):
        raise UsageError(f"--tp {tp} does not divide the {machine.devices} devices of --hardware {machine.words}")
    if tp is not None:
        check_split(config, Split(tp))
    place = None
    for n in [tp] if tp else [n for n in range(1, machine.devices + 1) if not machine.devices % n]:
        split = Split(n)
        try:
            check_split(config, split)
        except UsageError:
            continue
        place = _placed(config, ctxs, machine, split, formats)
        if place.fits:
            return place
    assert place is not None, "one device is always a split"
    return place


def _placed(config: Costs, ctxs: Sequence[int], machine: Hardware, split: Split, formats: Formats) -> Place:
    weights = config.weight_bytes(formats.dtype, formats.weights, split)
    budget = int(GPU_SHARE * machine.memory_bytes)

    def states(ctx: int, n: int) -> int:
        return config.state_bytes(ctx, n, formats.dtype, formats.kv, split).total

    return Place(
        split,
        machine.devices // split.devices,
        weights,
        budget,
        {ctx: states(ctx, 1) for ctx in ctxs},
        {ctx: largest(partial(states, ctx), budget - weights) for ctx in ctxs},
    )


def _sum(spans: Sequence[Span]) -> Span:
    return (sum(low for low, _ in spans), sum(high for _, high in spans))


def _times(span: Span, factor: float) -> Span:
    return (span[0] * factor, span[1] * factor)


def records(plan: RunPlan) -> list[dict[str, Any]]:
    """JSON values: a `cell` per model, task and length, a `memory` per model and length, a `model` each, then `plan`."""
    found: list[dict[str, Any]] = []
    for model in plan.models:
        cells: dict[tuple[str, int], list[int]] = {}
        for i, load in enumerate(model.loads):
            cells.setdefault((load.task, load.ctx), []).append(i)
        for (task, ctx), at in cells.items():
            spans = [model.seconds[i] for i in at]
            known = [span for span in spans if span is not None]
            told = forecast([model.loads[i] for i in at])
            found.append(
                {
                    "record": "cell",
                    "model": model.name,
                    "task": task,
                    "ctx": ctx,
                    "samples": sum(model.loads[i].n for i in at),
                    **_counted(told),
                    "replica_seconds": _sum(known) if len(known) == len(spans) else None,
                    "batch": model.batch.get(ctx),
                }
            )
        if (place := model.place) is None:
            continue
        for ctx, n in place.together.items():
            found.append(
                {
                    "record": "memory",
                    "model": model.name,
                    "ctx": ctx,
                    **asdict(plan.formats),
                    "devices_per_replica": place.split.devices,
                    "replicas": place.replicas,
                    "weights_bytes": place.weights_bytes,
                    "state_bytes": place.state_bytes[ctx],
                    "budget_bytes": place.budget_bytes,
                    "together": n,
                    "fits": bool(n),
                    "why": place.why(ctx),
                }
            )
    for model in plan.models:
        found.append(
            {
                "record": "model",
                "model": model.name,
                **_counted(model.forecast),
                "device_hours": _hours(model.device_seconds),
                "wall_hours": _hours(model.wall_seconds),
                "partial": model.partial,
                "basis": model.basis,
            }
        )
    total = forecast([load for model in plan.models for load in model.loads])
    found.append(
        {
            "record": "plan",
            "hardware": asdict(plan.hardware) if plan.hardware else None,
            **_counted(total),
            "device_hours": plan.device_hours,
            "wall_hours": plan.wall_hours,
            "price_per_device_hour": plan.price,
            "money": plan.money,
            "partial": plan.partial,
            "counted": dict(plan.sources),
            "assumed": dict(plan.assumed),
            "rows": list(plan.rows),
            "skipped": [dict(skip) for skip in plan.skips],
            "notes": list(plan.notes),
        }
    )
    return found


def _counted(told: Forecast) -> dict[str, int]:
    return {
        name: getattr(told, name)
        for name in ("requests", "judge_requests", "read", "written", "judge_read", "judge_written")
    }


def _hours(span: Span | None) -> Span | None:
    return None if span is None else _times(span, 1 / 3600)
