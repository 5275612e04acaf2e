"""Header of the page: what was compared and how, one line per model, and all facts of runs, profiles and machines under it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kleval.report.figure import Cell, Grid, Look, looks_of, plain
from kleval.report.notices import TONES, Notice, notices, runs_of
from kleval.report.score_curves import Looks, Shape
from kleval.tables.costs import Profile, software_of
from kleval.tables.scores import Entrant, Run
from kleval.text import DASH, count, digest, format_length, load, moment, rate, size

AT_ONCE = {
    *("backend", "dtype", "device", "seed", "temperature", "cpu", "gpu", "gpus"),
    *("version", "commit", "weights_digest", "weights_sha256"),
}
MAX_NAMES = 3  # of protocols in large type


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of a fact sheet. full: the whole value where `value` is shortened. mark: a warning, or set on what is shown at once."""

    name: str
    value: str
    full: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Facts of one directory, model or machine. tiles: the few in large type. status, tone: how a directory ended. look: a model's."""

    title: str
    started: str = ""
    status: str = ""
    tone: str = ""
    tiles: tuple[Fact, ...] = ()
    facts: tuple[Fact, ...] = ()
    look: Look | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """lead_in, names: the title. lines: per model its look, its name and its facts, those of scores and of costs apart.

    sheets: of the runs' models, of directories and machines. data: of the tasks, None without runs.
    """

    lead_in: str
    names: tuple[str, ...]
    sheets: tuple[Sheet, ...]
    lines: tuple[tuple[Look, str, tuple[tuple[str, list[Fact]], ...]], ...]
    notices: tuple[Notice, ...]
    data: Grid | None


