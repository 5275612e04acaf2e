"""Plan of a served profile: which loads at which lengths, how many times, and what must be the same for it to go on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from kleval.profiler.plan import Plan
from kleval.profiler.points import PlannedPoint
from kleval.profiler.served.spec import ServedSpec, safe_url
from kleval.profiler.workload import unique_lengths
from kleval.types import Timed, UsageError


def loads(spec: ServedSpec) -> list[tuple[str, int]]:
    """Protocols in the order of measuring, and how many requests each has together; 0 where nothing but a rate says."""
    found = [(f"concurrency-{n}", n) for n in sorted(set(spec.concurrencies))]
    found += [(f"steady-{n}", n) for n in sorted(set(spec.steady))]
    found += [(f"rate-{rate:g}", 0) for rate in sorted(set(spec.rates))]
    found += [("best-rate", 0)] if spec.best_rate else []
    return [*found, *((f"reuse-{share:g}", 1) for share in sorted(set(spec.reuse)))]


def make_plan(
    spec: ServedSpec, backends: Sequence[Timed], unfit: Callable[[Timed, int], str] = lambda backend, ctx: ""
) -> Plan:
    """By length, then load, then repeat, then model. unfit: why nothing can be asked of a model at a length, "" where something can.
    UsageError when a model can be measured at none of the lengths."""
    points: list[PlannedPoint] = []
    unmeasured: list[dict[str, Any]] = []
    new = 0 if spec.tasks else spec.output.most  # a sample's length is that of prompt and answer

    def reason(backend: Timed, ctx: int) -> str:
        if backend.max_ctx is not None and ctx + new > backend.max_ctx:
            return f"{ctx}{f' + {new}' if new else ''} tokens, the model takes {backend.max_ctx}"
        return unfit(backend, ctx)

    for ctx in unique_lengths(spec.ctxs):
        reasons = {backend.model: reason(backend, ctx) for backend in backends}
        for protocol, n in loads(spec):
            for name, why in reasons.items():
                if why:
                    unmeasured.append({"model": name, "ctx": ctx, "protocol": protocol, "reason": why})
            for repeat, name in itertools.product(range(spec.repeats), [name for name in reasons if not reasons[name]]):
                points.append(PlannedPoint.of("served", protocol, name, ctx, n, repeat, steps=spec.output.most))
    for backend in backends:
        if not any(point.model == backend.model for point in points):
            why = "; ".join(dict.fromkeys(one["reason"] for one in unmeasured if one["model"] == backend.model))
            raise UsageError(
                f"{backend.model} can be measured at none of the lengths asked for: choose another --ctx ({why})"
            )
    return Plan(tuple(points), 0, 0, tuple(unmeasured))


def asked_settings(spec: ServedSpec) -> dict[str, Any]:
    """What must be the same for a profile to go on, as far as it is known before the model is reached."""
    engine = spec.engine
    load = (
        {}
        if not spec.is_more
        else {"load": [name for name, _ in loads(spec)], "slo": spec.slo, "requests": spec.requests}
    )
    known: dict[str, Any] = {
        "models": [engine.model],
        "backend": engine.backend,
        "ctx": list(unique_lengths(spec.ctxs)),
        "concurrency": sorted(set(spec.concurrencies)),
        **load,
        "decode_tokens": spec.decode_tokens,
        "repeats": spec.repeats,
        "seed": spec.seed,
    }
    if engine.backend == "openai":
        urls = [safe_url(one) for one in (engine, *spec.more)]
        return known | {"base_url": urls if spec.more else urls[0], "api": engine.api}
    known |= {
        "dtype": engine.dtype,
        "tp": engine.tp,
        "max_model_len": engine.max_model_len,
        "engine_args": engine.shown_engine_args(),
    }
    if engine.backend == "vllm":
        return known
    return known | {"base_url": safe_url(engine), "device": engine.device, "batch": engine.batch}
