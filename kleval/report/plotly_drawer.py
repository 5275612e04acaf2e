"""Curves as plotly draws them, in plain data: any `Figure`, whatever it is about. Colours, grid and manners are left to the page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from kleval.report import marks
from kleval.report.figure import GREY, Axis, Figure

_DASH = {"estimate": "3px,3px", "allowed": "1px,4px", "paper": "6px,3px"}


def plotly(figure: Figure) -> dict[str, Any]:
    """`data` and `layout` of plotly's JSON."""
    curves = marks.curves(figure)
    bands = [_band(curve, piece) for curve in curves for piece in curve.bands]
    return {"data": [*bands, *(_line(curve, figure.small) for curve in curves)], "layout": _layout(figure)}


def _band(curve: marks.Curve, piece: Sequence[int]) -> dict[str, Any]:
    one, back = curve.one, piece[::-1]
    return {
        "type": "scatter",
        "x": [curve.x[i] for i in (*piece, *back)],
        "y": [one.high[i] for i in piece] + [one.low[i] for i in back],
        "fill": "toself",
        "fillcolor": _clear(one.look.colour, 0.13),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "mode": "lines",
        "legendgroup": one.key,
    }


def _line(curve: marks.Curve, small: bool) -> dict[str, Any]:
    """Line, markers and whiskers."""
    one = curve.one
    trace: dict[str, Any] = {
        "type": "scatter",
        "x": list(curve.x),
        "y": list(one.y),
        "mode": "lines" + ("+markers" if curve.size else "") + ("+text" if one.labels and curve.size else ""),
        "name": html.escape(one.name),
        "legendgroup": one.key,
        "line": {
            "color": curve.colour,
            "width": curve.width,
            "dash": one.look.dash if one.style == "measured" else _DASH[one.style],
        },
        "hovertext": [_hover(lines) for lines in one.notes],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "connectgaps": False,
    }
    if curve.size:
        trace["marker"] = {
            "color": curve.colour,
            "size": curve.size,
            "symbol": [one.look.symbol + ("-open" if hollow else "") for hollow in curve.hollow],
            "line": {"width": 1 if small else 1.5, "color": curve.colour},
        }
    if one.labels:
        trace |= {"text": list(one.labels), "textposition": "top right", "textfont": {"size": 11}, "cliponaxis": False}
    if curve.up:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": list(curve.up),
            "arrayminus": list(curve.down),
            "color": _clear(curve.colour, 0.55),
            "thickness": 1.0 if small else 1.3,
            "width": 2 if small else 4,
        }
    return trace


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
        "xaxis": _axis(marks.lengthwise(figure)),
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
