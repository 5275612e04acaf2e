"""Score against length, as plotly figures in plain data: the page draws them with the one script that it embeds.

Every figure has the same axes (length on a log scale, score 0 to 100), so that panels compare by eye. A model keeps its
colour, marker and dash everywhere; the colours are Okabe & Ito's, told apart by colour-blind readers. Colours of text
and grid are left to the page, which has a light and a dark side.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kleval.tables.cells import Cell
from kleval.tables.scores import Entrant, expected_tasks
from kleval.text import format_length, limits, score

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
_MARKERS = {
    "circle": "M17 2.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9z",
    "square": "M13 3h8v8h-8z",
    "diamond": "M17 1.6L22.4 7L17 12.4L11.6 7z",
    "triangle-up": "M17 1.8L22.2 10.8H11.8z",
    "triangle-down": "M17 12.2L22.2 3.2H11.8z",
    "cross": "M15.4 2.5h3.2v2.9h2.9v3.2h-2.9v2.9h-3.2v-2.9h-2.9v-3.2h2.9z",
}
_DASHES = ("solid", "dash", "dot", "dashdot")
# More bands than these lie on each other until none can be read: whiskers instead, and further apart.
MAX_BANDS = 4
MAX_PANEL_BANDS = 2
DODGE = 0.012  # of the x range, between markers that would lie on each other
WHISKER_DODGE = 0.03  # in a panel, where whiskers need the room


@dataclass(frozen=True, slots=True)
class Look:
    """How an entrant is drawn, in figures (plotly's names) and in legends (svg_*: the same in a box of 34 x 14)."""

    colour: str
    symbol: str
    dash: str

    @property
    def svg_dash(self) -> str:
        return {"solid": "", "dash": "6 4", "dot": "2 3", "dashdot": "6 3 2 3"}[self.dash]

    @property
    def svg_path(self) -> str:
        return _MARKERS[self.symbol]

    def band(self, alpha: float) -> str:
        r, g, b = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({r},{g},{b},{alpha})"


def looks(entrants: Sequence[Entrant]) -> dict[str, Look]:
    """entrant key -> look; no two of the first 24 are the same."""
    return looks_of([e.key for e in entrants])


def looks_of(keys: Sequence[str]) -> dict[str, Look]:
    """key -> look, in the order of the keys."""
    n = len(_COLOURS)
    return {
        key: Look(_COLOURS[i % n], _SYMBOLS[i % n], _DASHES[(i % n + i // n) % len(_DASHES)])
        for i, key in enumerate(keys)
    }


def average_figure(entrants: Sequence[Entrant], family: str, ctxs: Sequence[int]) -> dict[str, Any]:
    """The family's average of every entrant; hollow markers where it covers fewer tasks than the family has."""
    series = {e.key: {ctx: e.averages[family, ctx] for ctx in ctxs if (family, ctx) in e.averages} for e in entrants}
    return _figure(entrants, series, ctxs, banded=len(entrants) <= MAX_BANDS, family=family, marker_size=9)


def task_figure(entrants: Sequence[Entrant], task: str, ctxs: Sequence[int]) -> dict[str, Any]:
    """One task of every entrant; ctxs: all lengths of the report, so that all panels have the same axis."""
    series = {e.key: {ctx: e.cells[task, ctx] for ctx in ctxs if (task, ctx) in e.cells} for e in entrants}
    return _figure(entrants, series, ctxs, banded=len(entrants) <= MAX_PANEL_BANDS, marker_size=6)


def _figure(
    entrants: Sequence[Entrant],
    series: Mapping[str, Mapping[int, Cell]],
    ctxs: Sequence[int],
    banded: bool,
    marker_size: int,
    family: str = "",
) -> dict[str, Any]:
    import plotly.graph_objects as go

    look = looks(entrants)
    low, high = math.log2(min(ctxs)), math.log2(max(ctxs))
    span = max(high - low, 1.0)
    dodge = (DODGE if banded or family else WHISKER_DODGE) * span * min(1.0, 5 / len(entrants))
    bands, lines = [], []
    for i, entrant in enumerate(entrants):
        cells = {ctx: cell for ctx, cell in series[entrant.key].items() if not math.isnan(cell.value)}
        if not cells:
            continue
        shift = dodge * (i - (len(entrants) - 1) / 2)
        at = {ctx: 2 ** (math.log2(ctx) + shift) for ctx in cells}
        pieces = _pieces(sorted(cells), list(ctxs)) if banded else []
        alone = set(cells) - {ctx for piece in pieces for ctx in piece}
        bands += [
            go.Scatter(
                x=[at[c] for c in piece] + [at[c] for c in reversed(piece)],
                y=[cells[c].ci_high * 100 for c in piece] + [cells[c].ci_low * 100 for c in reversed(piece)],
                fill="toself",
                fillcolor=look[entrant.key].band(0.13),
                line={"width": 0},
                hoverinfo="skip",
                mode="lines",
            )
            for piece in pieces
        ]
        lines.append(_line(entrant, look[entrant.key], cells, at, alone, list(ctxs), marker_size, family))
    pad = 0.06 * span + dodge * len(entrants) / 2
    figure = go.Figure(
        data=[*bands, *lines],
        layout=go.Layout(
            template={},
            showlegend=False,
            paper_bgcolor="rgba(0,0,0,0)",
            plot_bgcolor="rgba(0,0,0,0)",
            margin={"l": 38, "r": 10, "t": 10, "b": 34},
            hovermode="closest",
            dragmode=False,
            xaxis={
                "type": "log",
                "range": [(low - pad) * math.log10(2), (high + pad) * math.log10(2)],
                "tickmode": "array",
                "tickvals": list(ctxs),
                "ticktext": [format_length(ctx) for ctx in ctxs],
                "showgrid": False,
                "zeroline": False,
                "fixedrange": True,
                "ticks": "outside",
                "ticklen": 4,
            },
            yaxis={
                "range": [-4, 104],
                "tickvals": [0, 25, 50, 75, 100],
                "zeroline": False,
                "fixedrange": True,
            },
        ),
    )
    plain: dict[str, Any] = figure.to_plotly_json()
    plain["layout"].pop("template", None)
    return plain


def _line(
    entrant: Entrant,
    look: Look,
    cells: Mapping[int, Cell],
    at: Mapping[int, float],
    alone: set[int],
    ctxs: Sequence[int],
    marker_size: int,
    family: str,
) -> Any:
    """Line and markers, broken where a length has no value; whiskers where a point has no neighbour to make a band with."""
    import plotly.graph_objects as go

    xs: list[float | None] = []
    ys: list[float | None] = []
    texts, symbols, up, down = [], [], [], []
    for ctx in ctxs:
        cell = cells.get(ctx)
        partial = cell is not None and bool(family) and cell.n_tasks < expected_tasks(family, cell)
        xs.append(at[ctx] if cell else None)
        ys.append(round(cell.value * 100, 4) if cell else None)
        texts.append(_hover(entrant, cell, family) if cell else "")
        symbols.append(look.symbol + "-open" if partial else look.symbol)
        up.append((cell.ci_high - cell.value) * 100 if cell and ctx in alone else 0)
        down.append((cell.value - cell.ci_low) * 100 if cell and ctx in alone else 0)
    return go.Scatter(
        x=xs,
        y=ys,
        mode="lines+markers",
        name=html.escape(entrant.label),
        line={"color": look.colour, "width": 2.25 if family else 1.75, "dash": look.dash},
        marker={
            "color": look.colour,
            "size": marker_size,
            "symbol": symbols,
            "line": {"width": 2 if family else 1, "color": look.colour},
        },
        error_y={
            "type": "data",
            "symmetric": False,
            "array": up,
            "arrayminus": down,
            "color": look.band(0.55),
            "thickness": 1.5 if family else 1.0,
            "width": 4 if family else 2,
            "visible": bool(alone),
        },
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        connectgaps=False,
    )


def _hover(entrant: Entrant, cell: Cell, family: str) -> str:
    """plotly reads a few tags in hover texts: names are escaped."""
    lines = [
        f"<b>{html.escape(entrant.label)}</b> at {format_length(cell.ctx)}",
        f"{score(cell.value)}  (95 %: {limits(cell.ci_low, cell.ci_high)})",
    ]
    if family:
        lines.append(f"{cell.n_tasks} of {expected_tasks(family, cell)} tasks")
    lines.append(f"{cell.n_scored} of {cell.n_total} answers scored")
    if cell.n_failed:
        lines.append(f"{cell.n_failed} failed: {limits(cell.bound_low, cell.bound_high)} if wrong – if right")
    return "<br>".join(lines)


def _pieces(present: Sequence[int], ctxs: Sequence[int]) -> list[list[int]]:
    """Runs of neighbouring lengths that all have a value, two or more in each."""
    pieces: list[list[int]] = [[]]
    for ctx in sorted(ctxs):
        if ctx in present:
            pieces[-1].append(ctx)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if len(piece) > 1]
