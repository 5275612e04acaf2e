"""Scores joined with costs: what the contexts of a run cost, from profiles of the same model at the same lengths.

A cost joins a score when model (with its size) and length are the same and the shapes do not differ (layers, widths, heads, experts
of the configs that both recorded). Weights may differ: times and bytes do not depend on what a model has learnt. Where dtype,
backend, engine version or hardware differ the cost is another's, and `of` says whose. A server's hardware is what `--hardware`
said, to the run and to the profile; else costs join by address and model alone, and `of` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kleval.tables.costs import Measure, Profile
from kleval.tables.scores import Entrant
from kleval.text import format_length
from kleval.types import UsageError

# Of a config: what changes neither times nor bytes.
NOT_SHAPE = {
    "architecture",
    "eos_token_id",
    "rope_theta",
    "rms_norm_eps",
    "embedding_multiplier",
    "routed_scaling_factor",
    "max_position_embeddings",
}
ENGINES = ("torch", "transformers", "vllm")
# kind of measurement -> column without protocol -> the value it shows
QUANTITIES = {
    "prefill": {"prefill_seconds": "seconds"},
    "decode": {"tpot_ms": "step_ms_median"},
    "memory": {"state_bytes": "state_bytes"},
    "served": {"tpot_ms": "tpot_ms", "ttft_ms": "ttft_ms", "state_bytes": "state_bytes"},
}
_ORDER = ("tpot_ms_batch", "tpot_ms", "ms_per_token", "largest_batch", "prefill_seconds", "ttft_ms", "state_bytes")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one length costs one entrant. of: whose cost it is, or why there is none. agrees: whether it is of the run's own setting.

    values: by column (`columns`), medians over repeats; measures: the measurement behind each. dtype, hardware: they were taken with,
    None where that is not known.
    """

    of: str
    agrees: bool = False
    dtype: str | None = None
    hardware: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)


