"""Trend of many runs: the scores of a model against when its runs began, or against the values of a tag.

A page of many runs of one model shows each model's latest run, and here how it went; runs are never pooled. Points that rest on other
questions than the latest run's, and means over other tasks, are hollow.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from kleval.report.figure import Axis, Cell, Figure, Grid, Row, Series, dates, linear, looks_of, scores
from kleval.report.score_curves import MAX_BANDS, Shape, cell_at, notes, partial, shown
from kleval.report.sections import Card, Section, card, section
from kleval.store import RunStore
from kleval.tables import cells
from kleval.tables.joined import engine_version, run_setting
from kleval.tables.leaderboard import entrant_rows, to_csv
from kleval.tables.scores import EVERYTHING, Entrant, conflicts
from kleval.text import DASH, format_length, moment, plural
from kleval.types import UsageError

MANY = 8  # runs of one model, from which on a page shows how they went
MOST_CURVES = 6
MOST_TAGS = 3
AUTO, OFF, DATE = "auto", "off", "date"
_SPREAD = 0.35  # of a step between values of a tag, to either side: runs of one value stand beside each other

Curve = tuple[str, int]  # model, length


class Dated(Protocol):
    """A run or a profile: what its manifest says of it."""

    def get(self, *path: str, default: Any = None) -> Any: ...


Places = Callable[[Dated], float | None]


def check(stores: Sequence[RunStore], over: str) -> None:
    """UsageError for a tag that none of them has. over: AUTO, OFF, DATE or a tag."""
    if over not in (AUTO, OFF, DATE) and not any(over in _tags_of(store) for store in stores):
        known = ", ".join(dict.fromkeys(tag for store in stores for tag in _tags_of(store)))
        raise UsageError(f"no run has the tag '{over}': choose date{f' or one of {known}' if known else ''}")


def many(counts: Iterable[int], over: str, known: Collection[str]) -> bool:
    """Whether so many runs of one model are shown as the latest and how it went. known: the tags that runs have."""
    return over in (AUTO, DATE, *known) and max(counts, default=0) >= (MANY if over == AUTO else 2)


def latest(runs: Sequence[RunStore], over: str) -> list[RunStore]:
    """The latest run of each model that has answers, where the page shows a trend; else all runs. over: AUTO, OFF, DATE or a tag."""
    of: dict[str, list[RunStore]] = {}
    for store in runs if over != OFF else ():
        for model in store.models():
            of.setdefault(model, []).append(store)
    if not many(map(len, of.values()), over, {tag for store in runs for tag in _tags_of(store)}):
        return list(runs)
    kept = {id(max(stores, key=lambda store: _began(store.manifest.get("started")))) for stores in of.values()}
    return [store for store in runs if id(store) in kept]


def trend_sections(entrants: Sequence[Entrant], over: str) -> list[Section]:
    """How it went, of everything asked and then task by task; scores first, then gains. entrants: of all runs."""
    scored, gains = [e for e in entrants if e.cells], [e.gains for e in entrants if e.gains]
    return [*_sections(scored, over), *_sections(gains, over, "gain-")]


def _sections(entrants: Sequence[Entrant], over: str, prefix: str = "") -> list[Section]:
    """Empty where no model has several runs. prefix: of the words and ids."""
    counts = Counter(e.model for e in entrants)
    several = sorted((e for e in entrants if counts[e.model] > 1), key=lambda e: when(e.run))
    if not several:
        return []
    runs = list({id(e.run): e.run for e in several}.values())
    shape = Shape.of(several)
    models = list(dict.fromkeys(e.model for e in several))
    ctxs = shape.ctxs if len(models) * len(shape.ctxs) <= MOST_CURVES else shape.ctxs[-1:]
    curves = [(model, ctx) for model in models for ctx in ctxs]
    others, apart = _others(several), _apart(several)
    first = DATE if over in (AUTO, OFF) else over
    tags = [tag for tag in telling(runs) if tag != first] if over == AUTO else []
    cards = []
    for i, name in enumerate((first, *tags[:MOST_TAGS])):
        axis, place = axis_of(runs, name)
        figure = _figure(several, EVERYTHING, curves, axis, place, {*others, *apart})
        missing = sum(place(e.run) is None for e in several)
        said = [f"{plural(missing, 'run')} without the tag {name} {'is' if missing == 1 else 'are'} left out."]
        one = card(
            f"{prefix}trend",
            [figure],
            card_id=f"{prefix}trend-{i}",
            over="when the run began" if name == DATE else f"tag {name}",
        )
        cards.append(Card(one.id, one.title, one.text, figures=one.figures, notes=tuple(said if missing else ())))
    rows = Card(
        f"{prefix}trend-runs",
        grid=_grid(several, models, ctxs),
        notes=_said(others, apart),
        csv=to_csv(entrant_rows(several)),
    )
    also, told = ["hollow"] if others or apart else [], {"n": str(len(runs)), "models": ", ".join(models)}
    found = [section(f"{prefix}trend", [*cards, rows], also, **told)]
    if len(shape.tasks) > 1:
        axis, place = axis_of(runs, first)
        panels = [
            Card(
                f"{prefix}trend-task-{i}",
                shape.name(task),
                figures=(_figure(several, task, curves, axis, place, {*others}, True),),
            )
            for i, task in enumerate(shape.tasks)
        ]
        found.append(section(f"{prefix}trend-tasks", panels, layout="panels"))
    return found


def when(run: Dated) -> float:
    """When it began, in days since 1970."""
    return _began(run.get("started"))


def _began(started: object) -> float:
    try:
        found = datetime.fromisoformat(str(started))
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() / 86400


def telling(runs: Sequence[Dated]) -> list[str]:
    """Tags that several runs share a value of and that have several values: what could be a cause."""
    found = []
    for tag in dict.fromkeys(tag for run in runs for tag in tags(run)):
        values = Counter(tags(run)[tag] for run in runs if tag in tags(run))
        if 2 <= len(values) <= sum(values.values()) / 2:
            found.append(tag)
    return found


def tags(run: Dated) -> dict[str, str]:
    found: dict[str, str] = run.get("tags", default={})
    return found


def _tags_of(store: RunStore) -> dict[str, str]:
    found: dict[str, str] = store.manifest.get("tags") or {}
    return found


def spelled(run: Dated) -> str:
    return " ".join(f"{key}={value}" for key, value in tags(run).items())


def axis_of(runs: Sequence[Dated], over: str) -> tuple[Axis, Places]:
    """The x axis and where on it a run stands; None for one without the tag."""
    if over == DATE:
        return dates((when(run) for run in runs), "when the run began (UTC)"), when
    values = sorted({tags(run)[over] for run in runs if over in tags(run)}, key=_natural)
    places: dict[int, float] = {}
    for at, value in enumerate(values):
        mine = [id(run) for run in runs if tags(run).get(over) == value]
        for i, run in enumerate(mine):
            places[run] = at + _SPREAD * (2 * i / (len(mine) - 1) - 1 if len(mine) > 1 else 0)
    ticks = tuple((float(at), value) for at, value in enumerate(values))
    return Axis(over, -0.6, len(values) - 0.4, ticks, log=False), lambda run: places.get(id(run))


def _natural(text: str) -> list[tuple[int, float, str]]:
    """0.9 before 0.33: numbers by parts, as versions are."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", text)]


