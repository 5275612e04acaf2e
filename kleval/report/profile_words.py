"""Times, bytes and lengths as the profile's page writes them, and axes that read like them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from kleval.report.words import length

DASH = "–"
_TIMES = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_RATES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def tokens(ctx: int) -> str:
    """4k, 128k, 1M: a small m would read as minutes or metres beside times."""
    return length(ctx).replace("m", "M")


def figures(value: float) -> str:
    """Three significant figures, no more digits than that before the point: 0.0123, 1.23, 12.3, 123, 1,230."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def seconds(value: float | None) -> str:
    """A time in the unit that suits it; minutes from two on."""
    if value is None or math.isnan(value):
        return DASH
    if value >= 7200:
        return f"{figures(value / 3600)} h"
    if value >= 120:
        return f"{figures(value / 60)} min"
    factor, unit = next(((f, u) for f, u in _TIMES[2:] if value >= f), _TIMES[-1])
    return f"{figures(value / factor)} {unit}"


def size(value: float | None) -> str:
    if value is None or math.isnan(value):
        return DASH
    factor, unit = next(((f, u) for f, u in _BYTES if value >= f), _BYTES[-1])
    return f"{value:,.0f} {unit}" if factor == 1 else f"{figures(value / factor)} {unit}"


def rate(value: float | None, unit: str) -> str:
    """1.23 TFLOP/s, 12.3 GB/s, 123 k tokens/s."""
    if value is None or math.isnan(value):
        return DASH
    factor, prefix = next(((f, p) for f, p in _RATES if value >= f), _RATES[-1])
    return f"{figures(value / factor)} {prefix}{unit}"


def percent(value: float | None) -> str:
    return DASH if value is None or math.isnan(value) else f"{100 * value:.{1 if value < 0.1 else 0}f} %"


def times(value: float | None) -> str:
    return DASH if value is None or math.isnan(value) else f"{value:.2f}×"


def ticks(low: float, high: float, text: Callable[[float], str]) -> tuple[list[float], list[str]]:
    """Places and labels of a logarithmic axis: the fewer per power of ten, the more of these it spans."""
    span = math.log10(high / low)
    choices = ((0.95, (1, 1.5, 2, 3, 4, 6, 8)), (1.6, (1, 2, 3, 5)), (2.4, (1, 2, 5)), (3.6, (1, 3)))
    steps: Sequence[float] = next((steps for most, steps in choices if span < most), (1,))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [step * 10.0**power for power in powers for step in steps]
    inside = [place for place in places if low * 0.999 <= place <= high * 1.001]
    return inside, [text(place) for place in inside]


def seconds_tick(value: float) -> str:
    """Round numbers: seconds stay seconds, since 1,000 s is not a round number of minutes."""
    factor, unit = next(((f, u) for f, u in _TIMES[2:] if value >= 0.999 * f), _TIMES[-1])
    return f"{float(f'{value / factor:.3g}'):,g} {unit}"


def times_tick(value: float) -> str:
    return f"{value:.3g}×"


def percent_tick(value: float) -> str:
    return f"{100 * value:.3g} %"
