"""Measurements of a profile: a run's points put together per measurement, with ratios to the baseline.

Points are the only numbers; the manifest adds names, settings, layer counts and what the profiler wants a reader to know. A
measurement is one model (or operator) at one length under one protocol, over its repeats. The terminal's tables, the page,
profile.csv and the costs beside scores are views of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from kleval.quantiles import spread
from kleval.store import Point, RunStore
from kleval.store.manifest import value_at
from kleval.tables.ratios import TIMES, Ratio, choose_baseline, kernel_ratios, kernel_shape, ratios
from kleval.types import UsageError

METRIC = TIMES | {"memory": "state_bytes", "served": "tpot_ms"}  # what a kind is compared by
UNITS = {"prefill": "s", "decode": "ms/token", "memory": "bytes", "kernel": "s", "served": "ms/token"}
LOADS = (
    "concurrency",
    "steady",
    "rate",
    "best",
    "reuse",
)  # protocols of served models, before what they are followed by
KIND_ORDER = ("prefill", "decode", "memory", "kernel", "served", "machine")
PROTOCOL_ORDER = ("full", "sampled", "batch-1", "largest-batch", "state", "chunk", "recurrent")
OPERATORS = ("kda", "gdn", "dplr", "softmax")
NOISE_LIMIT = 0.15  # where a run does not say its own


@dataclass(frozen=True, slots=True)
class Measure:
    """One measurement. good: its points that did not fail, by repeat; bad: the others. heads, head_dim: of kernels, else 0."""

    kind: str
    protocol: str
    model: str
    ctx: int
    heads: int
    head_dim: int
    good: tuple[Point, ...]
    bad: tuple[Point, ...] = ()

    @property
    def first(self) -> Point:
        return (self.good or self.bad)[0]

    @property
    def estimate(self) -> bool:
        return bool(self.good) and self.first.estimate

    @property
    def batch(self) -> int:
        return self.first.batch

    @property
    def failed(self) -> bool:
        return not self.good

    @property
    def failure(self) -> str:
        """Why a repeat has no value, "" where all have one."""
        if not self.bad:
            return ""
        told = next((point.failure for point in self.bad if point.failure), {"message": "no value"})
        return told.get("message", "failed")

    @property
    def repeats(self) -> int:
        return len(self.good)

    @property
    def values(self) -> list[float]:
        """Of every good repeat, in UNITS."""
        return [point.values[METRIC[self.kind]] or 0 for point in self.good]

    @property
    def value(self) -> float:
        """The median over repeats, NaN when all failed."""
        return median(self.values) if self.good else math.nan

    @property
    def low(self) -> float:
        return min(self.values, default=math.nan)

    @property
    def high(self) -> float:
        return max(self.values, default=math.nan)

    @property
    def spread(self) -> float | None:
        """(largest - smallest) / median over repeats."""
        return spread(self.values) if len(self.good) > 1 else None

    def of(self, name: str) -> float | None:
        """The median over repeats of one of the values, None where no repeat has it."""
        found = [value for point in self.good if (value := point.values.get(name)) is not None]
        return median(found) if found else None

    def total(self, name: str) -> float | None:
        """Its sum over repeats."""
        found = [value for point in self.good if (value := point.values.get(name)) is not None]
        return sum(found) if found else None

    def mean(self, name: str, weight: str) -> float | None:
        """Over repeats, each with the weight that another of its values is."""
        found = [
            (value, w) for p in self.good if (value := p.values.get(name)) is not None and (w := p.values.get(weight))
        ]
        return sum(value * w for value, w in found) / sum(w for _, w in found) if found else None

    def closed(self, name: str) -> float | None:
        return self.first.closed_form.get(name) if self.good else None

    @property
    def bound(self) -> float | None:
        """The least that the machine's bound allows, in the unit of value."""
        if self.kind != "decode":
            return self.closed("bound_seconds")
        step = self.closed("bound_ms")
        return None if step is None else step / max(self.batch, 1)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the ratio of cache bytes tends to: the baseline's MLA layers over the model's. text: `27/7 = 3.86`."""

    model: str
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A run's points as the page shows them. models: as the run names them, kernels not among them. laws: verdicts of `verify`,
    which are no measurements and not among the points."""

    name: str
    path: str
    manifest: Mapping[str, Any]
    status: str
    points: tuple[Point, ...]
    models: tuple[str, ...]
    baseline: str
    measures: tuple[Measure, ...]
    ratios: tuple[Ratio, ...]
    kernel_ratios: tuple[Ratio, ...]
    laws: tuple[Point, ...] = ()

    def get(self, *path: str, default: Any = None) -> Any:
        """The manifest's value at a path of keys; default where it ends early or holds null."""
        return value_at(self.manifest, path, default)

    def of(self, kind: str, protocol: str | None = None) -> list[Measure]:
        return [m for m in self.measures if m.kind == kind and protocol in (None, m.protocol)]

    def protocols(self, kind: str) -> list[str]:
        return list(dict.fromkeys(m.protocol for m in self.of(kind)))

    def ctxs(self, kind: str) -> list[int]:
        return sorted({m.ctx for m in self.of(kind)})

    def machine(self, protocol: str, name: str) -> float | None:
        return next((p.values.get(name) for p in self.points if (p.kind, p.protocol) == ("machine", protocol)), None)

    @property
    def noise_limit(self) -> float:
        limit = self.get("noise", "limit")
        return float(limit) if isinstance(limit, (int, float)) else NOISE_LIMIT

    @property
    def noisy(self) -> list[Measure]:
        """Measurements whose repeats spread by more than the limit, the worst first."""
        loud = [m for m in self.measures if (m.spread or 0) > self.noise_limit]
        return sorted(loud, key=lambda m: -(m.spread or 0))

    @property
    def failures(self) -> list[Point]:
        return [point for point in self.points if point.failed]

    @property
    def environments(self) -> list[Mapping[str, Any]]:
        """The distinct fingerprints of the points, in order."""
        found: list[Mapping[str, Any]] = []
        for point in self.points:
            if point.environment and point.environment not in found:
                found.append(point.environment)
        return found

    def state_ratios(self) -> list[Ratio]:
        """Of the bytes that were measured; ideal: of the layers alone."""
        measured = {(m.model, m.ctx): m.value for m in self.of("memory") if not m.failed}
        ideal = {ceiling.model: ceiling.value for ceiling in self.ceilings()}
        return [
            Ratio(
                "memory",
                "state",
                ctx,
                model,
                self.baseline,
                measured[self.baseline, ctx] / value,
                ideal=ideal.get(model),
            )
            for (model, ctx), value in measured.items()
            if model != self.baseline and value and (self.baseline, ctx) in measured
        ]

    def ceilings(self) -> list[Ceiling]:
        """Per model other than the baseline whose cache grows; from the layers the run recorded, else from its latent bytes."""
        found = []
        for model in self.models:
            if model == self.baseline:
                continue
            mine, theirs = self.latent_layers(model), self.latent_layers(self.baseline)
            if mine and theirs:
                found.append(Ceiling(model, theirs / mine, f"{theirs}/{mine} = {theirs / mine:.2f}"))
                continue
            latent = {(m.model, m.ctx): m.closed("latent_bytes") for m in self.of("memory")}
            pairs = [(latent.get((self.baseline, c)), latent.get((model, c))) for c in self.ctxs("memory")]
            known = [a / b for a, b in pairs if a and b]
            if known:
                found.append(Ceiling(model, known[-1], f"{known[-1]:.2f}"))
        return found

    def latent_layers(self, model: str) -> int:
        """How many layers keep a latent row per token; 0 when the run does not say."""
        mixers = self.get("models", model, "config", "layer_mixers", default=[])
        return sum(mixer == "mla" for mixer in mixers)


