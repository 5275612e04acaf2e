"""Header of the page: what was compared and how, one line per model, and what limits what may be concluded from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kleval.report import profile_header, run_header
from kleval.report.figure import Grid, Look, looks_of
from kleval.report.header_facts import Fact, Notice, Sheet
from kleval.report.score_curves import Looks, Shape
from kleval.tables.costs import Profile
from kleval.tables.scores import Entrant

_TONES = {"bad": 0, "warn": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Header:
    """lead_in, names: the title. lines: per model its look, its name and its facts, those of scores and of costs apart.

    sheets: of directories and machines. models: all facts of the runs' models. data: of the tasks, None without runs.
    """

    lead_in: str
    names: tuple[str, ...]
    sheets: tuple[Sheet, ...]
    lines: tuple[tuple[Look, str, tuple[tuple[str, list[Fact]], ...]], ...]
    models: tuple[tuple[Look, str, list[Fact]], ...]
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
    answering = [(of_scores[e.key], e.label, run_header.entrant_facts(e)) for e in entrants]
    lines: dict[str, tuple[Look, str, list[tuple[str, list[Fact]]]]] = {}
    for e, (look, label, facts) in zip(entrants, answering, strict=True):
        lines[e.key] = (look, label, [("scores" if profiles else "", [fact for fact in facts if fact.mark])])
    for profile in profiles:
        for model in profile.models:
            key = next((e.key for e in entrants if e.model == model), f"model {model}")
            line = lines.setdefault(key, (of_models[model], model, []))
            line[2].append(("costs" if entrants else "", profile_header.model_facts(profile, model)))
    notices = run_header.run_notices(entrants, shape) if entrants else []
    sheets = run_header.run_sheets(entrants, shape)
    for profile in profiles:
        notices += profile_header.profile_notices(profile)
        sheets += profile_header.profile_sheets(profile)
    return Header(
        lead_in=_lead_in(entrants, profiles),
        names=tuple(_names(entrants, profiles)),
        sheets=tuple(sheets),
        lines=tuple((look, label, tuple(groups)) for look, label, groups in lines.values()),
        models=tuple(answering),
        notices=tuple(sorted(dict.fromkeys(notices), key=lambda notice: _TONES[notice.tone])),
        data=run_header.data_grid(entrants, shape) if entrants else None,
    )


def _lead_in(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> str:
    if entrants:
        return "Score and cost: " if profiles else ""
    return "What context costs: " if any(profile.models for profile in profiles) else "Kernels: "


def _names(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> dict[str, None]:
    """Models, or operators where a profile has none."""
    found = dict.fromkeys(e.model for e in entrants)
    for profile in profiles:
        found |= dict.fromkeys(profile.models or [m.model for m in profile.of("kernel")])
    return found
