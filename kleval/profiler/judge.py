"""What a reader of a profile must know before believing it: was the machine quiet, is the estimate good, what is compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kleval.quantiles import spread
from kleval.store import Point
from kleval.store.records import METRIC

if TYPE_CHECKING:
    from kleval.models.config import ModelConfig

NOISE_LIMIT = 0.15  # (largest - smallest) / median over the repeats of one measurement
CHECK_LIMIT = 0.15  # |sampled / full - 1|


@dataclass(frozen=True, slots=True)
class Verdict:
    """details: one JSON record per measurement looked at, worst first. caveats: sentences, none when all is well."""

    details: tuple[dict[str, Any], ...]
    limit: float
    caveats: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        return {"limit": self.limit, "details": list(self.details)}


def noise(points: Iterable[Point]) -> Verdict:
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
    loud = [record for record in details if record["spread"] > NOISE_LIMIT]
    if not loud:
        return Verdict(tuple(details), NOISE_LIMIT)
    worst = loud[0]
    shape = f", {worst['heads']} heads" if "heads" in worst else ""
    return Verdict(
        tuple(details),
        NOISE_LIMIT,
        (
            f"Noisy machine: {len(loud)} of {len(details)} repeated measurements spread by more than {NOISE_LIMIT:.0%} "
            f"(worst {worst['spread']:.0%}: {worst['kind']} {worst['protocol']} of {worst['model']} at {worst['ctx']}{shape}).",
        ),
    )


def checks(points: Iterable[Point]) -> Verdict:
    """Sampled against full prefill, where both were run."""
    details = sorted(
        (
            {"model": p.model, "ctx": p.ctx, "repeat": p.repeat, "sampled_over_full": p.values["sampled_over_full"]}
            for p in points
            if p.values.get("sampled_over_full") is not None
        ),
        key=lambda record: -abs(float(record["sampled_over_full"] or 1) - 1),
    )
    if not details:
        return Verdict((), CHECK_LIMIT)
    worst = details[0]
    error = abs(float(worst["sampled_over_full"] or 1) - 1)
    off = sum(abs(float(record["sampled_over_full"] or 1) - 1) > CHECK_LIMIT for record in details)
    text = (
        f"Sampled prefill is an estimate: against full runs of the same prompts it is off by at most {error:.0%} "
        f"({worst['model']} at {worst['ctx']})"
    )
    text += f"; {off} of {len(details)} checks are off by more than {CHECK_LIMIT:.0%}." if off else "."
    return Verdict(tuple(details), CHECK_LIMIT, (text,))


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