def read_profile(store: RunStore) -> Profile:
    """UsageError when the run holds no measurement."""
    profile = make_profile(tuple(store.points()), store.manifest, store.title, str(store.path), store.status)
    if not profile.measures and not profile.laws:
        raise UsageError(f"{store.path} holds no measurements: make some with kleval profile --out {store.path}")
    return profile


def make_profile(
    points: Sequence[Point], manifest: Mapping[str, Any], name: str = "", path: str = "", status: str = "complete"
) -> Profile:
    """A Profile of points. manifest: `models` (by name, in their order) and what else a run's says."""
    laws = tuple(point for point in points if point.kind == "law")
    points = [point for point in points if point.kind != "law"]
    seen = dict.fromkeys(p.model for p in points if p.kind not in ("kernel", "machine"))
    named = list(manifest.get("models") or {})
    models = tuple(dict.fromkeys([*(name for name in named if name in seen), *seen]))
    baseline = choose_baseline(models) if models else ""
    return Profile(
        name=name,
        path=path,
        manifest=manifest,
        status=status,
        points=tuple(points),
        models=models,
        baseline=baseline,
        measures=tuple(_measures(points, models)),
        ratios=tuple(ratios([point for point in points if point.kind != "kernel"], baseline)),
        kernel_ratios=tuple(kernel_ratios(points)),
        laws=laws,
    )


def software_of(environment: Mapping[str, Any]) -> str:
    """What served a model, with its version, of a point's environment."""
    named = environment.get("server_software") or environment.get("software")
    return str(named or f"vLLM {environment.get('vllm', '')}".strip())


def _measures(points: Sequence[Point], models: Sequence[str]) -> list[Measure]:
    groups: dict[tuple[str, str, str, int, int, int], list[Point]] = {}
    for point in points:
        if point.kind in METRIC:
            key = (point.kind, point.protocol, point.model, point.ctx, *kernel_shape(point))
            groups.setdefault(key, []).append(point)
    place = {name: i for i, name in enumerate([*models, *OPERATORS])}

    def order(measure: Measure) -> tuple[Any, ...]:
        rank = PROTOCOL_ORDER.index(measure.protocol) if measure.protocol in PROTOCOL_ORDER else 2
        kind, _, load = measure.protocol.partition("-")
        number = (LOADS.index(kind), float(load) if kind != "best" else 0.0) if kind in LOADS else (0, 0.0)
        shape = (measure.heads, measure.head_dim, place.get(measure.model, len(place)), measure.model, measure.ctx)
        return KIND_ORDER.index(measure.kind), rank, number, measure.protocol, *shape

    return sorted((_measure(*key, group) for key, group in groups.items()), key=order)


def _measure(kind: str, protocol: str, model: str, ctx: int, heads: int, head_dim: int, group: list[Point]) -> Measure:
    good = sorted((p for p in group if not p.failed and p.values.get(METRIC[kind])), key=lambda p: p.repeat)
    bad = tuple(point for point in group if point not in good)
    return Measure(kind, protocol, model, ctx, heads, head_dim, tuple(good), bad)
