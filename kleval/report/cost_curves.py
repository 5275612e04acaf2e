"""Curves and grids of a profile's measurements: against length, per model, beside the paper's where those can be compared with.

The paper's times are overlaid on models of the published shape alone, its ratios on all: what its times were measured on is not
stated. What is no measurement is drawn unlike one: estimates hollow, bounds and closed forms without markers, the paper grey.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from kleval import text as words
from kleval.report.figure import EMPTY, GREY, Cell, Figure, Grid, Look, Row, Series, lengths, logarithmic
from kleval.report.paper_curves import LABEL, PaperFigure
from kleval.report.score_curves import Looks
from kleval.tables.costs import METRIC, Ceiling, Measure
from kleval.tables.ratios import Ratio
from kleval.text import plural

Rows = Sequence[dict[str, Any]]  # of `cost_rows`
Spell = Callable[[float], str]
Show = Callable[[Measure], Cell]
Key = Callable[[Measure], str]


def by_model(m: Measure) -> str:
    return m.model


def against_length(
    title: str,
    ctxs: Iterable[int],
    series: Iterable[Series],
    tick: Spell,
    ceilings: Sequence[Ceiling] = (),
    even: bool = False,
    doublings: bool = False,
) -> Figure:
    """Both axes logarithmic. even: with the line at 1, below which the baseline is ahead. title: of the axis of lengths."""
    kept = tuple(one for one in series if one.x)
    levels = [(1.0, "")] if even else []
    levels += [(value, f"layers alone: {text}") for text, value in {c.text: c.value for c in ceilings}.items()]
    values = [v for one in kept for v in (*one.y, *one.low, *one.high) if v is not None] + [
        value for value, _ in levels
    ]
    return Figure(lengths(ctxs, title), logarithmic("", values, tick, doublings=doublings), kept, tuple(levels))


def curve(
    model: str,
    look: Look,
    points: Iterable[tuple[int, float, Sequence[str]]],
    style: str = "measured",
    limits: Iterable[tuple[float, float]] = (),
    name: str = "",
) -> Series:
    """points: (length, value, words on it)."""
    found, between = list(points), list(limits)
    notes = [(f"{name or model} at {words.format_length(ctx)}", *said) for ctx, _, said in found]
    return Series(
        model,
        name or model,
        look,
        [ctx for ctx, _, _ in found],
        [value for _, value, _ in found],
        notes,
        [low for low, _ in between],
        [high for _, high in between],
        style,
    )


def grouped(found: Iterable[Measure], key: Key = by_model) -> dict[str, list[Measure]]:
    groups: dict[str, list[Measure]] = {}
    for m in found:
        groups.setdefault(key(m), []).append(m)
    return groups


def by_load(found: Sequence[Measure]) -> tuple[Key, Callable[[str], str]]:
    """What tells the loads on served models apart, and its words: with the model where there are several."""
    if len({m.model for m in found}) > 1:
        return lambda m: f"{m.model}, {words.load(m.protocol)}", str
    return lambda m: m.protocol, words.load


def measured(
    found: Sequence[Measure],
    looks: Looks,
    factor: float,
    spell: Spell = words.seconds,
    of: str = "",
    key: Key = by_model,
    label: Callable[[str], str] = str,
) -> list[Series]:
    """One curve per key with the spread of its repeats. factor: of a value to what is shown; of: which value, else the kind's."""
    lines = []
    for name, mine in grouped(found, key).items():
        points, limits = [], []
        for m in mine:
            known = [p.values.get(of or METRIC[m.kind]) for p in m.good]
            values = [factor * value for value in known if value]
            if values:
                points.append((m.ctx, median(values), _words(m, values, spell)))
                limits.append((min(values), max(values)))
        style = "estimate" if any(m.estimate for m in mine) else "measured"
        lines.append(curve(name, looks[name], points, style, limits, label(name)))
    return lines


def _words(m: Measure, values: Sequence[float], spell: Spell) -> list[str]:
    lines = [spell(median(values))]
    if len(values) > 1:
        lines[0] += f"  ({spell(min(values))} – {spell(max(values))}, {len(values)} repeats)"
    if m.kind == "decode":
        lines.append(f"batch {m.batch:,}, step {milliseconds(m.of('step_ms_median'))}")
    if m.kind == "prefill":
        lines.append("sampled: estimate" if m.estimate else "run in full")
    return lines


