"""Curves as plotly figures in plain data: both axes logarithmic, x in tokens, what is no measurement drawn unlike one.

Estimates have hollow markers and a fine dash, bounds and closed forms are thin dots without markers, and the paper's curves are grey.
Every trace carries its legend entry's key, so that the page can take it away.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kleval import text as words
from kleval.report.figures import Look
from kleval.tables.costs import Ceiling

GREY = "#8a929b"
RANK = {"measured": 0, "estimate": 1, "allowed": 2, "paper": 3}
LEAST_SPAN = 2.5
_SPREAD_OF_ONE = 1.02  # spreads below are thinner than the marker


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. key: its legend entry's. low, high: whiskers, as long as y or empty. texts: shown on hover."""

    key: str
    name: str
    x: Sequence[int]
    y: Sequence[float]
    texts: Sequence[str]
    look: Look
    style: str = "measured"  # measured | estimate | allowed | paper
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a legend. style: how it is drawn, as a Line's."""

    key: str
    label: str
    look: Look
    style: str = "measured"


@dataclass(frozen=True, slots=True)
class Figure:
    """data: what plotly draws. legend: its entries, models first."""

    data: dict[str, Any]
    legend: tuple[Entry, ...] = field(default=())

    @property
    def empty(self) -> bool:
        return not self.data["data"]


def draw(
    lines: Sequence[Line],
    ctxs: Iterable[int],
    tick: Callable[[float], str],
    ceilings: Sequence[Ceiling] = (),
    even: bool = False,
) -> Figure:
    """even: draw the line at 1, below which the baseline is ahead."""
    lengths = sorted(set(ctxs))
    kept = [line for line in lines if line.x]
    values = [v for line in kept for v in (*line.y, *line.low, *line.high) if v > 0 and math.isfinite(v)]
    values += [c.value for c in ceilings] + ([1.0] if even else [])
    if not kept or not values:
        return Figure({"data": [], "layout": {}})
    pad = max(1.08, (max(values) / min(values)) ** 0.06)
    low, high = min(values) / pad, max(values) * pad
    if high / low < LEAST_SPAN:  # else an axis of a few percent has one tick, or none
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(LEAST_SPAN), middle * math.sqrt(LEAST_SPAN)
    places, labels = ticks(low, high, tick)
    left, right = math.log10(lengths[0]), math.log10(lengths[-1])
    room = 0.04 * max(right - left, 0.3)
    widest = max((len(label) for label in labels), default=3)
    layout: dict[str, Any] = {
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 16 + 7 * widest, "r": 12, "t": 10, "b": 34},
        "hovermode": "closest",
        "dragmode": False,
        "xaxis": {
            "type": "log",
            "range": [left - room, right + room],
            "tickmode": "array",
            "tickvals": lengths,
            "ticktext": [words.format_length(ctx) for ctx in lengths],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
            "ticks": "outside",
            "ticklen": 4,
        },
        "yaxis": {
            "type": "log",
            "range": [math.log10(low), math.log10(high)],
            "tickmode": "array",
            "tickvals": places,
            "ticktext": labels,
            "zeroline": False,
            "fixedrange": True,
        },
        "shapes": [],
        "annotations": [],
    }
    if even:
        layout["shapes"].append(_level(1.0, "solid", 0.55))
    for text, level in {ceiling.text: ceiling.value for ceiling in ceilings}.items():
        layout["shapes"].append(_level(level, "dash", 0.8))
        layout["annotations"].append(
            {
                "text": f"layers alone: {text}",
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": math.log10(level),
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 11.5},
            }
        )
    # Paper, bounds, estimates, measurements, and of those the first model last: it lies above the others.
    order = sorted(enumerate(kept), key=lambda pair: (-RANK[pair[1].style], -pair[0]))
    keys = list(dict.fromkeys(line.key for line in kept if line.style in ("measured", "estimate")))
    sizes = {key: 7 + 2 * min(i, 4) for i, key in enumerate(keys)}  # curves that coincide show as rings
    traces = [_trace(line, sizes.get(line.key, 6)) for _, line in order]
    return Figure({"data": traces, "layout": layout}, _legend(kept))


def _legend(lines: Sequence[Line]) -> tuple[Entry, ...]:
    """One entry per key: models as measured, then what else is drawn."""
    entries: dict[str, Entry] = {}
    for line in lines:
        known = entries.get(line.key)
        if known is None or RANK[line.style] < RANK[known.style]:
            entries[line.key] = Entry(line.key, line.name, line.look, line.style)
    return tuple(sorted(entries.values(), key=lambda entry: RANK[entry.style]))


def _level(value: float, dash: str, opacity: float) -> dict[str, Any]:
    line = {"color": GREY, "width": 1, "dash": dash}
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": line,
        "opacity": opacity,
    }


def _trace(line: Line, size: int) -> dict[str, Any]:
    style, look = line.style, line.look
    colour = GREY if style == "paper" else look.colour
    drawn: dict[str, Any] = {
        "type": "scatter",
        "x": list(line.x),
        "y": list(line.y),
        "name": escaped(line.name),
        "legendgroup": line.key,
        "mode": "lines" if style == "allowed" else "lines+markers",
        "line": {
            "color": colour,
            "width": 2.25 if style == "measured" else 1.5,
            "dash": {"measured": look.dash, "estimate": "3px,3px", "allowed": "1px,4px", "paper": "6px,3px"}[style],
        },
        "text": list(line.texts),
        "hovertemplate": "%{text}<extra></extra>",
    }
    if style != "allowed":
        open_ = style in ("estimate", "paper")
        drawn["marker"] = {
            "color": colour,
            "size": size,
            "symbol": look.symbol + ("-open" if open_ else ""),
            "line": {"width": 1.5 if open_ else 1, "color": colour},
        }
    wide = [h / lo >= _SPREAD_OF_ONE for lo, h in zip(line.low, line.high, strict=True) if lo > 0]
    if any(wide):
        drawn["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [h - y for h, y in zip(line.high, line.y, strict=True)],
            "arrayminus": [y - lo for lo, y in zip(line.low, line.y, strict=True)],
            "color": colour,
            "thickness": 1.2,
            "width": 4,
        }
    return drawn


def escaped(name: str) -> str:
    """plotly reads a few tags in names and hover texts."""
    return html.escape(name)


def ticks(low: float, high: float, text: Callable[[float], str]) -> tuple[list[float], list[str]]:
    """Places and labels of a logarithmic axis: the fewer per power of ten, the more of these it spans."""
    span = math.log10(high / low)
    choices = ((0.95, (1, 1.5, 2, 3, 4, 6, 8)), (1.6, (1, 2, 3, 5)), (2.4, (1, 2, 5)), (3.6, (1, 3)))
    steps: Sequence[float] = next((steps for most, steps in choices if span < most), (1,))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [step * 10.0**power for power in powers for step in steps]
    inside = [place for place in places if low * 0.999 <= place <= high * 1.001]
    return inside, [text(place) for place in inside]
