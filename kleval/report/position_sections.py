"""Negative log-likelihood of texts by position, a card per text and a curve per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kleval.report.figure import Figure, Look, Series, lengths, logarithmic
from kleval.report.sections import Section, card, section
from kleval.tables.formats import to_csv
from kleval.tables.positions import COLUMNS, HEADS, Positions, spelled
from kleval.tables.scores import Entrant
from kleval.text import format_length


def position_section(entrants: Sequence[Entrant], found: Positions, looks: Mapping[str, Look]) -> Section | None:
    """A figure per length, over the same documents. None where no task is of likelihoods by position."""
    buckets = [(e, [row for row in found.of(e.run.id) if row["model"] == e.model]) for e in entrants]
    cards = []
    for task in dict.fromkeys(row["task"] for _, rows in buckets for row in rows):
        of_task = [(e, [row for row in rows if row["task"] == task]) for e, rows in buckets]
        ctxs = sorted({row["ctx"] for _, rows in of_task for row in rows})
        figures = [_figure(of_task, ctx, looks) for ctx in ctxs]
        csv = to_csv([{"run": e.run.title, **row} for e, rows in of_task for row in rows], ("run", *COLUMNS))
        names = [f"at {format_length(ctx)}" for ctx in ctxs]
        cards.append(card("positions", figures, csv=csv, card_id=f"positions-{task}", names=names, task=task))
    return section("positions", cards) if cards else None


def _figure(buckets: Sequence[tuple[Entrant, list[dict[str, Any]]]], ctx: int, looks: Mapping[str, Look]) -> Figure:
    series = []
    for e, rows in buckets:
        here = [row for row in rows if row["ctx"] == ctx]
        limits = [row for row in here if row["ci_low"] is not None]
        notes = [
            (e.label, *(f"{head}: {text}" for head, text in zip(HEADS[2:], spelled(row)[2:], strict=True)))
            for row in here
        ]
        series.append(
            Series(
                e.key,
                e.label,
                looks[e.key],
                [row["to"] for row in here],
                [row["nll"] for row in here],
                notes,
                [row["ci_low"] for row in limits] if len(limits) == len(here) else [],
                [row["ci_high"] for row in limits] if len(limits) == len(here) else [],
            )
        )
    kept = tuple(one for one in series if one.x)
    values = [value for one in kept for value in (*one.y, *one.low, *one.high) if value is not None]
    ends = [row["to"] for _, rows in buckets for row in rows if row["ctx"] == ctx]
    return Figure(
        lengths(ends, "position, tokens"), logarithmic("nats per token", values, lambda v: f"{v:g}"), kept, banded=True
    )
