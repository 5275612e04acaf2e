"""Sections of the page as data: cards of figures, grids and words. The template has one macro for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kleval.report import embed
from kleval.report.figure import Figure, Grid, Look, Series, legend


@dataclass(frozen=True, slots=True)
class Card:
    """Figures side by side with one legend, a grid, notes under it, and its numbers as CSV. names: of the figures, where several.

    look: of the model it is about, drawn before its title.
    """

    id: str = ""
    title: str = ""
    text: str = ""
    look: Look | None = None
    figures: tuple[Figure, ...] = ()
    names: tuple[str, ...] = ()
    grid: Grid | None = None
    notes: tuple[str, ...] = ()
    csv: str = ""

    @property
    def legend(self) -> list[Series]:
        return legend(self.figures)

    @property
    def download(self) -> str:
        return embed.data_uri(self.csv, "text/csv")

    @property
    def empty(self) -> bool:
        return not self.figures and (self.grid is None or not self.grid.rows)


@dataclass(frozen=True, slots=True)
class Section:
    """nav: its name in the navigation, "" for none. lead: what is shown and how to read it. mark: a warning beside the title.

    layout: column, pair (cards side by side), panels (small figures under one legend) or prose. keys: what colours in it stand for
    (ramp, skipped, failed, latent, …). methods: entries of `methods.toml` that say how its numbers are made. samples: answers to look
    at (`examples.Example`), by task.
    """

    id: str
    title: str
    nav: str
    lead: str = ""
    cards: tuple[Card, ...] = ()
    layout: str = "column"
    mark: str = ""
    keys: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    samples: tuple[tuple[str, Sequence[Any]], ...] = ()

    @property
    def legend(self) -> list[Series]:
        """Of all cards together, where they are panels."""
        return legend(figure for card in self.cards for figure in card.figures) if self.layout == "panels" else []


def whole(cards: Sequence[Card]) -> tuple[Card, ...]:
    """Those with something in them; a figure without a curve is left out of its card, its grid stays."""
    kept = []
    for card in cards:
        drawn = [i for i, figure in enumerate(card.figures) if not figure.empty]
        names = tuple(card.names[i] for i in drawn) if card.names else ()
        kept.append(
            Card(
                card.id,
                card.title,
                card.text,
                card.look,
                tuple(card.figures[i] for i in drawn),
                names,
                card.grid,
                card.notes,
                card.csv,
            )
        )
    return tuple(card for card in kept if not card.empty)
