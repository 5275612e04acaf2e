"""Score against cost: what a model's contexts score beside what they cost at the same lengths (the paper's Figure 1a)."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kleval.report.figures import Look, looks
from kleval.report.profile_lines import ticks
from kleval.report.views import Shape
from kleval.tables.cells import Cell
from kleval.tables.costs import Profile
from kleval.tables.joined import Cost, columns, joined
from kleval.tables.scores import Entrant
from kleval.text import DASH, format_length, limits, score, seconds, seconds_tick, size, size_tick

_BATCH = "largest_batch"  # the column of a batch that was found, which is no cost


@dataclass(frozen=True, slots=True)
class JointPanel:
    """One figure of the score against one cost."""

    title: str
    axis: str
    div: str
    figure: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JointRow:
    label: str
    length: str
    score: str
    costs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Joint:
    """what: the score that is shown. sources: whose costs they are, or why there is none. No panels: nothing met."""

    what: str
    columns: tuple[str, ...]
    panels: tuple[JointPanel, ...]
    rows: tuple[JointRow, ...]
    legend: tuple[tuple[Look, str], ...]
    sources: tuple[str, ...]


def joint(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> Joint:
    """UsageError naming two profiles that hold the same model's cost."""
    costs = joined(entrants, profiles)
    shape, look = Shape.of(entrants), looks(entrants)
    what = f"{shape.families[0]} average" if shape.families else shape.tasks[0]
    found = {(e.key, ctx): cell for e in entrants for ctx in shape.ctxs if (cell := _score(e, shape, ctx)) is not None}
    names = [name for name in columns(costs) if name != _BATCH]
    panels = []
    for name in names:
        points = [
            (
                e,
                [
                    (ctx, found[e.key, ctx], costs[e.key, ctx].values[name])
                    for ctx in shape.ctxs
                    if _both(found, costs, e, ctx, name)
                ],
            )
            for e in entrants
        ]
        kept = [(e, places) for e, places in points if places]
        if kept:
            panels.append(
                JointPanel(
                    f"{what} against {_title(name)}",
                    _title(name),
                    f"fig-{name.replace('_', '-')}",
                    _figure(kept, look, name),
                )
            )
    rows = [
        JointRow(
            e.label,
            format_length(ctx),
            score(cell.value) + f"  ({limits(cell.ci_low, cell.ci_high)})"
            if (cell := found.get((e.key, ctx)))
            else DASH,
            tuple(_shown(name, costs[e.key, ctx].values.get(name)) for name in names),
        )
        for ctx in shape.ctxs
        for e in entrants
        if (e.key, ctx) in costs and costs[e.key, ctx].values
    ]
    return Joint(
        what,
        tuple(_title(name) for name in names),
        tuple(panels),
        tuple(rows),
        tuple((look[e.key], e.label) for e in entrants),
        _sources(entrants, costs),
    )


def _score(entrant: Entrant, shape: Shape, ctx: int) -> Cell | None:
    """The first family's average, else the first task."""
    cell = (
        entrant.averages.get((shape.families[0], ctx)) if shape.families else entrant.cells.get((shape.tasks[0], ctx))
    )
    return None if cell is None or math.isnan(cell.value) else cell


def _both(found: Mapping[Any, Cell], costs: Mapping[Any, Cost], entrant: Entrant, ctx: int, name: str) -> bool:
    place = (entrant.key, ctx)
    return place in found and place in costs and costs[place].values.get(name, 0) > 0


def _sources(entrants: Sequence[Entrant], costs: Mapping[tuple[str, int], Cost]) -> tuple[str, ...]:
    """Per model whose cost it is, once for all lengths that say the same."""
    said: dict[str, list[int]] = {}
    for e in entrants:
        for (key, ctx), cost in costs.items():
            if key == e.key:
                said.setdefault(f"{e.label}: {cost.of}", []).append(ctx)
    return tuple(f"{text} ({', '.join(format_length(ctx) for ctx in ctxs)})." for text, ctxs in said.items())


