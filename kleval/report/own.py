"""Figures of the user's own on the page: functions of the stored tables that give figure data, drawn as the page's own are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kleval.report.figure import Figure
from kleval.report.sections import Card, Section, section
from kleval.tables.frame import Loaded
from kleval.types import UsageError

OwnFigure = Callable[[Loaded], Figure]


def own_section(functions: Sequence[OwnFigure], tables: Loaded) -> Section:
    """A card each, called like the first line of the function's docstring, else like the function. UsageError for one that gives no
    Figure, or one without a curve."""
    cards = []
    for at, function in enumerate(functions, 1):
        name = getattr(function, "__name__", type(function).__name__)
        figure = function(tables)
        if not isinstance(figure, Figure):
            raise UsageError(f"figure {name} gives {type(figure).__name__}: a kleval.report.figure.Figure is drawn")
        if figure.empty:
            raise UsageError(f"figure {name} has no curve: the records hold nothing that it shows")
        title = (function.__doc__ or "").strip().partition("\n")[0].rstrip(".") or name.replace("_", " ")
        cards.append(Card(f"own-{at}", title, figures=(figure,)))
    return section("own", cards, layout="pair")
