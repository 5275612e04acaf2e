"""Profiles in the page's header: what was measured, on what, and what limits what may be concluded from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kleval import text as words
from kleval.report.header_facts import Fact, Notice, Sheet, Tone
from kleval.tables.costs import Profile, software_of
from kleval.text import plural

_MANIFEST_NOISE = "Noisy"
_WARNINGS = (_MANIFEST_NOISE, "Cached prompts")
_TONES = {"complete": "ok", "running": "warn"}


def profile_sheets(profile: Profile) -> list[Sheet]:
    """The profile's, then one per machine and software that its points were measured with."""
    started = str(profile.get("started", default=""))[:10]
    tone = _TONES.get(profile.status, "bad")
    large, facts = tuple(_tiles(profile)), tuple(_facts(profile))
    found = [Sheet(f"Profile {profile.name}", started, profile.status, tone, large, facts)]
    several = len(profile.environments) > 1
    for i, environment in enumerate(profile.environments, 1):
        name = f"Machine and software{f' {i}' if several else ''} of {profile.name}"
        found.append(Sheet(name, facts=tuple(_environment_facts(environment))))
    return found


def _tiles(profile: Profile) -> list[Fact]:
    """The few facts in large type."""
    if profile.of("served"):
        return _served_tiles(profile)
    environment = profile.environments[0] if profile.environments else {}
    counted = [p for p in profile.points if p.kind != "machine"]
    failed = len(profile.failures)
    settings = next((p.settings for p in counted), {})
    ctxs = sorted({m.ctx for m in profile.measures if m.kind != "kernel"} or set(profile.ctxs("kernel")) - {1})
    found = [
        Fact("Lengths, tokens", ", ".join(words.format_length(ctx) for ctx in ctxs)),
        Fact("Machine", str(environment.get("gpu") or environment.get("cpu") or words.DASH)),
        Fact("Device and dtype", f"{settings.get('device', words.DASH)}, {settings.get('dtype', words.DASH)}"),
        Fact("Copy bandwidth", words.rate(profile.machine("copy", "bytes_per_second"), "B/s")),
        Fact("Matrix rate", words.rate(profile.machine("matmul", "flops_per_second"), "FLOP/s")),
        Fact("Measurements", f"{len(counted):,}" + (f", {failed:,} failed" if failed else ", none failed")),
    ]
    if profile.models:
        weights = {str(profile.get("models", model, "weights", default="random")) for model in profile.models}
        mark = "times only, no answers" if weights == {"random"} else ""
        found.insert(3, Fact("Weights", ", ".join(sorted(weights)), mark=mark))
        found.insert(4, Fact("Prefill chunk", f"{settings.get('chunk_tokens', words.DASH)} tokens"))
    return found


def _served_tiles(profile: Profile) -> list[Fact]:
    """The few facts in large type."""
    counted = [p for p in profile.points if p.kind == "served"]
    failed = len(profile.failures)
    settings = next((p.settings for p in counted), {})
    environment = profile.environments[0] if profile.environments else {}
    sent = [cached for p in counted if (cached := p.values.get("cached_tokens")) is not None]
    where = settings.get("hardware") or settings.get("server") or environment.get("gpu") or environment.get("cpu")
    return [
        Fact("Prompts, tokens", ", ".join(words.format_length(ctx) for ctx in profile.ctxs("served"))),
        Fact("Served by", software_of(environment)),
        Fact("Where", str(where or words.DASH)),
        Fact("Requests together", ", ".join(p.removeprefix("concurrency-") for p in profile.protocols("served"))),
        Fact("Tokens asked of each", str(settings.get("decode_tokens", words.DASH))),
        Fact("Prompts sent as", str(settings.get("prompts", words.DASH))),
        Fact("From prefix cache", f"{sum(sent):,.0f} tokens" if sent else "not told"),
        Fact("Rounds", f"{len(counted):,}" + (f", {failed:,} failed" if failed else ", none failed")),
    ]


