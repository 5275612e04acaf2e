"""A served profile's points as one row per length and concurrency: medians over rounds, failures counted apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

from kleval.quantiles import spread
from kleval.store import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRow:
    """Times in ms, None where no round succeeded. rounds, failed: how many did and did not. spread: of TPOT over rounds,
    (largest - smallest) / median. prompt_tokens: as the server counted, of one request; the other counts are sums over rounds.
    tpot_estimate: how many tokens the first piece of an answer held was not told. state_bytes: of one sequence."""

    model: str
    ctx: int
    concurrency: int
    rounds: int
    failed: int
    prompt_tokens: float | None = None
    ttft_ms: float | None = None
    ttft_ms_max: float | None = None
    tpot_ms: float | None = None
    itl_ms_median: float | None = None
    itl_ms_p90: float | None = None
    itl_ms_p99: float | None = None
    e2e_ms: float | None = None
    output_tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    tokens_per_arrival: float | None = None
    warmup_ttft_ms: float | None = None
    spread: float | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    failure: str | None = None
    tpot_estimate: bool = False
    state_bytes: float | None = None

    def record(self) -> dict[str, Any]:
        return asdict(self)


_SUMS = ("output_tokens", "cached_tokens")
_MEDIANS = tuple(
    f.name
    for f in fields(ServedRow)
    if f.name not in (*_SUMS, "model", "ctx", "concurrency", "rounds", "failed", "spread", "failure", "tpot_estimate")
)


def summarise_served(points: Iterable[Point]) -> list[ServedRow]:
    """By length, then concurrency."""
    cells: dict[tuple[int, int, str], list[Point]] = {}
    for point in points:
        if point.kind == "served":
            cells.setdefault((point.ctx, point.batch, point.model), []).append(point)
    return [_row(cells[key]) for key in sorted(cells)]


def _row(cell: list[Point]) -> ServedRow:
    good = [point for point in cell if not point.failed]
    failures = [point.failure for point in cell if point.failure is not None]
    first = cell[0]
    values: dict[str, Any] = {}
    for name in (*_MEDIANS, *_SUMS):
        known = [value for point in good if (value := point.values.get(name)) is not None]
        if known:
            values[name] = sum(known) if name in _SUMS else median(known)
    if len(good) > 1:
        values["spread"] = spread([float(point.values["tpot_ms"] or 0) for point in good])
    return ServedRow(
        model=first.model,
        ctx=first.ctx,
        concurrency=first.batch,
        rounds=len(good),
        failed=len(failures),
        failure=failures[0]["message"] if failures else None,
        tpot_estimate=any(point.estimate for point in good),
        **values,
    )


def software_of(environment: Mapping[str, Any]) -> str:
    """What served a model, with its version, of a point's environment."""
    named = environment.get("server_software") or environment.get("software")
    return str(named or f"vLLM {environment.get('vllm', '')}".strip())
