"""Sections of the page as data: cards of figures, grids and words. The template has one macro for each kind, `words.toml` the words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kleval.files import packaged
from kleval.report import embed
from kleval.report.figure import Figure, Grid, Look, Series, legend


@dataclass(frozen=True, slots=True)
class Card:
    """Figures side by side with one legend, a grid, notes under it, and its numbers as CSV. names: of the figures, where several.

    look: of the model it is about, drawn before its title. better: "lower" where less is better.
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
    better: str = ""

    @property
    def legend(self) -> list[Series]:
        return legend(self.figures)

    @property
    def download(self) -> str:
        return embed.data_uri(self.csv, "text/csv")

    @property
    def empty(self) -> bool:
        return not (self.figures or (self.text and self.grid is None) or (self.grid and self.grid.rows))


@dataclass(frozen=True, slots=True)
class Section:
    """nav: its name in the navigation. lead: what is shown and how to read it. mark: a warning beside the title.

    layout: column, pair (cards side by side), panels (small figures under one legend) or prose. keys: what colours in it stand for
    (ramp, `ramp 3.7 nats per token`, skipped, …). methods: entries of `words.toml` that say how its numbers are made. samples: the data
    of the sample browser (`samples.Browser`). more: cards that are folded away under more_title.
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
    samples: Any = None
    more: tuple[Card, ...] = ()
    more_title: str = ""

    @property
    def legend(self) -> list[Series]:
        """Of all cards together, where they are panels."""
        return legend(figure for card in self.cards for figure in card.figures) if self.layout == "panels" else []


def words() -> dict[str, Any]:
    return packaged("report/words.toml")


def section(name: str, cards: Iterable[Card], also: Sequence[str] = (), layout: str = "column", **said: str) -> Section:
    """The section of that name in `words.toml` with its cards that hold something. also: further sentences; said: what fills them."""
    text = words()["section"][name]
    title = text["title"].format(**said)
    lead = " ".join(text[key].format(**said) for key in ("lead", *also))
    methods = tuple(text.get("methods", ()))
    return Section(name, title, text.get("nav", title), lead, whole(cards), layout, methods=methods)


def card(
    name: str,
    figures: Sequence[Figure] = (),
    grid: Grid | None = None,
    csv: str = "",
    card_id: str = "",
    also: Sequence[str] = (),
    names: Sequence[str] = (),
    **said: str,
) -> Card:
    """The card of that name in `words.toml`. also: further sentences; said: what fills them."""
    text = words()["card"][name]
    sentences = " ".join(text[key].format(**said) for key in ("text", *also))
    title = text["title"].format(**said)
    better = text.get("better", "")
    return Card(card_id or name, title, sentences, None, tuple(figures), tuple(names), grid, csv=csv, better=better)


def whole(cards: Iterable[Card]) -> tuple[Card, ...]:
    """Those with something in them; a figure without a curve is left out of its card, its grid stays."""
    kept = []
    for one in cards:
        drawn = [i for i, figure in enumerate(one.figures) if not figure.empty]
        names = tuple(one.names[i] for i in drawn) if one.names else ()
        kept.append(replace(one, figures=tuple(one.figures[i] for i in drawn), names=names))
    return tuple(one for one in kept if not one.empty)
