"""Scores by the depth of the answer in the prompt, against context length, from rows that say where it stands."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kleval.store import Row
from kleval.tables.cells import Cell, summarise
from kleval.tables.scores import Entrant, Run

METRIC = "score"  # of whichever task
COARSE, FINE = 5, 10  # bins from the beginning of the prompt to its end
ENOUGH = 100  # rows at every length of every model, for fine bins


class Depths:
    """Collects rows while they go by (`watch`), then gives each model's cells.

    A row counts where its `depth_percent` is one number from 0 to 100; with several, where they are those of its references one by one
    and its score is the share of these that its answer holds: then each reference is a needle found or not, at its own depth.
    tasks: that have such rows. unit: of the rows that it looks at (`Row.unit`); of likelihoods each reference has a gain of its own.
    """

    def __init__(self, unit: str = "") -> None:
        self._unit = unit
        self._rows: dict[tuple[str, str], list[tuple[float, Row]]] = {}
        self.tasks: dict[str, None] = {}

    def watch(self, run: Run) -> Callable[[Row], None]:
        """For `collect`: a function that is called with every row of the run."""

        def see(row: Row) -> None:
            for depth, score in _needles(row) if row.unit == self._unit else ():
                # Of a row only its score is needed, no text.
                protocol = row.protocol if self._unit else ""
                kept = replace(
                    row, edition="", protocol=protocol, metrics={}, outcomes=(), meta={}, references=(), extracted=None
                )
                one = replace(kept, id=f"{row.id} {depth}", score=score)
                self._rows.setdefault((run.id, row.model), []).append((depth, one))
                self.tasks[row.task] = None

        return see

    @property
    def names(self) -> list[str]:
        """Of the bins, from the beginning of the prompt."""
        counts = Counter((*key, row.ctx) for key, rows in self._rows.items() for _, row in rows)
        bins = FINE if min(counts.values(), default=0) >= ENOUGH else COARSE
        return [f"{100 * i // bins}–{100 * (i + 1) // bins} %" for i in range(bins)]

    def cells(self, entrant: Entrant, task: str | None = None) -> Mapping[tuple[str, int], Cell]:
        """(bin, length) -> mean over the needles in it, with its interval; failed answers are counted apart. task: of it alone."""
        names, rows = self.names, self._rows.get((entrant.run.id, entrant.model), [])
        placed = [
            replace(row, task=names[min(int(d * len(names) / 100), len(names) - 1)], metric=METRIC)
            for d, row in rows
            if task in (None, row.task)
        ]
        return {(cell.task, cell.ctx): cell for cell in summarise(placed)}


def _needles(row: Row) -> list[tuple[float, float | None]]:
    """(depth, score) of each place whose score is known; None is that of a failed answer."""
    found: Any = row.meta.get("depth_percent")
    depths: list[Any] = found if isinstance(found, list) else [found]
    if not depths or not all(map(_is_depth, depths)):
        return []
    if len(depths) == 1:
        return [(float(depths[0]), row.score)]
    if len(depths) != len(row.references):
        return []
    if row.failed:
        return [(float(depth), None) for depth in depths]
    if row.unit:
        gains = [one["gain"] for one in row.extracted["references"]]
        return list(zip(depths, gains, strict=False)) if len(gains) == len(depths) else []
    answer = str(row.extracted or "").lower()
    hits = [float(str(reference).lower() in answer) for reference in row.references]
    told = row.score is not None and math.isclose(sum(hits) / len(hits), row.score, abs_tol=1e-6)
    return [(float(depth), hit) for depth, hit in zip(depths, hits, strict=True)] if told else []


def _is_depth(found: object) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool) and 0 <= found <= 100
