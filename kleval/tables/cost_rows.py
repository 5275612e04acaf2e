"""Rows of a profile: one per measurement (model or operator, protocol, length), complete and unrounded.

`records` has the columns of profile.csv. Times are medians over repeats; low and high the smallest and the largest repeat. `ratio`
is the baseline's value over this one's (above 1, this one is faster or smaller), `ratio_ideal` what operations, bytes or layers
alone would give. An estimate says so in its own column. `model_rows`, `kernel_rows` and `served_rows` have the columns that
`kleval profile` prints of each kind of profile; `shown_rows` those of the kind that a profile is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.files import write_text
from kleval.store import Point, RunStore
from kleval.tables.costs import OPERATORS, UNITS, Measure, Profile, read_profile
from kleval.tables.formats import to_csv
from kleval.tables.ratios import Ratio, kernel_ratios

STEP = ("step_ms_median", "step_ms_p90", "step_ms_p99")
PERCENTILES, ENDS = ("p50", "p90", "p99"), ("", "_low", "_high")
INTERVALS = ("itl_ms_median", "itl_ms_p90", "itl_ms_p99")
RATES = ("output_tokens_per_second", "prompt_tokens_per_second", "tokens_per_arrival", "warmup_ttft_ms")
LOAD = (
    *("requests_per_second", "under_way", "rate", "best_rate", "best_rate_above", "failed_requests"),
    *(f"{name}_{p}{end}" for name in ("ttft_ms", "request_tpot_ms", "e2e_ms") for p in PERCENTILES for end in ENDS),
    *(f"{name}{end}" for name in INTERVALS for end in ENDS[1:]),
    *(
        "slo_share",
        "slo_share_low",
        "slo_share_high",
        "goodput",
        "ttft_drift",
        "tpot_drift",
        "empty_answers",
        "scored",
        "score",
    ),
)
REUSE = (
    *("cold_ttft_ms", "between_ttft_ms", "shared_ttft_ms", "reuse", "between_reuse"),
    *("reused_tokens", "between_reused_tokens"),
)
ENERGY = ("joules_per_output_token", "joules_per_1k_prompt_tokens")
ENGINE = (
    *("engine_pool_bytes", "engine_pool_tokens", "engine_blocks", "engine_block_tokens", "engine_sequence_tokens"),
    *("engine_sequence_bytes", "engine_sequences", "server_rss_bytes", "server_device_bytes", "server_grown_bytes"),
)
CALLER = ("connect_ms", "late_ms", "late_ms_p99", "late_first_ms", "late_send_ms", "client_limited")
STATE = ("latent_bytes", "recurrent_bytes", "conv_bytes")
MEASURED = (
    *("warmup_seconds", "tokens_per_second", "flops_per_second", "mfu", "mbu", "chunks_timed", "sampled_over_full"),
    *(*STEP, "steps", "dropped_steps", "depth_first", "depth_last", "seconds_p90", "calls"),
    *(*STATE, "kv_bytes", "other_bytes", "state_bytes", "allocated_bytes", "weights_bytes", "workspace_bytes"),
    *("peak_bytes", "reserved_bytes", "rss_bytes"),
    *("requests", "prompt_tokens", "output_tokens", "cached_tokens", "ttft_ms", "ttft_ms_max", "tpot_ms"),
    *("stalled_tpot_ms", *INTERVALS, "e2e_ms", *RATES, *LOAD, *REUSE, *ENERGY, *ENGINE, *CALLER),
)
CLOSED_FORM = ("flops", "flops_per_step", "bytes", "bytes_per_step", *STATE, "state_bytes", "weights_bytes")
SETTINGS = (
    *("dtype", "device", "chunk_tokens", "call_tokens", "implementation", "seed"),
    *("backend", "server", "hardware", "prompts", "decode_tokens"),
)
ENVIRONMENT = ("cpu", "threads", "gpu", "driver", "torch", "server_software", "vllm", "client_cpu", "kleval", "commit")
RATIO = ("baseline", "ratio", "ratio_low", "ratio_high", "ratio_ideal")
COLUMNS = (
    *("kind", "protocol", "model", "ctx", "batch", "heads", "head_dim", "estimate"),
    *("value", "low", "high", "unit", "repeats", "spread", "bound", *RATIO),
    *MEASURED,
    *(f"closed_form.{name}" for name in CLOSED_FORM),
    *("failure", *SETTINGS, *ENVIRONMENT, "run", "finished"),
)
# The columns of what `kleval profile` prints, in their order.
MODEL_COLUMNS = (
    *("kind", "protocol", "model", "ctx", "batch", "value", "unit", "estimate", "repeats", "spread", "closed_form"),
    *("utilisation", "tokens_per_second", *STEP, *RATIO, "sampled_over_full"),
    *("state_bytes", "allocated_bytes", "workspace_bytes", "weights_bytes", "failure"),
)
SERVED_MEDIANS = (
    *("prompt_tokens", "ttft_ms", "ttft_ms_max", "tpot_ms", "stalled_tpot_ms"),
    *(*INTERVALS, "e2e_ms", *RATES, *LOAD, *REUSE, *ENERGY, *ENGINE),
)

Rows = Sequence[Mapping[str, Any]]


def write_profile_csv(store: RunStore, path: Path) -> Path:
    """Write the CSV to path, all of it or nothing. UsageError when there is nothing to write or it cannot be written."""
    return write_text(path, whole(read_profile(store)))


def whole(profile: Profile) -> str:
    """The CSV of all of a profile's measurements."""
    return to_csv(records(profile), COLUMNS)


