"""A profile as one CSV: a row per measurement (model or operator, protocol, length), complete and unrounded.

Times are medians over repeats; low and high the smallest and the largest repeat. `ratio` is the baseline's value over this one's (above
1, this one is faster or smaller), `ratio_ideal` what operations, bytes or layers alone would give. An estimate says so in its own
column. Text that a spreadsheet would take for a formula is kept from being one; numbers stay numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.files import write_text
from kleval.store import RunStore
from kleval.tables.costs import UNITS, Measure, Profile, read_profile
from kleval.tables.formats import to_csv

MEASURED = (
    "warmup_seconds",
    "tokens_per_second",
    "flops_per_second",
    "mfu",
    "mbu",
    "chunks_timed",
    "sampled_over_full",
    "step_ms_median",
    "step_ms_p90",
    "step_ms_p99",
    "steps",
    "dropped_steps",
    "depth_first",
    "depth_last",
    "seconds_p90",
    "calls",
    "latent_bytes",
    "recurrent_bytes",
    "conv_bytes",
    "state_bytes",
    "allocated_bytes",
    "weights_bytes",
    "workspace_bytes",
    "peak_bytes",
    "reserved_bytes",
    "rss_bytes",
    "requests",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
    "ttft_ms",
    "ttft_ms_max",
    "tpot_ms",
    "itl_ms_median",
    "itl_ms_p90",
    "itl_ms_p99",
    "e2e_ms",
    "output_tokens_per_second",
    "prompt_tokens_per_second",
    "tokens_per_arrival",
    "warmup_ttft_ms",
)
CLOSED_FORM = (
    "flops",
    "flops_per_step",
    "bytes",
    "bytes_per_step",
    "latent_bytes",
    "recurrent_bytes",
    "conv_bytes",
    "state_bytes",
    "weights_bytes",
)
SETTINGS = (
    "dtype",
    "device",
    "chunk_tokens",
    "call_tokens",
    "implementation",
    "seed",
    "backend",
    "server",
    "hardware",
    "prompts",
    "decode_tokens",
)
ENVIRONMENT = ("cpu", "threads", "gpu", "driver", "torch", "server_software", "vllm", "client_cpu", "kleval", "commit")
COLUMNS = (
    "kind",
    "protocol",
    "model",
    "ctx",
    "batch",
    "heads",
    "head_dim",
    "estimate",
    "value",
    "low",
    "high",
    "unit",
    "repeats",
    "spread",
    "bound",
    "baseline",
    "ratio",
    "ratio_low",
    "ratio_high",
    "ratio_ideal",
    *MEASURED,
    *(f"closed_form.{name}" for name in CLOSED_FORM),
    "failure",
    *SETTINGS,
    *ENVIRONMENT,
    "run",
    "finished",
)


def write_profile_csv(store: RunStore, path: Path) -> Path:
    """Write the CSV to path, all of it or nothing. UsageError when there is nothing to write or it cannot be written."""
    return write_text(path, to_csv(records(read_profile(store)), COLUMNS))


def part(rows: Sequence[Mapping[str, Any]], kind: str, protocols: Sequence[str] = ()) -> str:
    """The CSV of one kind's rows, without the columns that are empty in all of them."""
    mine = [row for row in rows if row["kind"] == kind and (not protocols or row["protocol"] in protocols)]
    return to_csv(mine, [name for name in COLUMNS if any(row.get(name) not in (None, "") for row in mine)])


def records(profile: Profile) -> list[dict[str, Any]]:
    """One dict per measurement with the keys of COLUMNS, None for what does not apply; the machine's own come last."""
    compared = _ratios(profile)
    rows = [_record(profile, measure, compared.get(_key(measure), {})) for measure in profile.measures]
    for point in profile.points:
        if point.kind == "machine":
            row: dict[str, Any] = {
                "kind": "machine",
                "protocol": point.protocol,
                "run": profile.name,
                "finished": point.finished,
            }
            for name, value in point.values.items():
                row |= {"value": value, "unit": name.replace("_per_second", "/s")}
            row |= {name: point.settings.get(name) for name in SETTINGS}
            row |= {name: point.environment.get(name) for name in ENVIRONMENT}
            rows.append(row | ({"failure": point.failure.get("message")} if point.failure else {}))
    return rows


def _key(m: Measure) -> tuple[str, str, int, str, int, int]:
    return m.kind, m.protocol, m.ctx, m.model, m.heads, m.head_dim


def _ratios(profile: Profile) -> dict[tuple[str, str, int, str, int, int], dict[str, Any]]:
    found: dict[tuple[str, str, int, str, int, int], dict[str, Any]] = {}
    for r in profile.ratios:
        found[r.kind, r.protocol, r.ctx, r.model, 0, 0] = {
            "baseline": r.baseline,
            "ratio": r.value,
            "ratio_low": r.low,
            "ratio_high": r.high,
            "ratio_ideal": r.ideal,
        }
    ceilings = {c.model: c.value for c in profile.ceilings()}
    for s in profile.state_ratios():
        ideal = {"baseline": profile.baseline, "ratio": s.value, "ratio_ideal": ceilings.get(s.model)}
        found["memory", "state", s.ctx, s.model, 0, 0] = ideal
    for k in profile.kernel_ratios:
        found["kernel", "chunk", k.ctx, k.fast, k.heads, k.head_dim] = {
            "baseline": k.slow,
            "ratio": k.value,
            "ratio_low": k.low,
            "ratio_high": k.high,
            "ratio_ideal": k.ideal,
        }
    return found


def _record(profile: Profile, m: Measure, ratio: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": m.kind,
        "protocol": m.protocol,
        "model": m.model,
        "ctx": m.ctx,
        "batch": m.batch or None,
        "heads": m.heads or None,
        "head_dim": m.head_dim or None,
        "estimate": "yes" if m.estimate else "no" if m.kind == "prefill" and m.good else None,
        "value": m.value,
        "low": m.low,
        "high": m.high,
        "unit": UNITS[m.kind],
        "repeats": m.repeats,
        "spread": m.spread,
        "bound": m.bound,
        "failure": m.failure or None,
        "run": profile.name,
    }
    row |= ratio
    row |= {name: m.of(name) for name in MEASURED}
    row |= {f"closed_form.{name}": m.closed(name) for name in CLOSED_FORM}
    if m.good:
        row |= {name: m.first.settings.get(name) for name in SETTINGS}
        row |= {name: m.first.environment.get(name) for name in ENVIRONMENT}
        row["finished"] = m.good[-1].finished
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