def looks(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> tuple[Looks, Looks]:
    """By an entrant's key, and by the name of a profile's model: the same model looks the same in scores and in costs."""
    asked = {e.model for e in entrants}
    others = dict.fromkeys(model for profile in profiles for model in profile.models if model not in asked)
    found = looks_of([("", e.key) for e in entrants] + [(model, "") for model in others])
    of_models = {model: look for (model, key), look in found.items() if not key}
    of_models |= {e.model: found["", e.key] for e in reversed(entrants)}
    return {e.key: found["", e.key] for e in entrants}, of_models


def header(entrants: Sequence[Entrant], profiles: Sequence[Profile], shape: Shape) -> Header:
    of_scores, of_models = looks(entrants, profiles)
    models = [Sheet(e.label, facts=tuple(_entrant_facts(e)), look=of_scores[e.key]) for e in entrants]
    lines: dict[str, tuple[Look, str, list[tuple[str, list[Fact]]]]] = {}
    for e, of in zip(entrants, models, strict=True):
        shown = [fact for fact in of.facts if fact.mark]
        lines[e.key] = (of_scores[e.key], e.label, [("scores" if profiles else "", shown)])
    names = dict.fromkeys(e.model for e in entrants)
    sheets = [_run_sheet(run, [e for e in entrants if e.run is run]) for run in runs_of(entrants)]
    if sheets:
        sheets[-1] = replace(sheets[-1], tiles=_score_tiles(entrants, shape))
    for profile in profiles:
        for model in profile.models:
            key = next((e.key for e in entrants if e.model == model), f"model {model}")
            line = lines.setdefault(key, (of_models[model], model, []))
            line[2].append(("costs" if entrants else "", _model_facts(profile, model)))
        alone = [m.model for m in profile.of("kernel")] + [law.model for law in profile.laws]
        names |= dict.fromkeys(profile.models or alone)
        tiles = _law_tiles if profile.laws else _served_tiles if profile.of("served") else _cost_tiles
        large = tiles(profile)
        sheets.append(replace(_sheet(f"Profile {profile.name}", profile), tiles=large))
        for environment in profile.environments:
            if environment != profile.get("hardware"):
                sheets.append(Sheet(f"Machine and software of {profile.name}", facts=tuple(_facts(environment))))
    costs = (
        "What context costs: "
        if any(profile.models for profile in profiles)
        else "Trainings"
        if not profiles
        else "Verified: "
        if all(profile.laws for profile in profiles)
        else "Kernels: "
    )
    return Header(
        lead_in=costs if not entrants else "Score and cost: " if profiles else "",
        names=tuple(names),
        sheets=(*models, *sheets),
        lines=tuple((look, label, tuple(groups)) for look, label, groups in lines.values()),
        notices=tuple(notices(entrants, profiles, shape)),
        data=_data(entrants, shape) if entrants else None,
    )


def _facts(record: Mapping[str, Any], before: str = "") -> list[Fact]:
    """Every value that a record holds, records within it with their name before."""
    found = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            found += _facts(value, f"{before}{name} ")
        elif value not in (None, "", []):
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            short = size(value, precise=True) if name.endswith("_bytes") and isinstance(value, int) else digest(text)
            if name == "commit":
                short = digest(text.removesuffix("-dirty")) + ("-dirty" if text.endswith("-dirty") else "")
            mark = "main" if name in AT_ONCE else ""
            found.append(Fact(_spelled(before + name), short, text if short != text else "", mark))
    return found


def _spelled(name: str) -> str:
    text = name.replace("_", " ").replace(".", " ")
    return text.upper() if text in ("cpu", "gpu", "gpus", "cuda") else text[:1].upper() + text[1:]


def _sheet(title: str, of: Run | Profile) -> Sheet:
    """How a directory came about: times, settings, machine, command."""
    counts = ", ".join(f"{n:,} {name}" for name, n in of.get("counts", default={}).items() if n)
    facts = [Fact(key, value, mark="main") for key, value in of.get("tags", default={}).items()]
    facts += [Fact("Directory", str(of.get("name")))] if of.get("title") else []
    facts += [
        Fact("Started", moment(of.get("started"))),
        Fact("Finished", moment(of.get("finished"))),
        Fact("Status", of.status),
        Fact("Counts", counts or DASH),
    ]
    # Names with a point are of single tasks and models, which have tables of their own.
    settings = {name: value for name, value in of.get("settings", default={}).items() if "." not in name}
    facts += _facts({name: value for name, value in settings.items() if name not in ("tasks", "temperature")})
    if budget := of.get("plan", "memory_budget"):
        facts.append(Fact("Budget of a largest batch", size(budget, precise=True)))
    hardware = {n: v for n, v in of.get("hardware", default={}).items() if n not in ("kleval", "commit", *settings)}
    facts += _facts({"kleval": of.get("kleval", default={})}) + _facts(hardware)
    if (sessions := len(of.get("sessions", default=[]))) > 1:
        shards = len(of.get("merged", default=[]))
        facts.append(
            Fact("Sessions", f"{sessions} ({f'{shards} shards, merged' if shards else 'the run was continued'})")
        )
    for amendment in of.get("amendments", default=[]):
        facts.append(Fact("Amended", f"{moment(amendment.get('at'))}: {', '.join(amendment.get('changes', []))}"))
    if command := of.get("spec", "command"):
        facts.append(Fact("Command", str(command)))
    tone = "ok" if of.status == "complete" else TONES.get(of.status, "bad")
    return Sheet(title, str(of.get("started", default=""))[:10], of.status, tone, facts=tuple(facts))


def _run_sheet(run: Run, entrants: Sequence[Entrant]) -> Sheet:
    """With the temperatures that its requests were sampled at, where the command named none."""
    sheet = _sheet(f"Run {run.title}", run)
    temperatures = _joined(t for e in entrants for t in (e.temperatures or (e.temperature,)))
    return replace(sheet, facts=(*sheet.facts, Fact("Temperature", temperatures, mark="main")))


def _score_tiles(entrants: Sequence[Entrant], shape: Shape) -> tuple[Fact, ...]:
    runs, cells = runs_of(entrants), [cell for e in entrants for cell in e.cells.values()]
    limits, repeats, suites = (_joined(run.setting(name) for run in runs) for name in ("limit", "repeats", "suite"))
    editions, protocols = (list(dict.fromkeys(getattr(c, name) for c in cells)) for name in ("edition", "protocol"))
    asked, failed = sum(c.n_total for c in cells), sum(c.n_failed for c in cells)
    shown = protocols if len(protocols) <= MAX_NAMES else [*protocols[:2], f"{len(protocols) - 2} more"]
    return (
        Fact("Lengths", ", ".join(shape.columns)),
        Fact("Tasks", f"{len(shape.tasks)}" + (f" · suite {suites}" if suites != DASH else "")),
        Fact("Samples per task and length", limits + ("" if repeats in ("1", DASH) else f" × {repeats} repeats")),
        Fact("Answers", f"{asked:,}" + (f", {failed:,} failed" if failed else ", none failed")),
        Fact("Edition", ", ".join(editions), mark="" if editions == ["official"] else "not the official data"),
        Fact("Protocol", ", ".join(shown), full=", ".join(protocols)),
    )


def _cost_tiles(profile: Profile) -> tuple[Fact, ...]:
    environment = profile.environments[0] if profile.environments else {}
    counted = [p for p in profile.points if p.kind != "machine"]
    settings: Mapping[str, Any] = next((p.settings for p in counted), {})
    ctxs = sorted({m.ctx for m in profile.measures if m.kind != "kernel"} or set(profile.ctxs("kernel")) - {1})
    weights = _joined(_weights(profile.get("models", model, default={})) for model in profile.models)
    of_models = (
        Fact("Weights", weights, mark="times only, no answers" if weights == "random" else ""),
        Fact("Prefill chunk", f"{settings.get('chunk_tokens', DASH)} tokens"),
    )
    return (
        Fact("Lengths, tokens", ", ".join(map(format_length, ctxs))),
        Fact("Machine", str(environment.get("gpu") or environment.get("cpu") or DASH)),
        Fact("Device and dtype", f"{settings.get('device', DASH)}, {settings.get('dtype', DASH)}"),
        *(of_models if profile.models else ()),
        Fact("Copy bandwidth", rate(profile.machine("copy", "bytes_per_second"), "B/s")),
        Fact("Matrix rate", rate(profile.machine("matmul", "flops_per_second"), "FLOP/s")),
        Fact("Measurements", f"{len(counted):,}, {len(profile.failures) or 'none'} failed"),
    )


def _law_tiles(profile: Profile) -> tuple[Fact, ...]:
    name = next((law.model for law in profile.laws), "")
    described = profile.get("models", name, "describe", default={})
    where = described.get("server") or described.get("device")
    return (
        Fact("Verdict", str(profile.get("verify", name, "verdict", default=DASH))),
        Fact("Longest prompt, tokens", ", ".join(format_length(law.ctx) for law in profile.laws[:1])),
        Fact("Where", str(where or DASH)),
        Fact("Dtype", str(profile.get("dtype", default=DASH))),
        Fact("Read", str(profile.get("plan", "reads", default=DASH))),
        Fact("Reference", str(profile.get("settings", "reference", default=DASH))),
        Fact("False alarms allowed", f"{profile.get('settings', 'alpha', default=0):g} over all checks"),
        Fact("Laws", f"{len(profile.laws)}"),
    )


def _served_tiles(profile: Profile) -> tuple[Fact, ...]:
    counted = [p for p in profile.points if p.kind == "served"]
    settings: Mapping[str, Any] = next((p.settings for p in counted), {})
    environment = profile.environments[0] if profile.environments else {}
    sent = [cached for p in counted if (cached := p.values.get("cached_tokens")) is not None]
    where = settings.get("hardware") or settings.get("server") or environment.get("gpu") or environment.get("cpu")
    return (
        Fact("Prompts, tokens", ", ".join(map(format_length, profile.ctxs("served")))),
        Fact("Served by", software_of(environment)),
        Fact("Where", str(where or DASH)),
        Fact("Requests", ", ".join(map(load, profile.protocols("served")))),
        Fact("Prompts and answers of", ", ".join(settings["tasks"]))
        if "tasks" in settings
        else Fact("Tokens asked of each", str(settings.get("decode_tokens", DASH))),
        Fact("Prompts sent as", str(settings.get("prompts", DASH))),
        Fact("From prefix cache", f"{sum(sent):,.0f} tokens" if sent else "not told"),
        Fact("Rounds", f"{len(counted):,}, {len(profile.failures) or 'none'} failed"),
    )


def _entrant_facts(entrant: Entrant) -> list[Fact]:
    """What identifies a run's model, first the names and then whatever else its backend described."""
    about = entrant.about
    verdict = entrant.run.get("verify", entrant.model, "verdict")
    names = {"verified": verdict, "backend": about.get("backend"), "tokenizer": about.get("tokenizer")}
    described = {n: v for n, v in (about.get("describe") or {}).items() if n not in ("name", "model", "backend")}
    return _facts({**names, **described})


def _weights(about: Mapping[str, Any]) -> str:
    return str(about.get("weights") or "random").partition(";")[0]


def _model_facts(profile: Profile, model: str) -> list[Fact]:
    """Weights, size, layers, positions of a profile's model."""
    about = profile.get("models", model, default={})
    config = about.get("config") if isinstance(about.get("config"), Mapping) else {}
    mixers = [str(mixer) for mixer in config.get("layer_mixers") or []]
    facts = [Fact("Weights", _weights(about), str(about.get("weights") or ""))]
    facts += _facts({name: about.get(name) for name in ("server", "hardware", "software", "dtype")})
    for name, key in (("Parameters", "parameters"), ("Active", "active_parameters")):
        facts += [Fact(name, count(about[key]))] if about.get(key) else []
    if mixers:
        counts = ", ".join(f"{mixers.count(kind)} {kind.upper()}" for kind in dict.fromkeys(mixers))
        facts.append(Fact("Layers", f"{len(mixers)}: {counts}"))
    if config.get("mla_use_nope") is not None:
        facts.append(Fact("Positions in MLA", "NoPE" if config["mla_use_nope"] else "RoPE"))
    return facts


def _data(entrants: Sequence[Entrant], shape: Shape) -> Grid:
    """The data of each task as its runs recorded them: once where all agree, else with the runs in a column of their own."""
    found: dict[tuple[Any, ...], list[str]] = {}
    names = ("version", "protocol", "edition", "data_revision")
    for task in shape.tasks:
        for run in runs_of(entrants):
            if about := run.get("tasks", task):
                whole = about.get("data_digest")
                texts = (*(str(about.get(name) or DASH) for name in names), Cell(digest(whole), title=str(whole or "")))
                found.setdefault((task, *texts), []).append(run.title)
    heads = ("Task", "Version", "Protocol", "Edition", "Data revision", "Data digest")
    if len({task for task, *_ in found}) == len(found):
        return plain(heads, found)
    return plain((*heads, "Run"), [(*line, ", ".join(runs)) for line, runs in found.items()])


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or DASH
