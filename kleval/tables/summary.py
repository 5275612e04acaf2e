"""A profile's points as one row per measurement: medians over repeats, spread, ratio to the baseline, closed form beside it.

The same columns for every kind and every output format; None where a column does not apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from kleval.quantiles import spread
from kleval.store import Point
from kleval.store.records import METRIC
from kleval.tables.ratios import Ratio, choose_baseline, ratios

ORDER = ("prefill", "decode", "memory", "machine")
UNITS = {"prefill": "s", "decode": "ms/token", "memory": "bytes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """value, in `unit`: median over repeats: seconds of a prompt, ms per token of all sequences together, bytes of one sequence's
    state, bytes or operations per second. spread: (largest - smallest) / median over repeats. closed_form: the least that the
    machine's bound allows (prefill, decode), or the state's bytes by formula (memory). utilisation: MFU or MBU. ratio: the
    baseline's value over this one's; ratio_ideal: what operations or bytes alone would give.
    """

    kind: str
    protocol: str
    model: str
    ctx: int
    batch: int
    value: float | None
    unit: str
    estimate: bool = False
    repeats: int = 0
    spread: float | None = None
    closed_form: float | None = None
    utilisation: float | None = None
    tokens_per_second: float | None = None
    step_ms_median: float | None = None
    step_ms_p90: float | None = None
    step_ms_p99: float | None = None
    baseline: str | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    ratio_ideal: float | None = None
    sampled_over_full: float | None = None
    state_bytes: int | None = None
    allocated_bytes: int | None = None
    workspace_bytes: int | None = None
    weights_bytes: int | None = None
    failure: str | None = None

    def record(self) -> dict[str, Any]:
        return asdict(self)


COLUMNS = tuple(f.name for f in fields(SummaryRow))


def summarise(points: Iterable[Point], models: Sequence[str]) -> list[SummaryRow]:
    """Rows by kind, protocol, ctx and model in the order given. models: as the profile names them, none for machine points only."""
    everything = list(points)
    baseline = choose_baseline(models) if models else ""
    compared = {(r.kind, r.protocol, r.ctx, r.model): r for r in ratios(everything, baseline)}
    groups: dict[tuple[str, str, int, str], list[Point]] = {}
    for point in everything:
        if point.kind in ORDER:
            groups.setdefault((point.kind, point.protocol, point.ctx, point.model), []).append(point)
    place = {name: index for index, name in enumerate(models)}
    ordered = sorted(groups, key=lambda k: (ORDER.index(k[0]), k[1], k[2], place.get(k[3], len(place))))
    memory = {key[2:]: group for key, group in groups.items() if key[0] == "memory"}
    return [_row(groups[key], compared.get(key), memory.get((key[2], baseline)), baseline) for key in ordered]


def _row(group: list[Point], ratio: Ratio | None, baseline_memory: list[Point] | None, baseline: str) -> SummaryRow:
    good = [point for point in group if not point.failed]
    first = (good or group)[0]
    base: dict[str, Any] = {
        "kind": first.kind,
        "protocol": first.protocol,
        "model": first.model,
        "ctx": first.ctx,
        "batch": first.batch,
        "unit": UNITS.get(first.kind, "bytes/s" if first.protocol == "copy" else "flops/s"),
        "estimate": first.estimate,
        "repeats": len(good),
    }
    if not good:
        return SummaryRow(**base, value=None, failure=(first.failure or {}).get("message", "failed"))
    if first.kind in METRIC:
        base |= _timing(good)
    elif first.kind == "memory":
        base |= _memory(first, baseline_memory, baseline)
    else:
        name = "bytes_per_second" if first.protocol == "copy" else "flops_per_second"
        base |= {"value": first.values[name]}
    if ratio is not None:
        base |= {
            "baseline": ratio.baseline,
            "ratio": ratio.value,
            "ratio_low": _finite(ratio.low),
            "ratio_high": _finite(ratio.high),
            "ratio_ideal": ratio.ideal,
        }
    return SummaryRow(**base)


def _timing(good: list[Point]) -> dict[str, Any]:
    first = good[0]
    values = [float(point.values[METRIC[first.kind]] or 0) for point in good]
    bound = first.closed_form.get("bound_seconds" if first.kind == "prefill" else "bound_ms")
    if bound is not None and first.kind == "decode":
        bound /= first.batch
    return {
        "value": _median_of(good, METRIC[first.kind]),
        "spread": spread(values) if len(values) > 1 else None,
        "closed_form": bound,
        "utilisation": _median_of(good, "mfu" if first.kind == "prefill" else "mbu"),
        "tokens_per_second": _median_of(good, "tokens_per_second"),
        "step_ms_median": _median_of(good, "step_ms_median"),
        "step_ms_p90": _median_of(good, "step_ms_p90"),
        "step_ms_p99": _median_of(good, "step_ms_p99"),
        "sampled_over_full": _median_of(good, "sampled_over_full"),
        "state_bytes": first.closed_form.get("state_bytes"),
        "workspace_bytes": first.values.get("workspace_bytes"),
    }


def _memory(point: Point, baseline_memory: list[Point] | None, baseline: str) -> dict[str, Any]:
    values = point.values
    found: dict[str, Any] = {
        "value": values["state_bytes"],
        "closed_form": point.closed_form["state_bytes"],
        "state_bytes": values["state_bytes"],
        "allocated_bytes": values["allocated_bytes"],
        "workspace_bytes": values["workspace_bytes"],
        "weights_bytes": values["weights_bytes"],
    }
    theirs = baseline_memory[0].values.get("state_bytes") if baseline_memory else None
    if theirs and values["state_bytes"] and point.model != baseline:
        found |= {"baseline": baseline, "ratio": theirs / values["state_bytes"]}
    return found


def _median_of(points: list[Point], name: str) -> float | None:
    from statistics import median

    values = [value for point in points if (value := point.values.get(name)) is not None]
    return median(values) if values else None


def _finite(value: float) -> float | None:
    return value if value == value else None