def _figure(
    entrants: Sequence[Entrant],
    name: str,
    curves: Sequence[Curve],
    axis: Axis,
    place: Places,
    others: Set[str | tuple[str, int]],
    small: bool = False,
) -> Figure:
    looks = looks_of(curves)
    several, lengths, unit = len({model for model, _ in curves}) > 1, len({ctx for _, ctx in curves}) > 1, ""
    series = []
    for model, ctx in curves:
        label = f"{model} at {format_length(ctx)}" if several and lengths else model if several else format_length(ctx)
        mine = [(x, e, cell_at(e, name, ctx)) for e in entrants if e.model == model and (x := place(e.run)) is not None]
        points = sorted(((x, e, cell) for x, e, cell in mine if _scored(cell)), key=lambda point: point[0])
        found = [cell for _, _, cell in points if cell is not None]
        unit = unit or next((cell.unit for cell in found), "")
        factor = 1 if unit else 100
        limited = all(math.isfinite(cell.ci_low) for cell in found)
        one = Series(
            f"{model} {ctx}",
            label,
            looks[model, ctx],
            [x for x, _, _ in points],
            [round(factor * cell.value, 4) for cell in found],
            [_words(e, cell, name) for (_, e, _), cell in zip(points, found, strict=True)],
            [factor * cell.ci_low for cell in found] if limited else (),
            [factor * cell.ci_high for cell in found] if limited else (),
            hollow=[
                e.key in others or (e.key, ctx) in others or (name == EVERYTHING and bool(partial(name, cell)))
                for (_, e, _), cell in zip(points, found, strict=True)
            ],
        )
        series += [one] if points else []
    if small:
        axis = replace(axis, title="")
    values = [v for one in series for v in (*one.y, *one.low, *one.high) if v is not None]
    up = linear(f"gain, {unit}", values) if unit else scores()
    return Figure(axis, up, tuple(series), banded=len(series) <= MAX_BANDS, small=small)