def part(rows: Rows, kind: str, protocols: Sequence[str] = ()) -> str:
    """The CSV of one kind's rows, without the columns that are empty in all of them."""
    mine = [row for row in rows if row["kind"] == kind and (not protocols or row["protocol"] in protocols)]
    return to_csv(mine, [name for name in COLUMNS if any(row.get(name) not in (None, "") for row in mine)])


def records(profile: Profile) -> list[dict[str, Any]]:
    """One dict per measurement with the keys of COLUMNS, None for what does not apply; the machine's own come last."""
    compared = _ratios(profile)
    rows = [_record(profile, measure, compared.get(_key(measure), {})) for measure in profile.measures]
    for point in profile.points:
        if point.kind == "machine":
            row = {name: getattr(point, name) for name in ("kind", "protocol", "model", "finished")}
            for name, value in point.values.items():
                row |= {"value": value, "unit": name.replace("_per_second", "/s")}
            row |= {"repeats": 1, "failure": (point.failure or {}).get("message"), "run": profile.name}
            rows.append(row | _origin(point))
    return rows


def shown_rows(profile: Profile) -> list[dict[str, Any]]:
    """The rows that are printed of a profile: of requests, of operators, else of models."""
    return served_rows(profile) or kernel_rows(profile) or model_rows(profile)


def model_rows(profile: Profile) -> list[dict[str, Any]]:
    """By kind, protocol, ctx and model, MODEL_COLUMNS each; the machine's own come last.

    value: seconds of a prompt, ms per token of all sequences together, bytes of one sequence's state, bytes or operations per
    second. closed_form: the least that the machine's bound allows (prefill, decode), or the state's bytes by formula (memory).
    utilisation: MFU or MBU.
    """
    rows = []
    for record in records(profile):
        if record["kind"] in ("kernel", "served"):
            continue
        memory = record["kind"] == "memory"
        state = record.get("closed_form.state_bytes")
        shown = {
            **record,
            "estimate": record.get("estimate") == "yes",
            "closed_form": state if memory else record.get("bound"),
            "utilisation": record.get("mfu" if record["kind"] == "prefill" else "mbu"),
            "state_bytes": record.get("state_bytes") if memory else state,
        }
        rows.append({name: shown.get(name) for name in MODEL_COLUMNS})
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    return sorted(rows, key=lambda row: (kinds.index(row["kind"]), row["protocol"], row["ctx"] or 0))


