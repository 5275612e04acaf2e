"""Answers by length: how long they are, and what share failed, was cut by the budget, is empty or repeats itself to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kleval.report.figure import Axis, Figure, Look, Series, lengths, logarithmic, scores
from kleval.report.sections import Section, card, section
from kleval.tables.answer_lengths import AnswerLengths, quantiles
from kleval.tables.cells import Cell
from kleval.tables.intervals import wilson
from kleval.tables.scores import Entrant
from kleval.text import format_length, number, percent, plural

SHARES = {
    "failed": ("n_failed", "n_total"),
    "cut": ("n_cut", "n_texts"),
    "empty": ("n_empty", "n_texts"),
    "looped": ("n_looped", "n_texts"),
}  # name -> of a cell: how many, of how many
MIDDLE = (0.1, 0.5, 0.9)


def answer_section(
    entrants: Sequence[Entrant], ctxs: Sequence[int], found: AnswerLengths, looks: Mapping[str, Look]
) -> Section | None:
    """A panel per quantity that is not 0 throughout; one line names the others. None where no answer has a length and none is amiss."""
    panels, never = [], []
    if not (tokens := _tokens(entrants, ctxs, found, looks)).empty:
        panels.append(card("answer-tokens", [tokens]))
    for name, (part, whole) in SHARES.items():
        figure = _share(entrants, ctxs, part, whole, looks)
        if any(value for one in figure.series for value in one.y):
            panels.append(card(f"answers-{name}", [figure]))
        elif not figure.empty:
            never.append(name)
    if not panels:
        return None
    return section(
        "answers", panels, ["never"] if never else [], "panels", never=" or ".join(map(_WORDS.__getitem__, never))
    )


_WORDS = {"failed": "failed", "cut": "was cut", "empty": "is empty", "looped": "repeats itself to its end"}


def _tokens(
    entrants: Sequence[Entrant], ctxs: Sequence[int], found: AnswerLengths, looks: Mapping[str, Look]
) -> Figure:
    """Median, with whiskers over the middle 80 %."""
    series, values = [], []
    for e in entrants:
        points = [(ctx, quantiles(found.of(e, ctx).tokens, MIDDLE)) for ctx in ctxs]
        known = [(ctx, three) for ctx, three in points if three and three[1] > 0]
        notes = [
            (f"{e.label} at {format_length(ctx)}", f"{number(mid)} tokens (10 %: {number(low)}, 90 %: {number(high)})")
            for ctx, (low, mid, high) in known
        ]
        lows, highs = [max(t[0], 0.5) for _, t in known], [t[2] for _, t in known]
        values += [*lows, *highs]
        mids = [t[1] for _, t in known]
        series.append(Series(e.key, e.label, looks[e.key], [c for c, _ in known], mids, notes, lows, highs))
    return _panel(ctxs, logarithmic("", values, lambda value: f"{value:g}"), series)


def _share(
    entrants: Sequence[Entrant], ctxs: Sequence[int], part: str, whole: str, looks: Mapping[str, Look]
) -> Figure:
    """In percent, with Wilson's interval."""
    series = []
    for e in entrants:
        counts = [(ctx, *_sum([c for (_, at), c in e.cells.items() if at == ctx], part, whole)) for ctx in ctxs]
        known = [(ctx, n, total) for ctx, n, total in counts if total]
        limits = [wilson(n, total) for _, n, total in known]
        notes = [
            (f"{e.label} at {format_length(ctx)}", f"{percent(n / total)}: {n:,} of {plural(total, 'answer')}")
            for ctx, n, total in known
        ]
        lows, highs = [100 * low for low, _ in limits], [100 * high for _, high in limits]
        shares = [100 * n / total for _, n, total in known]
        series.append(Series(e.key, e.label, looks[e.key], [c for c, _, _ in known], shares, notes, lows, highs))
    return _panel(ctxs, scores(""), series)


def _panel(ctxs: Sequence[int], y: Axis, series: Sequence[Series]) -> Figure:
    kept = tuple(one for one in series if one.x)
    return Figure(lengths(ctxs, ""), y, kept, banded=len(kept) <= 2, apart=0.011, small=True)


def _sum(cells: Sequence[Cell], *names: str) -> tuple[int, ...]:
    return tuple(sum(getattr(cell, name) for cell in cells) for name in names)
