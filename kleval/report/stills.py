"""Figures without a browser: an SVG of each inside the page, for readers that run no scripts, and each as SVG and PNG files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kleval.files import write_bytes, write_text
from kleval.report import matplotlib_drawer as drawer
from kleval.report import matplotlib_grids as grids
from kleval.report.figure import Figure
from kleval.report.sections import Card, Section
from kleval.types import UsageError

LONGEST_NAME = 80


def inside(sections: Iterable[Section]) -> dict[str, str]:
    """The SVG of each figure, by its id in the page; none where matplotlib is not installed, and none of figures without a line, whose
    points are in the tables: a run at one length does without the import."""
    found: dict[str, str] = {}
    lines = [one for one in _figures(sections) if any(len(series.x) > 1 for series in one[3].series)]
    if not lines or not drawer.available():
        return found
    for section, card, i, figure in lines:
        name = f"fig-{card.id}-{i}"
        found[name] = drawer.inside(figure, _pixels(section, card, figure), f"still-{card.id}-{i}")
    return found


def check(folder: Path) -> None:
    """UsageError where `write` could not begin: without matplotlib, or with something else in the folder's place."""
    drawer.require()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: --figures takes a directory")


def write(sections: Sequence[Section], folder: Path) -> list[Path]:
    """`NAME.svg` and `NAME.png` of every figure, heat map and stack of bars, named after its section and title.

    UsageError where that cannot be.
    """
    check(folder)
    written: list[Path] = []
    taken: set[str] = set()

    def put(words: Sequence[str], svg: str, png: bytes) -> None:
        name = file_name(words, taken)
        written.append(write_text(folder / f"{name}.svg", svg))
        written.append(write_bytes(folder / f"{name}.png", png))

    for section, card, i, figure in _figures(sections):
        title = card.title or section.title
        words = [title, *card.names[i : i + 1]]
        legend = section.legend if section.layout == "panels" else card.legend
        shown = {one.key for one in figure.series}
        named = [section.id, *([card.title] if card.title else []), *words[1:]]
        put(named, *drawer.files(figure, ", ".join(words), [one for one in legend if one.key in shown]))
    for section in sections:
        for card in section.cards:
            if card.grid is not None and card.grid.rows and card.grid.kind in grids.KINDS:
                title = ", ".join(dict.fromkeys([section.title, *([card.title] if card.title else [])]))
                put([section.id, card.title], *grids.files(card.grid, title))
    return written


def file_name(words: Sequence[str], taken: set[str]) -> str:
    """Letters, digits and dashes of the words, numbered where the name is taken; it is then."""
    plain = re.sub(r"[^a-z0-9_.]+", "-", " ".join(words).lower()).strip("-.")[:LONGEST_NAME] or "figure"
    name, n = plain, 2
    while name in taken:
        name, n = f"{plain}-{n}", n + 1
    taken.add(name)
    return name


def _figures(sections: Iterable[Section]) -> Iterator[tuple[Section, Card, int, Figure]]:
    for section in sections:
        for card in section.cards:
            for i, figure in enumerate(card.figures):
                yield section, card, i, figure


def _pixels(section: Section, card: Card, figure: Figure) -> tuple[int, int]:
    if figure.small:
        return drawer.SMALL
    return drawer.TWIN if len(card.figures) > 1 or section.layout == "pair" else drawer.LARGE
