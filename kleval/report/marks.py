"""Marks of a figure: every curve as it is to be drawn, in the order of drawing, the same for all drawers.

Curves that would lie on each other are moved apart here, and here it is decided which limits are bands and which are whiskers; a
drawer only translates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from kleval.report.figure import GREY, STYLES, Axis, Figure, Series

MOST_APART = 0.45
DENSE = 60  # points of a curve, from which on they have no markers, unless some are hollow
_SPREAD_OF_ONE = 1.02  # on a logarithmic axis, shorter whiskers are thinner than the marker


@dataclass(frozen=True, slots=True)
class Curve:
    """x: places, moved apart. size: of the markers, in pixels; 0: it has none. hollow: per point. bands: places of the points between
    whose limits is a band. up, down: lengths of whiskers, 0 where there is none; empty where no point has one.
    """

    one: Series
    x: tuple[float, ...]
    colour: str
    width: float
    size: int
    hollow: tuple[bool, ...]
    bands: tuple[tuple[int, ...], ...] = ()
    up: tuple[float, ...] = ()
    down: tuple[float, ...] = ()


def curves(figure: Figure) -> list[Curve]:
    """In the order of drawing: the first measured curve lies above the others. Bands lie below all of them."""
    n = len(figure.series)
    order = sorted(range(n), key=lambda i: (-STYLES.index(figure.series[i].style), -i))
    keys = list(dict.fromkeys(one.key for one in figure.series if one.style in ("measured", "estimate")))
    shift = _shift(figure)
    found = []
    for i in order:
        one = figure.series[i]
        measured = one.style == "measured"
        x = [x * shift ** (i - (n - 1) / 2) for x in one.x] if figure.apart else list(one.x)
        bands = one.pieces() if figure.banded and one.low else []
        up, down = _whiskers(one, figure.y, {at for piece in bands for at in piece})
        place = keys.index(one.key) if one.key in keys else 0
        # Curves that coincide show as rings, unless they are set apart.
        size = 6 if figure.small else 9 if figure.apart else 7 + 2 * min(place, 4)
        curve = Curve(
            one,
            tuple(x),
            GREY if one.style == "paper" else one.look.colour,
            1.5 if not measured else 1.75 if figure.small else 2.25,
            0 if one.style == "allowed" or (len(one.y) >= DENSE and not any(one.hollow)) else size,
            tuple(one.hollow or [not measured] * len(one.y)),
            tuple(map(tuple, bands)),
            *((tuple(up), tuple(down)) if any(up) or any(down) else ()),
        )
        found.append(curve)
    return found


def lengthwise(figure: Figure) -> Axis:
    """The x axis with room for the curves that are moved."""
    room = _shift(figure) ** (len(figure.series) / 2)
    return replace(figure.x, low=figure.x.low / room, high=figure.x.high * room)


def _shift(figure: Figure) -> float:
    """By which factor each curve is moved from the one before; all together by less than half a step between ticks."""
    if not (figure.apart and figure.x.log):
        return 1.0
    places = [place for place, _ in figure.x.ticks]
    steps = [math.log(after / before) for before, after in pairwise(places)]
    widest = MOST_APART * min(steps, default=1.0) / max(len(figure.series) - 1, 1)
    return math.exp(min(figure.apart * math.log(figure.x.high / figure.x.low), widest))


def _whiskers(one: Series, axis: Axis, banded: set[int]) -> tuple[list[float], list[float]]:
    """Lengths upwards and downwards, 0 where limits are a band; all 0 where none could be seen."""
    up, down = [0.0] * len(one.y), [0.0] * len(one.y)
    if axis.log and not any(
        high / low >= _SPREAD_OF_ONE for low, high in zip(one.low, one.high, strict=True) if low > 0
    ):
        return up, down
    for i, (value, low, high) in enumerate(zip(one.y, one.low, one.high, strict=False)):
        if value is not None and i not in banded:
            up[i], down[i] = max(high - value, 0.0), max(value - low, 0.0)
    return up, down
