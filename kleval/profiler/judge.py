"""Caveats of a profile: whether the machine was quiet, how good the estimate is, what is compared.

`noise` and `checks` return a JSON record, {limit, details: one per measurement looked at, worst first}, and sentences, none when all
is well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kleval.quantiles import spread
from kleval.store import Point
from kleval.store.records import METRIC

if TYPE_CHECKING:
    from kleval.models.config import ModelConfig

NOISE_LIMIT = 0.15  # (largest - smallest) / median over the repeats of one measurement
CHECK_LIMIT = 0.15  # |sampled / full - 1|
Judged = tuple[dict[str, Any], list[str]]


def noise(points: Iterable[Point]) -> Judged:
    """Spread over repeats of every measurement that has several."""
    groups: dict[tuple[str, str, str, int, int], list[float]] = {}
    for point in points:
        value = point.values.get({**METRIC, "kernel": "seconds"}.get(point.kind, ""))
        if value:
            heads = int(point.settings.get("heads", 0)) if point.kind == "kernel" else 0
            groups.setdefault((point.kind, point.protocol, point.model, point.ctx, heads), []).append(float(value))
    details: list[dict[str, Any]] = [
        {"kind": kind, "protocol": protocol, "model": model, "ctx": ctx, "repeats": len(v), "spread": spread(v)}
        | ({"heads": heads} if heads else {})
        for (kind, protocol, model, ctx, heads), v in groups.items()
        if len(v) > 1
    ]
    details.sort(key=lambda record: -record["spread"])
    n, told = sum(record["spread"] > NOISE_LIMIT for record in details), []
    if n:
        worst = details[0]
        shape = f", {worst['heads']} heads" if "heads" in worst else ""
        told.append(
            f"Noisy machine: {n} of {len(details)} repeated measurements spread by more than {NOISE_LIMIT:.0%} (worst "
            f"{worst['spread']:.0%}: {worst['kind']} {worst['protocol']} of {worst['model']} at {worst['ctx']}{shape})."
        )
    return {"limit": NOISE_LIMIT, "details": details}, told


def checks(points: Iterable[Point]) -> Judged:
    """Sampled against full prefill, where both were run."""
    found = [point for point in points if point.values.get("sampled_over_full") is not None]
    details = [
        {
            "model": p.model,
            "ctx": p.ctx,
            "repeat": p.repeat,
            "sampled_over_full": float(p.values["sampled_over_full"] or 1),
        }
        for p in found
    ]
    details.sort(key=lambda record: -_error(record))
    told = []
    if details:
        worst, off = details[0], sum(_error(record) > CHECK_LIMIT for record in details)
        more = f"; {off} of {len(details)} checks are off by more than {CHECK_LIMIT:.0%}" if off else ""
        told.append(
            f"Sampled prefill is an estimate: against full runs of the same prompts it is off by at most {_error(worst):.0%} "
            f"({worst['model']} at {worst['ctx']}){more}."
        )
    return {"limit": CHECK_LIMIT, "details": details}, told


def _error(record: Mapping[str, Any]) -> float:
    return abs(float(record["sampled_over_full"]) - 1)


def sharing(points: Iterable[Point]) -> list[str]:
    """That processes shared a machine's processors, and that not all points had as many threads."""
    on_cpu = [point for point in points if point.environment.get("device") == "cpu"]
    beside = max((int(point.settings.get("side_by_side") or 1) for point in on_cpu), default=1)
    threads = sorted({int(n) for point in on_cpu if (n := point.environment.get("threads"))})
    told = []
    if beside > 1:
        told.append(
            f"Side by side: up to {beside} processes measured at a time on the machine's processors; models compare, as those of "
            "one kind and length took turns in one process, but by itself each may be faster."
        )
    if len(threads) > 1:
        counts = " and ".join(map(str, threads))
        told.append(f"Threads: points were measured with {counts}; only those with as many compare.")
    return told


def caveats(configs: Mapping[str, ModelConfig]) -> list[str]:
    """What is compared, one sentence each."""
    found = [
        "All models have random weights, drawn alike: times and bytes do not depend on what a model has learnt.",
        "Decode excludes sampling: fixed token ids go in and logits stay on the device.",
    ]
    positions = {name: "NoPE" if config.mla_use_nope else "RoPE" for name, config in configs.items()}
    if len(set(positions.values())) > 1:
        said = ", ".join(f"{name} {encoding}" for name, encoding in positions.items())
        found.append(f"Positions differ between the models ({said}); the paper does not state its MLA baseline's.")
    return found
