"""Scores by the depth of the answer in the prompt, against context length, from rows that say where it stands."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kleval.store import Row
from kleval.tables.cells import Cell, cells_of
from kleval.tables.groups import Group, GroupKey
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
        self._found: dict[tuple[str, str], dict[tuple[str, int, str], _Needles]] = {}
        self.tasks: dict[str, None] = {}

    def watch(self, run: Run) -> Callable[[Row], None]:
        """For `collect`: a function that is called with every row of the run."""

        def see(row: Row) -> None:
            for depth, score in _needles(row) if row.unit == self._unit else ():
                mine = self._found.setdefault((run.id, row.model), {})
                place = row.task, row.ctx, row.protocol if self._unit else ""
                mine.setdefault(place, _Needles()).add(row, depth, score)
                self.tasks[row.task] = None

        return see

    @property
    def names(self) -> list[str]:
        """Of the bins, from the beginning of the prompt."""
        counts: Counter[tuple[str, str, int]] = Counter()
        for of, places in self._found.items():
            for (_, ctx, _), needles in places.items():
                counts[*of, ctx] += len(needles.samples)
        bins = FINE if min(counts.values(), default=0) >= ENOUGH else COARSE
        return [f"{100 * i // bins}–{100 * (i + 1) // bins} %" for i in range(bins)]

    def cells(self, entrant: Entrant, task: str | None = None) -> Mapping[tuple[str, int], Cell]:
        """(bin, length) -> mean over the needles in it, with its interval; failed answers are counted apart. task: of it alone."""
        names, groups = self.names, dict[GroupKey, Group]()
        for (name, ctx, protocol), needles in self._found.get((entrant.run.id, entrant.model), {}).items():
            for sample, depth, score, failed in needles if task in (None, name) else ():
                at = names[min(int(depth * len(names) / 100), len(names) - 1)]
                group = groups.setdefault((entrant.model, at, ctx, "", protocol), Group(METRIC))
                group.put(f"{sample} {depth}", {} if math.isnan(score) else {METRIC: score}, failed)
        return {(cell.task, cell.ctx): cell for cell in cells_of(dict(sorted(groups.items())))}


class _Needles:
    """Of the rows of one place, as columns: a depth with its score, NaN for none, and whether its answer failed."""

    def __init__(self) -> None:
        self.samples: list[str] = []
        self._depths, self._scores, self._failed = array("d"), array("d"), bytearray()

    def add(self, row: Row, depth: float, score: float | None) -> None:
        self.samples.append(row.id)
        self._depths.append(depth)
        self._scores.append(math.nan if score is None else score)
        self._failed.append(row.failed)

    def __iter__(self) -> Iterator[tuple[str, float, float, bool]]:
        return zip(self.samples, self._depths, self._scores, map(bool, self._failed), strict=True)


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
