"""Curves as plotly draws them, in plain data: any `Figure`, whatever it is about. Colours, grid and manners are left to the page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from kleval.report.figure import GREY, STYLES, Axis, Figure, Series

_DASH = {"estimate": "3px,3px", "allowed": "1px,4px", "paper": "6px,3px"}
MOST_APART = 0.45
_SPREAD_OF_ONE = 1.02  # on a logarithmic axis, shorter whiskers are thinner than the marker


def plotly(figure: Figure) -> dict[str, Any]:
    """`data` and `layout` of plotly's JSON. The first measured curve lies above the others."""
    n = len(figure.series)
    order = sorted(range(n), key=lambda i: (-STYLES.index(figure.series[i].style), -i))
    keys = list(dict.fromkeys(one.key for one in figure.series if one.style in ("measured", "estimate")))
    shift = _shift(figure)
    traces: list[dict[str, Any]] = []
    lines = []
    for i in order:
        one = figure.series[i]
        xs = [x * shift ** (i - (n - 1) / 2) for x in one.x] if figure.apart else list(one.x)
        pieces = one.pieces() if figure.banded and one.low else []
        traces += [_band(one, xs, piece) for piece in pieces]
        place = keys.index(one.key) if one.key in keys else 0
        # Curves that coincide show as rings, unless they are set apart.
        size = 6 if figure.small else 9 if figure.apart else 7 + 2 * min(place, 4)
        lines.append(_line(one, xs, size, figure, {at for piece in pieces for at in piece}))
    room = shift ** (n / 2)
    axis = replace(figure.x, low=figure.x.low / room, high=figure.x.high * room)
    return {"data": [*traces, *lines], "layout": _layout(replace(figure, x=axis))}


def _shift(figure: Figure) -> float:
    """By which factor each curve is moved from the one before; all together by less than half a step between ticks."""
    places = [place for place, _ in figure.x.ticks]
    steps = [math.log(after / before) for before, after in pairwise(places)]
    widest = MOST_APART * min(steps, default=1.0) / max(len(figure.series) - 1, 1)
    return math.exp(min(figure.apart * math.log(figure.x.high / figure.x.low), widest))


def _band(one: Series, xs: list[float], piece: list[int]) -> dict[str, Any]:
    back = piece[::-1]
    return {
        "type": "scatter",
        "x": [xs[i] for i in piece + back],
        "y": [one.high[i] for i in piece] + [one.low[i] for i in back],
        "fill": "toself",
        "fillcolor": _clear(one.look.colour, 0.13),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "mode": "lines",
        "legendgroup": one.key,
    }


def _line(one: Series, xs: list[float], size: int, figure: Figure, banded: set[int]) -> dict[str, Any]:
    """Line, markers and whiskers."""
    measured, colour = one.style == "measured", GREY if one.style == "paper" else one.look.colour
    trace: dict[str, Any] = {
        "type": "scatter",
        "x": xs,
        "y": list(one.y),
        "mode": "lines" if one.style == "allowed" else "lines+markers" + ("+text" if one.labels else ""),
        "name": html.escape(one.name),
        "legendgroup": one.key,
        "line": {
            "color": colour,
            "width": 1.5 if not measured else 1.75 if figure.small else 2.25,
            "dash": one.look.dash if measured else _DASH[one.style],
        },
        "hovertext": [_hover(lines) for lines in one.notes],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "connectgaps": False,
    }
    if one.style != "allowed":
        hollow = one.hollow or [one.style != "measured"] * len(one.y)
        trace["marker"] = {
            "color": colour,
            "size": size,
            "symbol": [one.look.symbol + ("-open" if open_ else "") for open_ in hollow],
            "line": {"width": 1 if figure.small else 1.5, "color": colour},
        }
    if one.labels:
        trace |= {"text": list(one.labels), "textposition": "top right", "textfont": {"size": 11}, "cliponaxis": False}
    up, down = _whiskers(one, figure.y, banded)
    if any(up) or any(down):
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": up,
            "arrayminus": down,
            "color": _clear(colour, 0.55),
            "thickness": 1.0 if figure.small else 1.3,
            "width": 2 if figure.small else 4,
        }
    return trace


def _whiskers(one: Series, axis: Axis, banded: set[int]) -> tuple[list[float], list[float]]:
    """Lengths upwards and downwards, 0 where limits are a band; all 0 where none could be seen."""
    up, down = [0.0] * len(one.y), [0.0] * len(one.y)
    if axis.log and not any(
        high / low >= _SPREAD_OF_ONE for low, high in zip(one.low, one.high, strict=True) if low > 0
    ):
        return up, down
    for i, (value, low, high) in enumerate(zip(one.y, one.low, one.high, strict=False)):
        if value is not None and i not in banded:
            up[i], down[i] = high - value, value - low
    return up, down


def _layout(figure: Figure) -> dict[str, Any]:
    widest = max((len(label) for _, label in figure.y.ticks), default=3)
    shapes, annotations = [], []
    for value, text in figure.levels:
        line = {"color": GREY, "width": 1, "dash": "dash" if text else "solid"}
        shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line})
        if text:
            annotations.append(
                {
                    "text": html.escape(text),
                    "x": 0,
                    "xref": "paper",
                    "xanchor": "left",
                    "y": math.log10(value) if figure.y.log else value,
                    "yanchor": "bottom",
                    "showarrow": False,
                    "font": {"size": 11.5},
                }
            )
    return {
        "margin": {"l": 16 + 7 * widest, "r": 12, "t": 10, "b": 34},
        "xaxis": _axis(figure.x),
        "yaxis": _axis(figure.y),
        "shapes": shapes,
        "annotations": annotations,
    }


def _axis(axis: Axis) -> dict[str, Any]:
    shown = [math.log10(axis.low), math.log10(axis.high)] if axis.log else [axis.low, axis.high]
    return {
        "type": "log" if axis.log else "linear",
        "range": shown,
        "tickmode": "array",
        "tickvals": [place for place, _ in axis.ticks],
        "ticktext": [label for _, label in axis.ticks],
    }


def _hover(notes: Sequence[str]) -> str:
    """plotly reads a few tags in hover texts: words are escaped, the first line is bold."""
    lines = [html.escape(line) for line in notes]
    return "<br>".join([f"<b>{lines[0]}</b>", *lines[1:]]) if lines else ""


def _clear(colour: str, alpha: float) -> str:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha})"