def _title(name: str) -> str:
    """`tpot_ms_batch1` in words."""
    if name == "state_bytes":
        return "state bytes of one sequence"
    for start, text in (
        ("tpot_ms", "time per token"),
        ("ms_per_token", "time per token"),
        ("prefill_seconds", "prefill time"),
        ("ttft_ms", "time to first token"),
    ):
        if name.startswith(start):  # then protocol and batch
            protocol = name.removeprefix(start).strip("_").replace("_", " ").replace("batch1", "batch 1")
            return f"{text}, {protocol.replace('sampled', 'sampled (estimate)')}" if protocol else text
    return name


def _plain(name: str) -> tuple[float, Callable[[float | None], str], Callable[[float], str]]:
    """Factor to seconds or bytes, a value's spelling, a tick's."""
    if name.endswith("_bytes"):
        return 1.0, lambda value: size(value, precise=True), size_tick
    return 1.0 if "seconds" in name else 1e-3, seconds, seconds_tick


def _shown(name: str, value: float | None) -> str:
    factor, spell, _ = _plain(name)
    return spell(None if value is None else factor * value)


def _doublings(low: float, high: float) -> tuple[list[float], list[str]]:
    """Places and labels of an axis of bytes: powers of two, at most six."""
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    where = [2.0**power for power in powers][:: max(1, -(-len(powers) // 6))]
    return where, [size_tick(place) for place in where]


def _figure(
    kept: Sequence[tuple[Entrant, list[tuple[int, Cell, float]]]], look: Mapping[str, Look], name: str
) -> dict[str, Any]:
    factor, spell, tick = _plain(name)
    values = [factor * cost for _, places in kept for _, _, cost in places]
    low, high = min(values) / 1.25, max(values) * 1.25
    if high / low < 2.5:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(2.5), middle * math.sqrt(2.5)
    where, labels = _doublings(low, high) if name.endswith("_bytes") else ticks(low, high, tick)
    traces = []
    for entrant, places in kept:
        drawn, label = look[entrant.key], html.escape(entrant.label)
        traces.append(
            {
                "type": "scatter",
                "x": [factor * cost for _, _, cost in places],
                "y": [round(100 * cell.value, 4) for _, cell, _ in places],
                "mode": "lines+markers+text",
                "name": label,
                "legendgroup": entrant.key,
                "text": [format_length(ctx) for ctx, _, _ in places],
                "textposition": "top center",
                "textfont": {"size": 11},
                "customdata": [
                    f"<b>{label}</b> at {format_length(ctx)}<br>{score(cell.value)}  (95 %: {limits(cell.ci_low, cell.ci_high)})<br>"
                    f"{_title(name)} {spell(factor * cost)}"
                    for ctx, cell, cost in places
                ],
                "hovertemplate": "%{customdata}<extra></extra>",
                "line": {"color": drawn.colour, "width": 2.25, "dash": drawn.dash},
                "marker": {"color": drawn.colour, "size": 9, "symbol": drawn.symbol},
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * (cell.ci_high - cell.value) for _, cell, _ in places],
                    "arrayminus": [100 * (cell.value - cell.ci_low) for _, cell, _ in places],
                    "color": drawn.band(0.45),
                    "thickness": 1.2,
                    "width": 4,
                },
            }
        )
    layout = {
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 38, "r": 14, "t": 10, "b": 34},
        "hovermode": "closest",
        "dragmode": False,
        "xaxis": {
            "type": "log",
            "range": [math.log10(low), math.log10(high)],
            "tickmode": "array",
            "tickvals": where,
            "ticktext": labels,
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
            "ticks": "outside",
            "ticklen": 4,
        },
        "yaxis": {"range": [-4, 108], "tickvals": [0, 25, 50, 75, 100], "zeroline": False, "fixedrange": True},
    }
    return {"data": traces, "layout": layout}
