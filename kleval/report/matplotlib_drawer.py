"""Curves as matplotlib draws them, without a browser: any `Figure`, as SVG inside a page and as SVG and PNG files.

Inside a page the colours of words and axes are the page's own, light or dark; a file stands on white, with a title and a legend.
Names come from runs and are drawn as they are: nothing in them is markup or maths. The same figure gives the same bytes.
matplotlib is imported here alone, when something is drawn.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from kleval.report import marks
from kleval.report.figure import DASHES, GREY, SYMBOLS, Axis, Figure, Series
from kleval.types import UsageError

INSTALL = "pip install 'matplotlib>=3.9'"
MARKERS = dict(zip(SYMBOLS, "osD^vP", strict=True))
PATTERNS = dict(zip(DASHES, ((), (6, 4), (2, 3), (6, 3, 2, 3)), strict=True))
STYLED: dict[str, tuple[float, float]] = {"estimate": (3, 3), "allowed": (1.5, 3.5), "paper": (6, 3)}
# As in page.css, light: the variables stand in their place inside a page.
INK, MUTED, GRID, AXIS = "#1b1e22", "#5d6670", "#e9eaea", "#c3c7cb"
_OF_PAGE = {MUTED: "--muted", GRID: "--grid", AXIS: "--axis"}
SMALL, TWIN, LARGE = (250, 160), (500, 260), (760, 300)  # pixels of a panel, of one of two, of one alone
_FILE = (860, 400)
_PER_LETTER = 0.56  # of a letter's height, its width
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kleval",
    "text.parse_math": False,
    "lines.scale_dashes": False,
    "font.family": ["DejaVu Sans"],
    "axes.unicode_minus": False,
}
_NOISE = re.compile(r"<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", re.DOTALL)
_NAMED = re.compile(
    r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib|LineCollection|FillBetween\w*)[\w.]*"'
)


def available() -> bool:
    """Whether matplotlib is there."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def require() -> None:
    """UsageError with the command that installs it where matplotlib is not there."""
    if not available():
        raise UsageError(f"figures as files need matplotlib: {INSTALL}")


def inside(figure: Figure, pixels: tuple[int, int], name: str) -> str:
    """An SVG element in the page's colours and as wide as its place. Its legend is the page's. name: begins its ids."""
    with settings():
        canvas = blank(pixels)
        axes(canvas, figure, (0.0, 0.0, 1.0, 1.0), pixels)
        text = _svg(canvas, transparent=True)
    for colour, variable in _OF_PAGE.items():
        text = text.replace(f": {colour}", f": var({variable})")
    text = _NAMED.sub("", re.sub(r"\s*\n\s*", " ", _NOISE.sub("", text)))
    text = re.sub(r'(?<= id=")(?=\w)|(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', text, count=1).strip()


def files(figure: Figure, title: str, legend: Sequence[Series]) -> tuple[str, bytes]:
    """SVG and PNG (two dots per pixel), with title and legend above the curves and the name of the x axis under them."""
    with settings():
        wide, high = _FILE
        canvas = blank(_FILE)
        top = titled(canvas, _FILE, title)
        top = _legend(canvas, _FILE, top, legend)
        foot = 24 if figure.x.title else 4
        axes(canvas, figure, (0.0, foot / high, 1.0, (high - top - foot) / high), (wide, high - top - foot))
        if figure.x.title:
            canvas.text(0.5, 8 / high, printable(figure.x.title), size=12, color=MUTED, ha="center")
        return encoded(canvas)


def encoded(canvas: Any) -> tuple[str, bytes]:
    """SVG and PNG of a canvas."""
    png = io.BytesIO()
    canvas.savefig(png, format="png", dpi=144, metadata={"Software": None})
    return _svg(canvas, transparent=False), png.getvalue()


def axes(canvas: Any, figure: Figure, place: tuple[float, float, float, float], pixels: tuple[float, float]) -> Any:
    """The curves in a part of the canvas. place: left, bottom, width, height as shares; pixels: how many it has."""
    wide, high = pixels
    font = 10.5 if figure.small else 12
    widest = max((len(label) for _, label in figure.y.ticks), default=3)
    left, right, top, bottom = 12 + font * _PER_LETTER * widest, 12, 10, 14 + font
    x, y, w, h = place
    found = canvas.add_axes(
        (
            x + w * left / wide,
            y + h * bottom / high,
            w * (wide - left - right) / wide,
            h * (high - top - bottom) / high,
        ),
        facecolor="none",
    )
    along = marks.lengthwise(figure)
    _axis(found, "x", along, _thinned(along, wide - left - right, font), font)
    _axis(found, "y", figure.y, figure.y.ticks, font)
    for side, spine in found.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(AXIS)
    for value, text in figure.levels:
        found.axhline(value, color=GREY, linewidth=1, linestyle=(0, (4, 4)) if text else "-", label="_level")
        if text:
            at = (along.low, value)
            found.annotate(printable(text), at, (3, 3), textcoords="offset points", size=font - 1, color=MUTED)
    curves = marks.curves(figure)
    for curve in curves:
        for piece in curve.bands:
            one = curve.one
            below, above = [one.low[i] for i in piece], [one.high[i] for i in piece]
            color = one.look.colour
            found.fill_between([curve.x[i] for i in piece], below, above, color=color, alpha=0.13, linewidth=0)
    for curve in curves:
        _curve(found, curve, figure.small)
    return found


