"""Figure data: curves with axes, limits and labels, and grids of values (a heat map is one), all numbers and words.

Nothing here draws: the page has `plotly_drawer` for curves and its template for grids, and neither knows a task. A model keeps its
look everywhere; the colours are Okabe & Ito's, told apart by colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from kleval.text import DASH, format_length

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
DASHES = ("solid", "dash", "dot", "dashdot")
STYLES = ("measured", "estimate", "allowed", "paper")  # in the order of a legend
GREY = "#8a929b"
LEAST_SPAN = 2.5  # of a logarithmic axis: one of a few percent has one tick, or none
MOST_DOUBLINGS = 6
MOST_DATES = 8

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Look:
    """Colour, marker (one of SYMBOLS) and dash (one of DASHES) of a model's curves."""

    colour: str
    symbol: str
    dash: str


def looks_of(keys: Iterable[Key]) -> dict[Key, Look]:
    """key -> look, in the order of the keys; no two of the first 24 are the same."""
    n = len(COLOURS)
    return {
        key: Look(COLOURS[i % n], SYMBOLS[i % n], DASHES[(i % n + i // n) % len(DASHES)]) for i, key in enumerate(keys)
    }


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. key, name: of its legend entry; curves with one key are shown and hidden together.

    y: None where there is no value: the curve breaks there. low, high: limits of each value, or empty. notes: lines of words on each
    point, headed by the first. labels: a word beside each point, or empty. style: one of STYLES; an estimate is drawn hollow.
    hollow: which points stand for a part of what they are called, or empty.
    """

    key: str
    name: str
    look: Look
    x: Sequence[float]
    y: Sequence[float | None]
    notes: Sequence[Sequence[str]]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: str = "measured"
    labels: Sequence[str] = ()
    hollow: Sequence[bool] = ()

    def pieces(self) -> list[list[int]]:
        """Places of neighbouring points that all have a value, two or more in each: where limits can be a band."""
        runs: list[list[int]] = [[]]
        for i, value in enumerate(self.y):
            if value is not None:
                runs[-1].append(i)
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if len(run) > 1]


@dataclass(frozen=True, slots=True)
class Axis:
    """low, high: the range that is shown. ticks: (place, label)."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = True


@dataclass(frozen=True, slots=True)
class Figure:
    """Curves over two axes. levels: (value, words) of lines across. banded: limits are bands where they can be, else whiskers.

    apart: by which share of the x axis curves are moved from each other, where their points would lie on each other. small: one of
    many panels.
    """

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    levels: tuple[tuple[float, str], ...] = ()
    banded: bool = False
    apart: float = 0.0
    small: bool = False

    @property
    def empty(self) -> bool:
        return not any(value is not None for one in self.series for value in one.y)

    @property
    def whiskers(self) -> bool:
        """Whether limits are whiskers anywhere: everywhere, or at points without a neighbour to make a band with."""
        inside = {(i, at) for i, one in enumerate(self.series) for piece in one.pieces() for at in piece}
        return any(
            value is not None and one.low and not (self.banded and (i, at) in inside)
            for i, one in enumerate(self.series)
            for at, value in enumerate(one.y)
        )


def legend(figures: Iterable[Figure]) -> list[Series]:
    """One series per key, as measured where it is, models first."""
    entries: dict[str, Series] = {}
    for figure in figures:
        for one in figure.series:
            known = entries.get(one.key)
            if known is None or STYLES.index(one.style) < STYLES.index(known.style):
                entries[one.key] = one
    return sorted(entries.values(), key=lambda one: STYLES.index(one.style))


def lengths(ctxs: Iterable[int], title: str) -> Axis:
    """Context lengths, a tick at each."""
    found = sorted(set(ctxs))
    room = (found[-1] / found[0]) ** 0.06 if found[-1] >= 2 * found[0] else 2**0.06
    return Axis(title, found[0] / room, found[-1] * room, tuple((ctx, format_length(ctx)) for ctx in found))


def scores(title: str = "score") -> Axis:
    return Axis(title, -4.0, 105.0, tuple((value, str(value)) for value in (0, 25, 50, 75, 100)), log=False)


def linear(title: str, values: Iterable[float], room: float = 0.06) -> Axis:
    """Of any numbers, 0 among them, with ticks at round ones."""
    known = [0.0, *(value for value in values if math.isfinite(value))]
    low, high = min(known), max(known)
    span = high - low or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * n for n in (1, 2, 5, 10) if span / (power * n) <= 5)
    places = (step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))
    return Axis(title, low - room * span, high + room * span, tuple((at, f"{at:.10g}") for at in places), log=False)


def dates(days: Iterable[float], title: str) -> Axis:
    """Times in days since 1970 (UTC), a tick at whole days, at hours where all lie within three of them."""
    found = sorted(days)
    first, last = found[0], found[-1]
    span = max(last - first, 1 / 24)
    steps = [n / 24 for n in (1, 2, 3, 6, 12)] if span < 3 else [1, 2, 7, 14, 30, 91, 182, 365, 1000]
    step = next((step for step in steps if span / step <= MOST_DATES), span)
    form = "%m-%d %H:%M" if span < 3 else "%Y-%m-%d" if span > 300 else "%m-%d"
    places = [step * n for n in range(math.ceil(first / step - 1e-9), math.floor(last / step + 1e-9) + 1)] or [first]
    ticks = tuple((at, datetime.fromtimestamp(round(at * 86400), UTC).strftime(form)) for at in places)
    return Axis(title, first - 0.03 * span, last + 0.03 * span, ticks, log=False)


def logarithmic(
    title: str, values: Iterable[float], tick: Callable[[float], str], room: float = 1.08, doublings: bool = False
) -> Axis:
    """Of values above 0, with room on both sides. doublings: ticks at powers of two."""
    known = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    pad = max(room, (max(known) / min(known)) ** 0.06)
    low, high = min(known) / pad, max(known) * pad
    if high / low < LEAST_SPAN:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(LEAST_SPAN), middle * math.sqrt(LEAST_SPAN)
    return Axis(title, low, high, tuple((at, tick(at)) for at in (_doublings if doublings else ticks)(low, high)))


def ticks(low: float, high: float) -> list[float]:
    """Places on a logarithmic axis: the fewer per power of ten, the more of these it spans."""
    span = math.log10(high / low)
    choices = ((0.95, (1, 1.5, 2, 3, 4, 6, 8)), (1.6, (1, 2, 3, 5)), (2.4, (1, 2, 5)), (3.6, (1, 3)))
    steps: Sequence[float] = next((steps for most, steps in choices if span < most), (1,))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [at for power in powers for step in steps if low * 0.999 <= (at := step * 10.0**power) <= high * 1.001]


def _doublings(low: float, high: float) -> list[float]:
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    return [2.0**power for power in powers][:: max(1, -(-len(powers) // MOST_DOUBLINGS))]


@dataclass(frozen=True, slots=True)
class Cell:
    """One value in a grid. subs: smaller lines under it, warnings: such that are warned of. title: more words, shown on hover.

    kind: what it stands for (estimate, failed, skipped, empty, up, down, …), "" for a value. level: 0 to 100, a heat map's colour or
    a bar's length. sort: what it is ordered by, where that is not its text. bar: (low, value, high) from 0 to 100, drawn beside.
    """

    text: str
    subs: tuple[str, ...] = ()
    kind: str = ""
    title: str = ""
    warnings: tuple[str, ...] = ()
    level: float | None = None
    sort: float | None = None
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """label: its first column; note: smaller words under that. look: of the model it is about.

    kind: average, side (a further metric), light or "".
    """

    label: str
    cells: tuple[Cell, ...]
    note: str = ""
    look: Look | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """columns: heads, that of the labels first. kind: grid (values with smaller lines), heat, diff, bars, plain (words) or full
    (sortable).

    numbers: which columns of a plain or full grid hold numbers.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    kind: str = "grid"
    id: str = ""
    numbers: frozenset[int] = frozenset()


def plain(heads: Sequence[str], lines: Iterable[Sequence[Any]], numbers: Iterable[int] = ()) -> Grid:
    """A grid of words or cells, a label before them; numbers: which columns hold numbers."""
    rows = tuple(Row(label, tuple(w if isinstance(w, Cell) else Cell(w) for w in words)) for label, *words in lines)
    return Grid(tuple(heads), rows, "plain", numbers=frozenset(numbers))


EMPTY = Cell(DASH, kind="empty", title="not measured")
