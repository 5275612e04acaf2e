"""Kernel points as rows for people and files: medians over repeats, spread, and KDA against general DPLR."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from kleval.quantiles import spread
from kleval.store import Point
from kleval.tables.ratios import kernel_ratios, kernel_shape

ORDER = ("kda", "gdn", "dplr", "softmax")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """One operator at one shape. seconds: median over repeats of the median call; spread: (largest - smallest) / median over
    repeats. over_kda: its time over KDA's in the same shape. utilisation: the bound over the measured time."""

    protocol: str
    operator: str
    heads: int
    head_dim: int
    ctx: int
    seconds: float | None
    seconds_p90: float | None = None
    spread: float | None = None
    repeats: int = 0
    tokens_per_second: float | None = None
    flops_per_second: float | None = None
    bound_seconds: float | None = None
    utilisation: float | None = None
    over_kda: float | None = None
    over_kda_low: float | None = None
    over_kda_high: float | None = None
    flops_over_kda: float | None = None
    implementation: str = ""
    failure: str | None = None

    def record(self) -> dict[str, Any]:
        return asdict(self)


def summarise_kernels(points: Iterable[Point]) -> list[KernelRow]:
    """Rows by protocol (steps first), heads, T and operator."""
    kernels = [point for point in points if point.kind == "kernel"]
    ratios = {
        (r.slow, r.heads, r.head_dim, r.ctx): r for name in ORDER if name != "kda" for r in kernel_ratios(kernels, name)
    }
    groups: dict[tuple[str, int, int, int, str], list[Point]] = {}
    for point in kernels:
        groups.setdefault((point.protocol, *kernel_shape(point), point.ctx, point.model), []).append(point)
    ordered = sorted(groups, key=lambda k: (k[0] != "recurrent", *k[1:4], ORDER.index(k[4]) if k[4] in ORDER else 9))
    rows = []
    for protocol, heads, head_dim, ctx, name in ordered:
        group = groups[protocol, heads, head_dim, ctx, name]
        good = [point for point in group if not point.failed]
        base = {"protocol": protocol, "operator": name, "heads": heads, "head_dim": head_dim, "ctx": ctx}
        if not good:
            rows.append(KernelRow(**base, seconds=None, failure=(group[0].failure or {}).get("message", "failed")))  # type: ignore[arg-type]
            continue
        seconds = [float(point.values["seconds"] or 0) for point in good]
        bound = good[0].closed_form.get("bound_seconds")
        ratio = ratios.get((name, heads, head_dim, ctx)) if protocol == "chunk" else None
        rows.append(
            KernelRow(
                **base,  # type: ignore[arg-type]
                seconds=median(seconds),
                seconds_p90=median(float(point.values["seconds_p90"] or 0) for point in good),
                spread=spread(seconds) if len(seconds) > 1 else None,
                repeats=len(good),
                tokens_per_second=ctx / median(seconds),
                flops_per_second=(good[0].closed_form.get("flops") or 0) / median(seconds),
                bound_seconds=bound,
                utilisation=bound / median(seconds) if bound else None,
                over_kda=ratio.value if ratio else None,
                over_kda_low=ratio.low if ratio and ratio.n > 1 else None,
                over_kda_high=ratio.high if ratio and ratio.n > 1 else None,
                flops_over_kda=ratio.ideal if ratio else None,
                implementation=str(good[0].settings.get("implementation", "")),
            )
        )
    return rows