def ratio_lines(
    found: Sequence[Ratio], looks: Looks, ideal: str = "", name: Callable[[Ratio], str] = lambda r: r.model
) -> list[Series]:
    """Per name the ratios with their intervals (one of a single repeat has none), and what operations or bytes alone would give."""
    lines = []
    for label, look in looks.items():
        mine = [r for r in found if name(r) == label]
        if not mine:
            continue
        if ideal:
            lines.append(
                allowed(label, look, [(r.ctx, r.ideal) for r in mine if r.ideal], f"{ideal} alone allow", words.times)
            )
        points = [(r.ctx, r.value, subs(_interval(r, "95 %: "), "estimate" if r.estimate else "")) for r in mine]
        limits = [(r.value, r.value) if math.isnan(r.low) else (r.low, r.high) for r in mine]
        lines.append(curve(label, look, points, "estimate" if mine[0].estimate else "measured", limits))
    return lines


def ratio_grid(
    corner: str,
    found: Sequence[Ratio],
    name: Callable[[Ratio], str] = lambda r: r.model,
    notes: Mapping[str, str] | None = None,
    below: Sequence[tuple[str, Mapping[int, Cell], str]] = (),
) -> Grid:
    """Ratio, interval, and what operations or bytes alone allow; of bytes, the share saved. below: further rows."""
    cells: dict[str, dict[int, Cell]] = {}
    for r in found:
        cells.setdefault(name(r), {})[r.ctx] = _ratio(r)
    rows = [(label, mine, (notes or {}).get(label, "")) for label, mine in cells.items()]
    return grid(corner, sorted({r.ctx for r in found}), [*rows, *below])


def _ratio(r: Ratio) -> Cell:
    if r.kind == "memory":
        return Cell(words.times(r.value), (f"{100 * (1 - 1 / r.value):.1f} % saved",))
    ideal = f"{'bytes' if r.kind == 'decode' else 'ops'} {words.times(r.ideal)}" if r.ideal else ""
    differ = r.kind == "decode" and r.batch != r.baseline_batch
    batches = f"batch {r.batch:,} / {r.baseline_batch:,}" if differ else ""
    more = subs(_interval(r) if r.n > 1 else "one repeat", ideal, batches)
    return Cell(words.times(r.value), more, "estimate" if r.estimate else "")


def _interval(r: Ratio, before: str = "") -> str:
    if math.isnan(r.low):
        return words.times(r.value) if before else ""
    interval = f"{words.times(r.low)} – {words.times(r.high)}"
    return f"{words.times(r.value)}  ({before}{interval})" if before else interval


def allowed(model: str, look: Look, pairs: Iterable[tuple[int, float]], what: str, spell: Spell) -> Series:
    """What operations, bytes or a bound allow."""
    return curve(model, look, [(c, v, [f"{what}: {spell(v)}"]) for c, v in pairs], "allowed")


def printed(
    curves: Mapping[str, Mapping[int, float]],
    figure: PaperFigure,
    ctxs: Iterable[int],
    factor: float,
    spell: Spell,
    looks: Looks,
) -> list[Series]:
    """The paper's curves over the lengths that were measured here."""
    low, high = min(found := list(ctxs), default=0), max(found, default=0)
    lines = []
    for name, values in curves.items():
        where = f"{figure.figure}, {LABEL}"
        inside = [
            (c, v * factor, [spell(v * factor), where, figure.note]) for c, v in values.items() if low <= c <= high
        ]
        look = looks.get(name, Look(GREY, "circle", "dash"))
        lines.append(curve(f"paper {name}", look, inside, "paper", name=f"{name}: {LABEL} ({figure.figure})"))
    return lines


def grid(corner: str, ctxs: Sequence[int], rows: Iterable[tuple[str, Mapping[int, Cell], str]]) -> Grid:
    """rows: (label, cells by length, note)."""
    shown = [Row(label, tuple(cells.get(ctx, EMPTY) for ctx in ctxs), note) for label, cells, note in rows]
    return Grid((corner, *(words.format_length(ctx) for ctx in ctxs)), tuple(shown))


def measured_grid(
    corner: str,
    found: Sequence[Measure],
    show: Show,
    key: Key = by_model,
    label: Key = by_model,
    note: Key = lambda m: "",
) -> Grid:
    """A row per key, a column per length."""
    groups = grouped(found, key).values()
    rows = [(label(mine[0]), {m.ctx: cell(m, show) for m in mine}, note(mine[0])) for mine in groups]
    return grid(corner, sorted({m.ctx for m in found}), rows)


def cell(m: Measure, show: Show) -> Cell:
    if m.failed:
        return Cell("failed", kind="failed", title=m.failure)
    lost = f"{plural(len(m.bad), 'round' if m.kind == 'served' else 'repeat')} failed" if m.bad else ""
    return replace(show(m), warnings=subs(lost))


def subs(*texts: str) -> tuple[str, ...]:
    return tuple(text for text in texts if text)


def spread(m: Measure) -> str:
    return "" if m.spread is None else f"± {50 * m.spread:.0f} %"


def milliseconds(value: float | None) -> str:
    return words.seconds(None if value is None else value / 1000)
