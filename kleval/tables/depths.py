"""Scores by the depth of the answer in the prompt, against context length, from rows that say at which one place it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kleval.store import Row
from kleval.tables.cells import Cell, summarise
from kleval.tables.scores import Entrant, Run

BINS = 5
METRIC = "score"


class Depths:
    """Collects rows while they go by (`watch`), then gives each model's cells.

    A row counts where its `depth_percent` is one number from 0 to 100: with several needles a score belongs to no one place.
    names: of the bins, from the beginning of the prompt. tasks: that have such rows.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[Row]] = {}
        self.tasks: dict[str, None] = {}
        self.names = [f"{100 * i // BINS}–{100 * (i + 1) // BINS} %" for i in range(BINS)]

    def watch(self, run: Run) -> Callable[[Row], None]:
        """For `collect`: a function that is called with every row of the run."""

        def see(row: Row) -> None:
            depth = _depth(row.meta)
            if depth is not None:
                name = self.names[min(int(depth * BINS / 100), BINS - 1)]
                # Without texts: of a row only its score is needed.
                kept = replace(row, task=name, edition="", protocol="", metric=METRIC, metrics={}, outcomes=(), meta={})
                self._rows.setdefault((run.id, row.model), []).append(replace(kept, references=(), extracted=None))
                self.tasks[row.task] = None

        return see

    def cells(self, entrant: Entrant) -> Mapping[tuple[str, int], Cell]:
        """(bin, length) -> mean over the samples in it, with its interval; failed answers are counted apart."""
        return {(c.task, c.ctx): c for c in summarise(self._rows.get((entrant.run.id, entrant.model), []))}


def _depth(meta: Mapping[str, object]) -> float | None:
    found = meta.get("depth_percent")
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found <= 100:
        return None
    return float(found)
