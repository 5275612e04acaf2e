"""Scores by the depth of the answer in the prompt, against context length, from rows that say at which one place it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from kleval.store import Row
from kleval.tables.cells import Cell, summarise
from kleval.tables.scores import Entrant, Run

METRIC = "score"  # of whichever task
COARSE, FINE = 5, 10  # bins from the beginning of the prompt to its end
ENOUGH = 100  # rows at every length of every model, for fine bins


class Depths:
    """Collects rows while they go by (`watch`), then gives each model's cells.

    A row counts where its `depth_percent` is one number from 0 to 100: with several needles a score belongs to no one place.
    tasks: that have such rows.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[tuple[float, Row]]] = {}
        self.tasks: dict[str, None] = {}

    def watch(self, run: Run) -> Callable[[Row], None]:
        """For `collect`: a function that is called with every row of the run."""

        def see(row: Row) -> None:
            depth = _depth(row.meta)
            if depth is not None:
                # Of a row only its score is needed, no text.
                kept = replace(
                    row, edition="", protocol="", metrics={}, outcomes=(), meta={}, references=(), extracted=None
                )
                self._rows.setdefault((run.id, row.model), []).append((depth, kept))
                self.tasks[row.task] = None

        return see

    @property
    def names(self) -> list[str]:
        """Of the bins, from the beginning of the prompt."""
        counts = Counter((*key, row.ctx) for key, rows in self._rows.items() for _, row in rows)
        bins = FINE if min(counts.values(), default=0) >= ENOUGH else COARSE
        return [f"{100 * i // bins}–{100 * (i + 1) // bins} %" for i in range(bins)]

    def cells(self, entrant: Entrant) -> Mapping[tuple[str, int], Cell]:
        """(bin, length) -> mean over the samples in it, with its interval; failed answers are counted apart."""
        names, rows = self.names, self._rows.get((entrant.run.id, entrant.model), [])
        placed = [
            replace(row, task=names[min(int(d * len(names) / 100), len(names) - 1)], metric=METRIC) for d, row in rows
        ]
        return {(cell.task, cell.ctx): cell for cell in summarise(placed)}


def _depth(meta: Mapping[str, object]) -> float | None:
    found = meta.get("depth_percent")
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found <= 100:
        return None
    return float(found)
