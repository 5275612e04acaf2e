"""Notices: what limits the conclusions that a page allows, from unfinished runs to noise, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from kleval.report.score_curves import Shape, partial
from kleval.report.sections import words
from kleval.tables.costs import Profile
from kleval.tables.scores import Entrant, Run, conflicts
from kleval.text import format_length, plural

Tone = Literal["bad", "warn", "info"]
TONES: dict[str, Tone] = {"running": "warn", "incomplete": "bad", "interrupted": "bad"}
_ORDER = ("bad", "warn", "info")
_STATES = {"running": "was still running when this page was made", "interrupted": "was interrupted"}
_NOISY = "Noisy"  # how the caveat begins that is said here in other words
_WARNINGS = (_NOISY, "Cached prompts")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know before reading a number. tone orders and colours it. short: a word on it at the top of the page, "" for what
    always holds and what stands there in full."""

    tone: Tone
    title: str
    text: str
    short: str = ""


def notices(entrants: Sequence[Entrant], profiles: Sequence[Profile], shape: Shape) -> list[Notice]:
    found = list(_of_scores(entrants, shape)) if entrants else []
    for profile in profiles:
        found += _of_costs(profile)
    return sorted(dict.fromkeys(found), key=lambda notice: _ORDER.index(notice.tone))


def runs_of(entrants: Sequence[Entrant]) -> list[Run]:
    return list({id(e.run): e.run for e in entrants}.values())


def _notice(name: str, tone: Tone, **said: object) -> Notice:
    """The notice of that name in `words.toml`."""
    text = words()["notice"][name]
    short = text.get("short", "").format(**said) if tone == "warn" else ""
    return Notice(tone, text["title"], text["text"].format(**said), short)


def _unfinished(name: str, status: str, parts: Sequence[str], rest: str) -> Iterator[Notice]:
    """parts: what is there; rest: what its command does when it is run again."""
    if status != "complete":
        state = _STATES.get(status, "has ended") + (f": {' and '.join(parts)}" if parts else "")
        yield _notice("unfinished", TONES.get(status, "bad"), run=name, state=state, rest=rest)


def _of_scores(entrants: Sequence[Entrant], shape: Shape) -> Iterator[Notice]:
    for run in runs_of(entrants):
        yield from _of_run(run, [e for e in entrants if e.run is run])
    editions = {c.edition for e in entrants for c in e.cells.values()}
    if "builtin" in editions:
        which = "These scores are" if editions == {"builtin"} else "Scores marked builtin are"
        yield _notice("builtin", "warn", which=which)
    seen: dict[tuple[str, str], list[str]] = {}
    for a, b in combinations(entrants, 2):
        if reasons := conflicts(a, b):
            seen.setdefault((a.run.title, b.run.title), reasons)
    for (one, other), reasons in seen.items():
        yield _notice("conflict", "bad", one=one, other=other, reasons="; ".join(reasons))
    if few := _partial_averages(entrants, shape):
        yield _notice("few", "warn", few=few)


def _of_run(run: Run, entrants: Sequence[Entrant]) -> Iterator[Notice]:
    cells = [cell for e in entrants for cell in e.cells.values()]
    have, planned = sum(c.n_total for c in cells), run.get("counts", "planned", default=0)
    failed = sum(c.n_failed for c in cells)
    losses = f"{plural(failed, 'answer')} of {have:,} failed" if failed else ""
    parts = [f"{have:,} of {planned:,} answers are here" if have < planned else "", losses]
    yield from _unfinished(run.title, run.status, [part for part in parts if part], "asks for what is missing")
    if failed:
        yield _notice("failed_answers", "warn", which=f"{run.title}: {losses}. " if run.complete else "")
    for text in run.get("caveats", default=[]):
        yield _notice("note", "info", text=text)


def _partial_averages(entrants: Sequence[Entrant], shape: Shape) -> str:
    """`ruler at 1k covers 9 of 13 tasks (kimi-linear@nano, mla@nano)`, joined."""
    found: dict[str, list[str]] = {}
    for family in shape.families:
        for ctx in shape.ctxs:
            for e in entrants:
                cell = e.averages.get((family, ctx))
                if cell is not None and (few := partial(family, cell)):
                    found.setdefault(f"{family} at {format_length(ctx)} covers {few}", []).append(e.label)
    everyone = len(entrants)
    return "; ".join(t if len(who) == everyone else f"{t} ({', '.join(who)})" for t, who in found.items())


def _of_costs(profile: Profile) -> Iterator[Notice]:
    planned, have = profile.get("counts", "planned", default=0), len(profile.points)
    parts = [f"{have:,} of {planned:,} measurements are here"] if have < planned else []
    yield from _unfinished(profile.name, profile.status, parts, "measures the rest")
    if lost := len(profile.failures):
        yield _notice("failed_points", "warn", lost=plural(lost, "measurement"))
    if left := len(profile.get("unmeasured", default=[])):
        yield _notice("unmeasured", "info", left=plural(left, "place"))
    if loud := profile.noisy:
        first = loud[0]
        where = f"{first.kind} {first.protocol} of {first.model} at {format_length(first.ctx)}"
        repeated = plural(sum(m.spread is not None for m in profile.measures), "repeated measurement")
        worst, limit = f"{first.spread:.0%} ({where})", f"{profile.noise_limit:.0%}"
        yield _notice("noise", "warn", loud=len(loud), repeated=repeated, limit=limit, worst=worst)
    said = [str(text) for text in profile.get("caveats", default=[])]
    if profile.models and not profile.of("served") and "random weights" not in " ".join(said):
        said.append("All models have random weights: times and bytes do not depend on what a model has learnt.")
    if len(profile.models) > 1 and "MLA baseline" not in " ".join(said):
        said.append(f"{_positions(profile)}The paper does not state how its MLA baseline encodes positions.")
    for text in said:
        if not text.startswith(_NOISY):
            yield _notice("note", "warn" if text.startswith(_WARNINGS) else "info", text=_sentence(text))


def _positions(profile: Profile) -> str:
    known = {model: profile.get("models", model, "config", "mla_use_nope") for model in profile.models}
    named = [f"{model} {'NoPE' if nope else 'RoPE'}" for model, nope in known.items() if nope is not None]
    return f"Positions in the MLA layers: {', '.join(named)}. " if named else ""


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a name, and a full stop."""
    first = text.split(" ", 1)[0]
    return f"{text[:1].upper() if first.isalpha() else text[:1]}{text[1:].removesuffix('.')}."