def _scored(cell: cells.Cell | None) -> bool:
    return cell is not None and not math.isnan(cell.value)


def _words(entrant: Entrant, cell: cells.Cell, name: str) -> list[str]:
    tagged = spelled(entrant.run)
    said = notes(entrant, cell, name if name == EVERYTHING else "")
    began = f"{entrant.run.title}, {moment(entrant.run.get('started'))}"
    return [began, f"{entrant.model} at {format_length(cell.ctx)}", *said[1:], *([tagged] if tagged else [])]


def _others(entrants: Iterable[Entrant]) -> dict[str, tuple[str, ...]]:
    """Keys of those that cannot be compared with their model's latest -> why."""
    last = {e.model: e for e in entrants}
    return {e.key: reasons for e in entrants if (reasons := tuple(conflicts(e, last[e.model])))}


def _apart(entrants: Iterable[Entrant]) -> set[tuple[str, int]]:
    """(key, length) where the mean is over other tasks than that of their model's latest."""
    last = {e.model: e for e in entrants}
    return {
        (e.key, ctx)
        for e in entrants
        for ctx in e.overall
        if ctx in last[e.model].overall and e.scored_at(ctx) != last[e.model].scored_at(ctx)
    }


def _said(others: dict[str, tuple[str, ...]], apart: Set[tuple[str, int]]) -> tuple[str, ...]:
    n = len({key for key, _ in apart})
    tasks = (
        (f"{plural(n, 'run')} asked other tasks than the latest, or lost some: the means do not compare.",) if n else ()
    )
    if not others:
        return tasks
    reasons = Counter(reason for of in others.values() for reason in of)
    first = "; ".join(f"{reason} ({plural(n, 'run')})" for reason, n in reasons.most_common(5))
    return (
        f"{plural(len(others), 'run')} asked or sampled otherwise than the latest and cannot be compared: {first}.",
        *tasks,
    )


def _grid(entrants: Sequence[Entrant], models: Sequence[str], ctxs: Sequence[int]) -> Grid:
    """A row per run and model, the latest first; columns that say nothing are left out."""
    rows = []
    for e in reversed(entrants):
        values = [shown(e, cell_at(e, EVERYTHING, ctx), EVERYTHING) for ctx in ctxs]
        words = [moment(e.run.get("started")), e.model if len(models) > 1 else "", spelled(e.run)]
        more = ["" if e.run.complete else e.run.status, engine_version(e) or "", str(run_setting(e)["hardware"] or "")]
        scored = [Cell(f"{one.text}  ({one.subs[0]})" if one.subs else one.text, title=one.title) for one in values]
        rows.append((e.run.store.title, [*map(Cell, words), *scored, *map(Cell, more)]))
    heads = ["Started", "Model", "Tags", *map(format_length, ctxs), "Status", "Engine", "Hardware"]
    kept = [i for i in range(len(heads)) if any(line[i].text not in ("", DASH) for _, line in rows)]
    numbers = frozenset(place for place, i in enumerate(kept, 1) if 3 <= i < 3 + len(ctxs))
    lines = tuple(Row(title, tuple(line[i] for i in kept)) for title, line in rows)
    return Grid(("Run", *(heads[i] for i in kept)), lines, "plain", numbers=numbers)
