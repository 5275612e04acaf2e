"""Units in words: every length, size, time, rate, share, score, count and plural that kleval shows a person.

One spelling each, on the terminal, in errors and on pages alike. `format_length` reads back through `kleval.lengths.parse_length`.
What is None or NaN is a dash.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

K = 1024
M = 1024 * 1024
DASH = "–"
MINUS = "\u2212"
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_RATES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def format_length(tokens: int) -> str:
    """The shortest spelling that `--ctx` takes: 4k, 128k, 1M, 6000. A small m would read as minutes or metres beside times."""
    if tokens % M == 0:
        return f"{tokens // M}M"
    return f"{tokens // K}k" if tokens % K == 0 else str(tokens)


def format_lengths(lengths: Iterable[int]) -> str:
    return ",".join(format_length(length) for length in lengths)


def number(value: float | None) -> str:
    """Three significant figures, no fewer digits than stand before the point: 0.0123, 1.23, 12.3, 123, 1,230."""
    if value is None or math.isnan(value):
        return DASH
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def size(value: float | None, precise: bool = False) -> str:
    """Bytes: `512 B`, `3.4 MiB`; precise: with three significant figures, `7.88 GiB`."""
    if value is None or math.isnan(value):
        return DASH
    factor, unit = next(((f, u) for f, u in _BYTES if abs(value) >= f), _BYTES[-1])
    shown = f"{value / factor:.1f}" if not precise else number(value / factor)
    return f"{value:,.0f} B" if factor == 1 else f"{shown} {unit}"


def size_at(value: float | None, tokens: float | None) -> str:
    """Bytes of a sequence of so many tokens: `6.0 MiB at 8k`; empty where one is not known."""
    return "" if value is None or tokens is None else f"{size(value)} at {format_length(round(tokens))}"


def seconds(value: float | None) -> str:
    """A measured time in the unit that suits it; minutes from two on, hours from two on."""
    if value is None or math.isnan(value):
        return DASH
    if value >= 7200:
        return f"{number(value / 3600)} h"
    if value >= 120:
        return f"{number(value / 60)} min"
    factor, unit = next(((f, u) for f, u in _TIMES if value >= f), _TIMES[-1])
    return f"{number(value / factor)} {unit}"


def duration(elapsed: float) -> str:
    """A time on a clock, to the second: `8s`, `4m05s`, `2h07m`."""
    whole = max(0, round(elapsed))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def rate(value: float | None, unit: str) -> str:
    """1.23 TFLOP/s, 12.3 GB/s, 123 ktok/s."""
    if value is None or math.isnan(value):
        return DASH
    factor, prefix = next(((f, p) for f, p in _RATES if value >= f), _RATES[-1])
    return f"{number(value / factor)} {prefix}{unit}"


def percent(value: float | None) -> str:
    """A share: 9.5 %, 12 %."""
    return DASH if value is None or math.isnan(value) else f"{100 * value:.{1 if abs(value) < 0.1 else 0}f} %"


def times(value: float | None) -> str:
    """A ratio: 2.88×."""
    return DASH if value is None or math.isnan(value) else f"{value:.2f}×"


def count(n: int) -> str:
    """Parameters: `49.12 B`, `329.2 M`, `917 k`."""
    for unit, power, digits in (("B", 10**9, 2), ("M", 10**6, 1), ("k", 10**3, 0)):
        if n >= power:
            return f"{n / power:.{digits}f} {unit}"
    return str(n)


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def few(names: Sequence[str], most: int = 4) -> str:
    """Names in a line, of more than that many the first and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def seconds_tick(value: float) -> str:
    """Round numbers on an axis: seconds stay seconds, since 1,000 s is not a round number of minutes."""
    factor, unit = next(((f, u) for f, u in _TIMES if value >= 0.999 * f), _TIMES[-1])
    return f"{_round(value / factor)} {unit}"


def size_tick(value: float) -> str:
    factor, unit = next(((f, u) for f, u in _BYTES if value >= 0.999 * f), _BYTES[-1])
    return f"{_round(value / factor)} {unit}"


def rate_tick(value: float) -> str:
    return _round(value)


def times_tick(value: float) -> str:
    return f"{value:.3g}×"


def percent_tick(value: float) -> str:
    return f"{100 * value:.3g} %"


def score(value: float, unit: str = "") -> str:
    """A score in [0, 1] x 100, one digit; of a metric with a unit its number, three digits."""
    if math.isnan(value):
        return DASH
    if not unit:
        return f"{value * 100:.1f}"
    text = f"{abs(value):.3f}"
    return (MINUS if value < 0 and float(text) else "") + text


def limits(low: float, high: float, unit: str = "") -> str:
    """An interval of scores."""
    return DASH if math.isnan(low) else f"{score(low, unit)} {'to' if unit else '–'} {score(high, unit)}"


def signed(value: float, unit: str = "") -> str:
    """A difference of scores with its sign; what rounds to nothing has none."""
    text = score(abs(value), unit)
    return text if math.isnan(value) or not float(text) else ("+" if value > 0 else MINUS) + text


def load(protocol: str) -> str:
    """How requests of a served model come: `1 request`, `8 requests together`, `8 requests held`, `2 requests/s`, `best rate`,
    `50 % sent before`."""
    kind, _, value = protocol.partition("-")
    if kind == "concurrency" and value == "1":
        return "1 request"
    if kind == "reuse":
        return f"{percent(float(value))} sent before"
    said = {
        "concurrency": f"{value} requests together",
        "steady": f"{value} requests held",
        "rate": f"{value} requests/s",
    }
    return said.get(kind, protocol.replace("-", " "))


def short_task(task: str) -> str:
    """A task's name without its family."""
    return task.split("/", 1)[-1]


def places(where: Sequence[tuple[str, int]]) -> str:
    """`ruler/niah_single_1 at 1k, 2k; ruler/vt at 1k`"""
    by_task: dict[str, set[int]] = {}
    for task, ctx in where:
        by_task.setdefault(task, set()).add(ctx)
    return "; ".join(f"{t} at {', '.join(format_length(c) for c in sorted(ctxs))}" for t, ctxs in by_task.items())


def digest(value: Any) -> str:
    """A hash by its first 12 digits, anything else as it is."""
    if value is None or value == "":
        return DASH
    text = str(value)
    bare = text.removeprefix("sha256:")
    return bare[:12] if len(bare) in (40, 64) and all(c in "0123456789abcdef" for c in bare) else text


def moment(value: Any) -> str:
    """An ISO 8601 time to the minute."""
    text = str(value or "")
    return f"{text[:10]} {text[11:16]} UTC" if len(text) >= 16 else text or DASH


def _round(value: float) -> str:
    return f"{float(f'{value:.3g}'):,g}"