def _curve(found: Any, curve: marks.Curve, small: bool) -> None:
    """Line, markers, whiskers and labels."""
    one, colour = curve.one, curve.colour
    y = [math.nan if value is None else value for value in one.y]
    if curve.up:
        whole = [i for i in range(len(y)) if curve.up[i] or curve.down[i]]
        found.errorbar(
            [curve.x[i] for i in whole],
            [y[i] for i in whole],
            [[curve.down[i] for i in whole], [curve.up[i] for i in whole]],
            fmt="none",
            ecolor=(colour, 0.55),
            elinewidth=1.0 if small else 1.3,
            capsize=2 if small else 4,
            label="_whiskers",
        )
    found.plot(curve.x, y, color=colour, linewidth=curve.width, linestyle=pattern(one), label=printable(one.name))
    if curve.size:
        for hollow in (False, True):
            some = [i for i, open_ in enumerate(curve.hollow) if open_ is hollow and one.y[i] is not None]
            if some:
                _markers(found, curve, [curve.x[i] for i in some], [y[i] for i in some], hollow, small)
        for x, value, text in zip(curve.x, y, one.labels, strict=False):
            if text and not math.isnan(value):
                found.annotate(printable(text), (x, value), (5, 5), textcoords="offset points", size=10.5, color=MUTED)


def _markers(found: Any, curve: marks.Curve, x: list[float], y: list[float], hollow: bool, small: bool) -> None:
    found.plot(
        x,
        y,
        linestyle="none",
        marker=MARKERS[curve.one.look.symbol],
        markersize=curve.size,
        markerfacecolor="none" if hollow else curve.colour,
        markeredgecolor=curve.colour,
        markeredgewidth=1 if small else 1.5,
        clip_on=False,
        label="_markers",
    )


def pattern(one: Series) -> Any:
    """The dashes of a series, as matplotlib takes them."""
    dashes = PATTERNS[one.look.dash] if one.style == "measured" else STYLED[one.style]
    return (0, dashes) if dashes else "-"


def _axis(found: Any, name: str, axis: Axis, ticks: Sequence[tuple[float, str]], font: float) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    if axis.log:
        getattr(found, f"set_{name}scale")("log")
    getattr(found, f"set_{name}lim")(axis.low, axis.high)
    of = getattr(found, f"{name}axis")
    of.set_minor_locator(NullLocator())
    of.set_major_locator(FixedLocator([place for place, _ in ticks]))
    of.set_major_formatter(FixedFormatter([printable(label) for _, label in ticks]))
    found.tick_params(
        axis=name, length=4 if name == "x" else 0, color=AXIS, labelcolor=MUTED, labelsize=font, width=1, pad=3
    )
    if name == "y":
        of.grid(True, color=GRID, linewidth=1)
        found.set_axisbelow(True)


def _thinned(axis: Axis, wide: float, font: float) -> list[tuple[float, str]]:
    """Ticks, those labels empty that would run into the next, counted from the last."""
    place = math.log10 if axis.log else float
    low = place(axis.low)
    scale, free, kept = wide / (place(axis.high) - low), math.inf, []
    for at, label in reversed(axis.ticks):
        middle, half = (place(at) - low) * scale, (len(label) * font * _PER_LETTER + 6) / 2
        fits = middle + half <= free
        free = middle - half if fits else free
        kept.append((at, label if fits else ""))
    return kept[::-1]


def titled(canvas: Any, pixels: tuple[int, int], title: str) -> float:
    """Where it ends, in pixels from the top."""
    if not title:
        return 8
    canvas.text(16 / pixels[0], 1 - 26 / pixels[1], printable(title), size=15, weight="bold", color=INK)
    return 38


def _legend(canvas: Any, pixels: tuple[int, int], top: float, legend: Sequence[Series]) -> float:
    """Line, marker and name of each series in rows under `top`; where it ends."""
    from matplotlib.lines import Line2D

    wide, high = pixels
    left, font, row = 16.0, 12, 20
    for one in legend:
        name = printable(one.name)
        needed = 42 + len(name) * font * _PER_LETTER * 1.08
        if left > 16 and left + needed > wide - 8:
            left, top = 16.0, top + row
        y = 1 - (top + row / 2) / high
        colour = GREY if one.style == "paper" else one.look.colour
        measured = one.style == "measured"
        line = Line2D(
            [left / wide, (left + 17) / wide, (left + 34) / wide],
            [y, y, y],
            color=colour,
            linewidth=2.25 if measured else 1.5,
            linestyle=pattern(one),
            marker="" if one.style == "allowed" else MARKERS[one.look.symbol],
            markevery=[1],
            markersize=8,
            markerfacecolor=colour if measured else "none",
        )
        canvas.add_artist(line)
        canvas.text((left + 42) / wide, y, name, size=font, color=INK, va="center")
        left += needed + 22
    return top + row + 4 if legend else top


def printable(text: str) -> str:
    """Without control characters, which no XML may hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def blank(pixels: tuple[int, int]) -> Any:
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(pixels[0] / 72, pixels[1] / 72), dpi=72)


def _svg(canvas: Any, transparent: bool) -> str:
    text = io.StringIO()
    canvas.savefig(text, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
    # A point of the canvas is a pixel; a machine without the font has another one of its kind.
    found = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', text.getvalue(), count=2)
    return found.replace("font-family: 'DejaVu Sans'", "font-family: 'DejaVu Sans', Verdana, Arial, sans-serif")


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Our settings, and no words about letters that the font lacks."""
    require()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
