"""What the profile's page and CSV read: a run's points, put together per measurement, with ratios to the baseline.

Points are the only numbers; the manifest adds names, settings, layer counts and what the profiler wants a reader to know. A
measurement is one model (or operator) at one length under one protocol, over its repeats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from kleval.quantiles import spread
from kleval.store import Point, RunStore
from kleval.tables.ratios import KernelRatio, Ratio, choose_baseline, kernel_ratios, kernel_shape, ratios
from kleval.types import UsageError

METRIC = {
    "prefill": "seconds",
    "decode": "ms_per_token",
    "memory": "state_bytes",
    "kernel": "seconds",
    "served": "tpot_ms",
}
UNITS = {"prefill": "s", "decode": "ms/token", "memory": "bytes", "kernel": "s", "served": "ms/token"}
KIND_ORDER = ("prefill", "decode", "memory", "kernel", "served", "machine")
PROTOCOL_ORDER = ("full", "sampled", "batch-1", "largest-batch", "state", "chunk", "recurrent")
OPERATORS = ("kda", "gdn", "dplr", "softmax")
NOISE_LIMIT = 0.15  # where a run does not say its own


@dataclass(frozen=True, slots=True)
class Measure:
    """One measurement. good: its points that did not fail, by repeat. value: median over repeats in UNITS, NaN when all failed.

    low, high: smallest and largest repeat. heads, head_dim: of kernels, else 0. failure: why there is no value, else "".
    """

    kind: str
    protocol: str
    model: str
    ctx: int
    heads: int
    head_dim: int
    good: tuple[Point, ...]
    value: float
    low: float
    high: float
    failure: str

    @property
    def first(self) -> Point:
        return self.good[0]

    @property
    def estimate(self) -> bool:
        return bool(self.good) and self.first.estimate

    @property
    def batch(self) -> int:
        return self.first.batch if self.good else 0

    @property
    def failed(self) -> bool:
        return not self.good

    @property
    def repeats(self) -> int:
        return len(self.good)

    @property
    def spread(self) -> float | None:
        return spread([_value(point) for point in self.good]) if len(self.good) > 1 else None

    def of(self, name: str) -> float | None:
        """The median over repeats of one of the values, None where no repeat has it."""
        found = [value for point in self.good if (value := point.values.get(name)) is not None]
        return median(found) if found else None

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
class StateRatio:
    """The baseline's state bytes over the model's at one length."""

    model: str
    ctx: int
    value: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the ratio of cache bytes tends to: the baseline's MLA layers over the model's. text: `27/7 = 3.86`."""

    model: str
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A run's points as the page shows them. models: as the run names them, kernels not among them."""

    name: str
    path: str
    manifest: Mapping[str, Any]
    status: str
    points: tuple[Point, ...]
    models: tuple[str, ...]
    baseline: str
    measures: tuple[Measure, ...]
    ratios: tuple[Ratio, ...]
    kernel_ratios: tuple[KernelRatio, ...]

    def get(self, *path: str, default: Any = None) -> Any:
        """The manifest's value at a path of keys; default where it ends early or holds null."""
        value: Any = self.manifest
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return default if value is None else value

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

    def state_ratios(self) -> list[StateRatio]:
        """Of the bytes that were measured."""
        bytes_of = {(m.model, m.ctx): m.value for m in self.of("memory") if not m.failed}
        return [
            StateRatio(model, ctx, bytes_of[self.baseline, ctx] / value)
            for (model, ctx), value in bytes_of.items()
            if model != self.baseline and value and (self.baseline, ctx) in bytes_of
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
    points = tuple(store.points())
    if not any(point.kind != "machine" for point in points):
        raise UsageError(f"{store.path} holds no measurements: make some with kleval profile --out {store.path}")
    manifest = store.manifest
    seen = dict.fromkeys(p.model for p in points if p.kind not in ("kernel", "machine"))
    named = list(manifest.get("models") or {})
    models = tuple(dict.fromkeys([*(name for name in named if name in seen), *seen]))
    baseline = choose_baseline(models) if models else ""
    return Profile(
        name=store.name,
        path=str(store.path),
        manifest=manifest,
        status=store.status,
        points=points,
        models=models,
        baseline=baseline,
        measures=tuple(_measures(points, models)),
        ratios=tuple(ratios(points, baseline)) if models else (),
        kernel_ratios=tuple(kernel_ratios(points)),
    )


def _measures(points: Sequence[Point], models: Sequence[str]) -> list[Measure]:
    groups: dict[tuple[str, str, int, int, int, str], list[Point]] = {}
    for point in points:
        if point.kind in METRIC:
            heads, head_dim = kernel_shape(point) if point.kind == "kernel" else (0, 0)
            groups.setdefault((point.kind, point.protocol, heads, head_dim, point.ctx, point.model), []).append(point)
    place = {name: i for i, name in enumerate([*models, *OPERATORS])}

    def order(key: tuple[str, str, int, int, int, str]) -> tuple[Any, ...]:
        kind, protocol, heads, head_dim, ctx, model = key
        rank = PROTOCOL_ORDER.index(protocol) if protocol in PROTOCOL_ORDER else 2
        number = int(protocol.rpartition("-")[2]) if kind == "served" else 0
        return KIND_ORDER.index(kind), rank, number, protocol, heads, head_dim, place.get(model, len(place)), model, ctx

    return [_measure(*key, groups[key]) for key in sorted(groups, key=order)]


def _measure(
    kind: str, protocol: str, heads: int, head_dim: int, ctx: int, model: str, group: Sequence[Point]
) -> Measure:
    good = sorted((p for p in group if not p.failed and p.values.get(METRIC[kind])), key=lambda p: p.repeat)
    values = [_value(point) for point in good]
    failure = ""
    if not good:
        failed = next((p.failure for p in group if p.failure), None)
        failure = failed.get("message", "failed") if failed else "no value"
    return Measure(
        kind,
        protocol,
        model,
        ctx,
        heads,
        head_dim,
        tuple(good),
        median(values) if values else math.nan,
        min(values, default=math.nan),
        max(values, default=math.nan),
        failure,
    )


def _value(point: Point) -> float:
    return float(point.values[METRIC[point.kind]] or 0)
