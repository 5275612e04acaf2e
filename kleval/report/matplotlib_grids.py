"""Grids as matplotlib draws them in files: heat maps, and stacked bars of parts of a whole. The page has them as tables.

Colours are page.css's, light. A cell without a value keeps its dash, a skipped one is hatched, a failed one is red.
"""

from __future__ import annotations

from typing import Any

from kleval.report.figure import Cell, Grid
from kleval.report.matplotlib_drawer import INK, MUTED, blank, encoded, printable, settings, titled

KINDS = ("heat", "bars")
LOW, MIDDLE, HIGH = (0xF2, 0xF5, 0xF9), (0x8C, 0xB7, 0xE0), (0x0A, 0x4A, 0x8C)  # of a heat map, at 0, 50 and 100
STRONG = 72  # from this level on words are white
PARTS = {
    "latent": "#4477aa",
    "recurrent": "#ddaa33",
    "conv": "#bb5566",
    "kv": "#66ccee",
    "other": "#aa3377",
    "state": "#7b858f",
}
_LABEL, _CELL, _ROW, _EDGE = 230, 74, 28, 16  # pixels: of a row's label, of a cell, of a row's height, of the margin
_BAR = 430
_MOST_LETTERS = 34


def files(grid: Grid, title: str) -> tuple[str, bytes]:
    """SVG and PNG of a grid of one of KINDS."""
    with settings():
        return _heat(grid, title) if grid.kind == "heat" else _bars(grid, title)


def _heat(grid: Grid, title: str) -> tuple[str, bytes]:
    wide, high = 2 * _EDGE + _LABEL + _CELL * (len(grid.columns) - 1), 60 + _ROW * (len(grid.rows) + 1)
    canvas, axes = _sheet(max(wide, 520), high, title)
    for i, column in enumerate(grid.columns[1:]):
        _text(axes, _EDGE + _LABEL + (i + 0.5) * _CELL, 44 + _ROW / 2, column, MUTED)
    for i, row in enumerate(grid.rows):
        y = 44 + _ROW * (i + 1)
        _text(axes, _EDGE, y + _ROW / 2, row.label, INK, "left", row.kind == "average")
        for j, cell in enumerate(row.cells):
            x = _EDGE + _LABEL + j * _CELL
            strong = cell.level is not None and cell.level >= STRONG
            axes.add_patch(_patch((x + 1, y + 1), _CELL - 2, _ROW - 2, **_fill(cell)))
            colour = "#ffffff" if strong else "#a3261d" if cell.kind == "failed" else INK
            middle, below = (x + _CELL / 2, y + _ROW / 2), " ".join(cell.warnings)
            _text(axes, middle[0], middle[1] - (4 if below else 0), cell.text, colour, "center", row.kind == "average")
            if below:
                _text(axes, middle[0], middle[1] + 8, below, colour, size=7)
    return encoded(canvas)


def _fill(cell: Cell) -> dict[str, Any]:
    if cell.level is not None:
        share = min(max(cell.level, 0.0), 100.0) / 50
        a, b, at = (LOW, MIDDLE, share) if share <= 1 else (MIDDLE, HIGH, share - 1)
        return {"facecolor": [(x + (y - x) * at) / 255 for x, y in zip(a, b, strict=True)]}
    if cell.kind == "skipped":
        return {"facecolor": "#ffffff", "hatch": "///", "edgecolor": "#d5d8da"}
    return {"facecolor": "#fcefed" if cell.kind == "failed" else "#f1f2f0"}


def _bars(grid: Grid, title: str) -> tuple[str, bytes]:
    canvas, axes = _sheet(2 * _EDGE + _LABEL + _BAR + 110, 84 + _ROW * len(grid.rows), title)
    used = [kind for kind in PARTS if any(cell.level and cell.kind == kind for row in grid.rows for cell in row.cells)]
    for i, kind in enumerate(used):
        axes.add_patch(_patch((_EDGE + 110 * i, 46), 18, 12, facecolor=PARTS[kind]))
        _text(axes, _EDGE + 110 * i + 24, 52, kind, INK, "left")
    for i, row in enumerate(grid.rows):
        y = 72 + _ROW * i
        _text(axes, _EDGE, y + _ROW / 2, row.label, INK, "left", row.kind == "head")
        x = float(_EDGE + _LABEL)
        for cell in row.cells if row.kind != "head" else ():
            part = _BAR * (cell.level or 0) / 100
            axes.add_patch(_patch((x, y + 6), part, _ROW - 12, facecolor=PARTS.get(cell.kind, "#7b858f")))
            x += part
        _text(axes, _EDGE + _LABEL + _BAR + 100, y + _ROW / 2, row.note, INK, "right")
    return encoded(canvas)


def _sheet(wide: int, high: int, title: str) -> tuple[Any, Any]:
    """A canvas with a title, and axes over it in pixels from its top left."""
    canvas = blank((wide, high))
    titled(canvas, (wide, high), title)
    axes = canvas.add_axes((0, 0, 1, 1), facecolor="none")
    axes.set_axis_off()
    axes.set_xlim(0, wide)
    axes.set_ylim(high, 0)
    return canvas, axes


def _patch(place: tuple[float, float], wide: float, high: float, **fill: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(place, wide, high, **{"linewidth": 0, **fill})


def _text(
    axes: Any,
    x: float,
    y: float,
    words: str,
    colour: str,
    align: str = "center",
    bold: bool = False,
    size: float = 11.5,
) -> None:
    shown = printable(words)
    shown = shown if len(shown) <= _MOST_LETTERS else f"{shown[: _MOST_LETTERS - 1]}…"
    weight = "bold" if bold else "normal"
    axes.text(x, y, shown, color=colour, ha=align, va="center", size=size, weight=weight)