def profile_notices(profile: Profile) -> list[Notice]:
    """An unfinished run, failures, noise, then what is compared."""
    found = [*_state(profile), *_noise(profile)]
    said = [str(text) for text in profile.get("caveats", default=[])]
    for text in said:
        tone: Tone = "warn" if text.startswith(_WARNINGS) else "info"
        if not text.startswith(_MANIFEST_NOISE):
            found.append(Notice(tone, "Note", _sentence(text)))
    everything = " ".join(said)
    if profile.models and not profile.of("served") and "random weights" not in everything:
        text = "All models have random weights: times and bytes do not depend on what a model has learnt."
        found.append(Notice("info", "Note", text))
    if len(profile.models) > 1 and "MLA baseline" not in everything:
        found.append(Notice("info", "Note", _positions(profile)))
    return found


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a name, and a full stop."""
    first = text.split(" ", 1)[0]
    return f"{text[:1].upper() if first.isalpha() else text[:1]}{text[1:].removesuffix('.')}."


def _state(profile: Profile) -> list[Notice]:
    found = []
    planned, have = profile.get("counts", "planned", default=0), len(profile.points)
    if profile.status != "complete":
        what = {"running": "was still running when this page was made", "interrupted": "was interrupted"}
        parts = f": {have:,} of {planned:,} measurements are here" if have < planned else ""
        text = (
            f"{profile.name} {what.get(profile.status, 'has ended')}{parts}. Its command, run again, measures the rest."
        )
        found.append(Notice("warn" if profile.status == "running" else "bad", "This run is not complete", text))
    if profile.failures:
        text = (
            f"{plural(len(profile.failures), 'measurement')} failed; they are gaps in the curves and listed at the end."
        )
        found.append(Notice("warn", "Some measurements failed", text))
    left = profile.get("unmeasured", default=[])
    if left:
        found.append(
            Notice("info", "Not everything asked for was measured", f"{plural(len(left), 'place')}, listed at the end.")
        )
    return found


def _noise(profile: Profile) -> list[Notice]:
    repeated = sum(m.spread is not None for m in profile.measures)
    loud = profile.noisy
    if not loud:
        return []
    worst = loud[0]
    text = (
        f"{len(loud)} of {plural(repeated, 'repeated measurement')} spread by more than {profile.noise_limit:.0%} of their median, "
        f"the worst by {worst.spread:.0%} ({worst.kind} {worst.protocol} of {worst.model} at {words.format_length(worst.ctx)}). "
        "Differences of that order mean nothing here."
    )
    return [Notice("warn", "The machine was noisy", text)]


def _positions(profile: Profile) -> str:
    encodings = {}
    for model in profile.models:
        nope = profile.get("models", model, "config", "mla_use_nope")
        if nope is not None:
            encodings[model] = "NoPE" if nope else "RoPE"
    said = f"Positions in the MLA layers: {', '.join(f'{m} {e}' for m, e in encodings.items())}. " if encodings else ""
    return f"{said}The paper does not state how its MLA baseline encodes positions."


def model_facts(profile: Profile, model: str) -> list[Fact]:
    """Parameters, layers, positions, weights."""
    about = profile.get("models", model, default={})
    config = about.get("config") if isinstance(about.get("config"), Mapping) else {}
    mixers = [str(mixer) for mixer in config.get("layer_mixers") or []]
    facts = [Fact("Weights", str(about.get("weights") or "random"))]
    facts += [
        Fact(_name(name), str(about[name])) for name in ("server", "hardware", "software", "dtype") if about.get(name)
    ]
    if about.get("parameters"):
        facts.append(Fact("Parameters", words.count(about["parameters"])))
    if about.get("active_parameters"):
        facts.append(Fact("Active", words.count(about["active_parameters"])))
    if mixers:
        counts = ", ".join(f"{mixers.count(kind)} {kind.upper()}" for kind in dict.fromkeys(mixers))
        facts.append(Fact("Layers", f"{len(mixers)}: {counts}"))
    if config.get("mla_use_nope") is not None:
        facts.append(Fact("Positions in MLA", "NoPE" if config["mla_use_nope"] else "RoPE"))
    return facts


def _facts(profile: Profile) -> list[Fact]:
    """Time, settings and command of the run."""
    facts = [
        Fact("Started", words.moment(profile.get("started"))),
        Fact("Finished", words.moment(profile.get("finished"))),
        Fact("Status", profile.status),
        Fact(
            "Counts", ", ".join(f"{n:,} {name}" for name, n in profile.get("counts", default={}).items()) or words.DASH
        ),
    ]
    facts += [Fact(_name(name), _value(value)) for name, value in profile.get("settings", default={}).items()]
    if profile.get("plan", "memory_budget"):
        facts.append(Fact("Budget of a largest batch", words.size(profile.get("plan", "memory_budget"), precise=True)))
    command = profile.get("spec", "command")
    return [*facts, Fact("Command", str(command))] if command else facts


def _environment_facts(environment: Mapping[str, Any]) -> list[Fact]:
    """The fingerprint, as the points carry it."""
    facts = []
    for name, value in environment.items():
        if isinstance(value, Mapping):
            facts += [Fact(f"{_name(name)}: {key}", str(v)) for key, v in value.items()]
        elif value is not None:
            facts.append(Fact(_name(name), words.size(value, precise=True) if name.endswith("_bytes") else str(value)))
    return facts


def _name(name: str) -> str:
    text = name.replace("_", " ").replace(".", " ")
    return text.upper() if text in ("cpu", "gpu", "cuda") else text[:1].upper() + text[1:]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return words.DASH if value is None else str(value)