def kernel_rows(profile: Profile) -> list[dict[str, Any]]:
    """By protocol (steps first), shape, T and operator. seconds: median over repeats of the median call. over_kda: its time over
    KDA's in the same shape. utilisation: the bound over the measured time."""
    points = [point for point in profile.points if point.kind == "kernel"]
    over = {(r.baseline, r.heads, r.head_dim, r.ctx): r for name in OPERATORS for r in kernel_ratios(points, name)}
    rows = []
    for m in sorted(profile.of("kernel"), key=lambda m: (m.protocol != "recurrent", m.heads, m.head_dim, m.ctx)):
        ratio = over.get((m.model, m.heads, m.head_dim, m.ctx)) if m.protocol == "chunk" else None
        seconds, flops = _finite(m.value), m.closed("flops")
        row: dict[str, Any] = {
            "protocol": m.protocol,
            "operator": m.model,
            "heads": m.heads,
            "head_dim": m.head_dim,
            "ctx": m.ctx,
            "seconds": seconds,
            "seconds_p90": m.of("seconds_p90"),
            "spread": m.spread,
            "repeats": m.repeats,
            "tokens_per_second": m.ctx / seconds if seconds else None,
            "flops_per_second": flops / seconds if seconds and flops else None,
            "bound_seconds": m.bound,
            "utilisation": m.bound / seconds if seconds and m.bound else None,
            "over_kda": ratio.value if ratio else None,
            "over_kda_low": _finite(ratio.low) if ratio else None,
            "over_kda_high": _finite(ratio.high) if ratio else None,
            "flops_over_kda": ratio.ideal if ratio else None,
            "implementation": m.first.settings.get("implementation", "") if m.good else "",
        }
        rows.append(row | {"failure": m.failure if m.failed else None})
    return rows


def served_rows(profile: Profile) -> list[dict[str, Any]]:
    """By length, then load. Times in ms. rounds, failed: how many did and did not succeed. client_limited: rounds in which the
    client was too slow. prompt_tokens: as the server counted, of one request; the other counts are sums over rounds. tpot_estimate:
    how many tokens the first piece of an answer held was not told. state_bytes: of one sequence."""
    return [
        {
            "model": m.model,
            "ctx": m.ctx,
            "load": m.protocol,
            "concurrency": m.batch,
            "rounds": m.repeats,
            "failed": len(m.bad),
            "client_limited": int(m.total("client_limited") or 0),
            **{name: m.of(name) for name in SERVED_MEDIANS},
            "spread": m.spread,
            "score": m.mean("score", "scored"),
            "scored": m.total("scored"),
            "output_tokens": m.total("output_tokens"),
            "cached_tokens": m.total("cached_tokens"),
            "failure": m.failure or None,
            "tpot_estimate": any(point.estimate for point in m.good),
            "state_bytes": m.of("state_bytes"),
            "formula_bytes": m.closed("state_bytes"),
        }
        for m in sorted(profile.of("served"), key=lambda m: m.ctx)
    ]


def _key(one: Measure | Ratio) -> tuple[str, str, int, str, int, int]:
    return one.kind, one.protocol, one.ctx, one.model, one.heads, one.head_dim


def _ratios(profile: Profile) -> dict[tuple[str, str, int, str, int, int], dict[str, Any]]:
    everything = [*profile.ratios, *profile.state_ratios(), *profile.kernel_ratios]
    return {_key(r): dict(zip(RATIO, (r.baseline, r.value, r.low, r.high, r.ideal), strict=True)) for r in everything}


def _record(profile: Profile, m: Measure, ratio: Mapping[str, Any]) -> dict[str, Any]:
    named = ("kind", "protocol", "model", "ctx", "value", "low", "high", "repeats", "spread", "bound")
    row = {name: getattr(m, name) for name in named}
    row |= {name: getattr(m, name) or None for name in ("batch", "heads", "head_dim")}
    row["estimate"] = "yes" if m.estimate else "no" if m.kind == "prefill" and m.good else None
    row |= {"unit": UNITS[m.kind], "failure": m.failure if m.failed else None, "run": profile.name, **ratio}
    row |= {name: m.of(name) for name in MEASURED}
    row |= {"score": m.mean("score", "scored"), "scored": m.total("scored")}
    row |= {f"closed_form.{name}": m.closed(name) for name in CLOSED_FORM}
    if m.good:
        row |= _origin(m.first) | {"finished": m.good[-1].finished}
    return {name: _finite(value) if isinstance(value, float) else value for name, value in row.items()}


def _origin(point: Point) -> dict[str, Any]:
    """How and where it was measured."""
    settings = {name: point.settings.get(name) for name in SETTINGS}
    return settings | {name: point.environment.get(name) for name in ENVIRONMENT}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
