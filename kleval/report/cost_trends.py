"""Trend of costs: what each of many profiles of a model measured, against when they began or the values of a tag.

The page's other costs are of each model's latest profile; profiles are never pooled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kleval.report import trends
from kleval.report.figure import Cell, Figure, Grid, Row, Series, logarithmic, looks_of
from kleval.report.sections import Card, Section, section
from kleval.tables.costs import Measure, Profile
from kleval.text import DASH, format_length, load, moment, plural, seconds, seconds_tick

_TITLES = {"prefill": "Prefill latency", "decode": "Time per token", "served": "Time per token, served"}
_MOST = 6  # cards
What = tuple[str, str, int]  # kind, protocol, length


def latest(profiles: Sequence[Profile], over: str) -> list[Profile]:
    """The latest profile of each model where the page shows a trend; else all. over: as of `trends.latest`."""
    counts = Counter(model for profile in profiles for model in profile.models)
    if not trends.many(counts.values(), over, {tag for profile in profiles for tag in trends.tags(profile)}):
        return list(profiles)
    kept = {id(max((p for p in profiles if model in p.models), key=trends.when)) for model in counts}
    return [profile for profile in profiles if id(profile) in kept]


def cost_trend_section(profiles: Sequence[Profile], over: str) -> Section:
    """A card for each kind of time that several profiles have, at the longest length that most have. profiles: all of them."""
    profiles = sorted(profiles, key=trends.when)
    name = trends.DATE if over in (trends.AUTO, trends.OFF) else over
    axis, place = trends.axis_of(profiles, name)
    models = list(dict.fromkeys(model for profile in profiles for model in profile.models))
    looks = looks_of(models)
    shown = _shown(profiles)
    cards: list[Card] = []
    for kind, protocol, ctx in shown:
        series = []
        for model in models:
            points = [
                (x, profile, m)
                for profile in profiles
                if (x := place(profile)) is not None and (m := _measure(profile, (kind, protocol, ctx), model))
            ]
            points.sort(key=lambda point: point[0])
            factor = _factor(kind)
            one = Series(
                model,
                model,
                looks[model],
                [x for x, _, _ in points],
                [factor * m.value for _, _, m in points],
                [_words(profile, m) for _, profile, m in points],
                [factor * m.low for _, _, m in points],
                [factor * m.high for _, _, m in points],
            )
            series += [one] if points else []
        values = [value for one in series for value in (*one.y, *(one.low or ()), *(one.high or ())) if value]
        figure = Figure(axis, logarithmic("", values, seconds_tick), tuple(series))
        cards.append(Card(f"cost-trend-{len(cards)}", _title(kind, protocol, ctx), figures=(figure,), better="lower"))
    table = Card("cost-trend-profiles", grid=_grid(profiles, models, shown))
    return section("cost-trend", [*cards, table], layout="pair", n=str(len(profiles)), models=", ".join(models))


def _shown(profiles: Sequence[Profile]) -> list[What]:
    lengths: dict[tuple[str, str], Counter[int]] = {}
    for profile in profiles:
        for place in {(m.kind, m.protocol, m.ctx) for m in profile.measures if m.kind in _TITLES and not m.failed}:
            lengths.setdefault(place[:2], Counter())[place[2]] += 1
    found = [(*key, max(counts, key=lambda ctx: (counts[ctx], ctx))) for key, counts in lengths.items()]
    return sorted((one for one in found if lengths[one[:2]][one[2]] > 1), key=lambda one: list(_TITLES).index(one[0]))[
        :_MOST
    ]


def _measure(profile: Profile, what: What, model: str) -> Measure | None:
    return next(
        (m for m in profile.measures if (m.kind, m.protocol, m.ctx, m.model) == (*what, model) and m.good), None
    )


def _factor(kind: str) -> float:
    """Of a value to seconds."""
    return 1.0 if kind == "prefill" else 1e-3


def _title(kind: str, protocol: str, ctx: int) -> str:
    how = load(protocol) if kind == "served" else protocol.replace("-", " ")
    return f"{_TITLES[kind]}, {how}, at {format_length(ctx)}"


def _spelled(m: Measure) -> str:
    factor = _factor(m.kind)
    around = f"  ({seconds(factor * m.low)} – {seconds(factor * m.high)})" if m.repeats > 1 else ""
    return seconds(factor * m.value) + around


def _words(profile: Profile, m: Measure) -> list[str]:
    tagged = trends.spelled(profile)
    said = f"{_spelled(m)}, {plural(m.repeats, 'repeat')}"
    return [f"{profile.name}, {moment(profile.get('started'))}", m.model, said, *([tagged] if tagged else [])]


def _grid(profiles: Sequence[Profile], models: Sequence[str], shown: Sequence[What]) -> Grid:
    """A row per profile and model, the latest first."""
    rows = []
    for profile in reversed(profiles):
        for model in (model for model in models if model in profile.models):
            values = [(m and _spelled(m)) or DASH for m in (_measure(profile, what, model) for what in shown)]
            words = [moment(profile.get("started")), model, trends.spelled(profile), *values]
            rows.append(Row(profile.name, tuple(map(Cell, words))))
    heads = ("Profile", "Started", "Model", "Tags", *(_title(*what) for what in shown))
    return Grid(heads, tuple(rows), "plain", numbers=frozenset(range(4, len(heads))))