def joined(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> dict[tuple[str, int], Cost]:
    """By the entrant's key and the length, one for each length that the entrant has a cell at, of scores or of gains.

    A profile that agrees in everything goes before one that does not. UsageError naming two profiles that fit equally well.
    """
    return {
        (entrant.key, ctx): _cost(entrant, ctx, profiles)
        for entrant in entrants
        for ctx in sorted({ctx for e in (entrant, entrant.gains) if e is not None for _, ctx in e.cells})
    }


def columns(costs: Mapping[tuple[str, int], Cost]) -> list[str]:
    """The columns that any of the costs has, with protocol and batch in their names: `tpot_ms_batch1`, `prefill_seconds_full`."""
    found = dict.fromkeys(name for cost in costs.values() for name in cost.values)
    return sorted(found, key=lambda name: next(i for i, start in enumerate(_ORDER) if name.startswith(start)))


def _cost(entrant: Entrant, ctx: int, profiles: Sequence[Profile]) -> Cost:
    fits: list[tuple[Profile, dict[str, tuple[float, Measure]], list[str], dict[str, Any]]] = []
    reasons = []
    mine = run_setting(entrant)
    for profile in profiles:
        if entrant.model not in profile.models:
            continue
        found = dict(_quantities(profile, entrant.model, ctx))
        if shapes := _other_shape(entrant, profile):
            reasons.append(f"{profile.name} has {entrant.model} in another shape ({', '.join(shapes)})")
            continue
        if not found:
            reasons.append(f"{profile.name} has no cost of {entrant.model} at {format_length(ctx)}")
            continue
        theirs = profile_setting(profile, entrant.model)
        # Both a server's, and one does not say what it runs on.
        by_address = None not in (mine["address"], theirs["address"]) and None in (mine["hardware"], theirs["hardware"])
        if by_address and mine["address"] != theirs["address"]:
            unknown = f"is of the server at {theirs['address']}, and its hardware is not known (--hardware)"
            reasons.append(f"{profile.name} {unknown}")
            continue
        differences = [
            f"{name} {theirs[name]}, the run {mine[name]}"
            for name in theirs
            if name != "address" and None not in (mine[name], theirs[name]) and mine[name] != theirs[name]
        ]
        if by_address:
            differences.append("the server's hardware is not known (--hardware): joined by address and model")
        fits.append((profile, found, differences, theirs))
    if not fits:
        return Cost("not joined: " + ("; ".join(reasons) or f"no profile of {entrant.model}"))
    best = [fit for fit in fits if not fit[2]] or fits
    if len(best) > 1:
        names = " and ".join(profile.path for profile, *_ in best)
        raise UsageError(f"{names} both hold the cost of {entrant.label} at {format_length(ctx)}: give one of them")
    profile, found, differences, theirs = best[0]
    return Cost(
        "; ".join([f"profile {profile.name}", *_notes(entrant, profile), *differences]),
        agrees=not differences,
        dtype=theirs["dtype"],
        hardware=theirs["hardware"],
        values={name: value for name, (value, _) in found.items()},
        measures={name: measure for name, (_, measure) in found.items()},
    )


def _quantities(profile: Profile, model: str, ctx: int) -> Iterator[tuple[str, tuple[float, Measure]]]:
    """Column and value of everything that the profile measured of a model at a length."""
    for measure in profile.measures:
        if measure.model != model or measure.ctx != ctx or measure.failed:
            continue
        if measure.protocol == "largest-batch":  # the share of one of many sequences: no one's time per token
            yield "ms_per_token_largest_batch", (measure.value, measure)
            yield "largest_batch", (float(measure.batch), measure)
            continue
        protocol = measure.protocol.replace("-", "")
        for name, value_of in QUANTITIES.get(measure.kind, {}).items():
            value = measure.of(value_of)
            if value is not None:
                yield name if name == "state_bytes" else f"{name}_{protocol}", (value, measure)


def _other_shape(entrant: Entrant, profile: Profile) -> list[str]:
    """What the two configs say differently of the shape; nothing where one recorded none."""
    mine, theirs = entrant.described("config"), profile.get("models", entrant.model, "config")
    if not isinstance(mine, Mapping) or not isinstance(theirs, Mapping):
        return []
    names = sorted((mine.keys() & theirs.keys()) - NOT_SHAPE)
    return [f"{name} {_few(theirs[name])}, the run {_few(mine[name])}" for name in names if mine[name] != theirs[name]]


def run_setting(entrant: Entrant) -> dict[str, Any]:
    """Engine, dtype and hardware of a run's answers, None for what is not known."""
    device = str(entrant.described("device") or "")
    gpus = entrant.run.get("hardware", "gpus", default=[])
    hardware = device.partition(" ")[2] or (gpus[0] if gpus else None)
    if entrant.described("server"):
        hardware = entrant.described("hardware")
    elif device == "cpu":
        hardware = entrant.run.get("hardware", "cpu")
    software = [entrant.described("software"), entrant.described("version")]
    return {
        **{name: entrant.described(name) for name in ("dtype", *ENGINES)},
        "backend": entrant.about.get("backend"),
        "server_software": " ".join(str(part) for part in software if part) or None,
        "address": entrant.described("server"),
        "hardware": hardware,
    }


def engine_version(entrant: Entrant) -> str | None:
    """What answered, with its version: a server's own words, else the library that ran the model."""
    setting = run_setting(entrant)
    if setting["server_software"]:
        return str(setting["server_software"])
    named = [f"{name} {setting[name]}" for name in reversed(ENGINES) if setting[name]]
    torch = entrant.run.get("hardware", "torch")
    here = f"torch {torch}" if torch and not entrant.described("server") else None
    return named[0] if named else here


def profile_setting(profile: Profile, model: str) -> dict[str, Any]:
    """As `run_setting`, of a model or operator that the profile measured."""
    point = next(m.first for m in profile.measures if m.model == model and m.good)
    facts = {**profile.get("models", model, default={}), **point.environment, **point.settings}
    here = facts.get("gpu") or facts.get("cpu")
    return {
        **{name: facts.get(name) for name in ("dtype", *ENGINES, "server_software")},
        "backend": str(facts.get("backend") or "native"),
        "address": facts.get("server"),
        "hardware": facts.get("hardware") if "server" in facts else here,
    }


def _notes(entrant: Entrant, profile: Profile) -> list[str]:
    """What differs and may: the weights."""
    weights = str(profile.get("models", entrant.model, "weights", default=""))
    return [f"{weights.partition(';')[0]} weights"] if weights.startswith("random") else []


def _few(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
