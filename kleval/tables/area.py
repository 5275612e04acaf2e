"""Area under a score–length curve: the mean score over the logarithm of length, one number for a run over several lengths.

The trapezoid rule on log2(length), divided by the span: 1k to 2k weighs as much as 64k to 128k, and a score that does not depend on
length has that score as its area, whatever the lengths. It is a weighted mean of cells. Where each length has prompts of its own, the
cells are independent and the interval is `cells.mover`'s; where prompts come again at several lengths (FRAMES and Long Code Arena of
the official edition, whose ctx is only room), the ends of the cells' intervals are averaged, which is never too narrow. Areas over
different lengths do not compare; `first`, `last` and `lengths` say which they are of.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass

from kleval.tables.cells import Cell, average, mover
from kleval.text import format_length


@dataclass(frozen=True, slots=True)
class Area:
    """value with its 95 % interval low ... high, in [0, 1]. lengths: how many have a score, `first` and `last` the ends."""

    value: float
    low: float
    high: float
    first: int
    last: int
    lengths: int

    @property
    def span(self) -> str:
        return f"{format_length(self.first)} to {format_length(self.last)}"


def area(cells: Iterable[Cell], again: bool = False) -> Area | None:
    """Of one task's cells, or a family's, one per length. Lengths without a value, or that lack tasks of the family, are left out; None
    where fewer than two are left. again: whether prompts come again at several lengths."""
    whole = sorted((c for c in cells if not c.missing and not math.isnan(c.value)), key=lambda c: c.ctx)
    if len(whole) < 2:
        return None
    at = [math.log2(cell.ctx) for cell in whole]
    ends = [at[0], *at, at[-1]]
    weights = [(ends[i + 2] - ends[i]) / 2 / (at[-1] - at[0]) for i in range(len(at))]
    found = mover(whole, weights, {cell.task for cell in whole} if again else ())
    return Area(found.mean, found.low, found.high, whole[0].ctx, whole[-1].ctx, len(whole))


def area_of_all(cells: Iterable[Cell], again: Collection[str] = ()) -> tuple[Area, tuple[str, ...]] | None:
    """The area of the mean over the tasks that have a value at every length, and these tasks; None where that is not to be had.

    cells: of one model, each task's headline metric. again: tasks whose prompts come again at several lengths. A length at which
    nothing has a value is left out; a task that is skipped at some length (too short for it) has no part in the area, so that every
    length is of the same tasks.
    """
    valued = [cell for cell in cells if not math.isnan(cell.value)]
    ctxs = {cell.ctx for cell in valued}
    lengths: dict[str, set[int]] = {}
    for cell in valued:
        lengths.setdefault(cell.task, set()).add(cell.ctx)
    tasks = {task for task, found in lengths.items() if found == ctxs}
    by_ctx = {ctx: [cell for cell in valued if cell.ctx == ctx and cell.task in tasks] for ctx in ctxs}
    means = (average("", "", ctx, "", group, tasks) for ctx, group in by_ctx.items() if group)
    found = area(means, not tasks.isdisjoint(again))
    return (found, tuple(sorted(tasks))) if found else None


def come_again(prompts: Iterable[tuple[str, Iterable[Hashable]]]) -> frozenset[str]:
    """Tasks with a prompt that is asked at more than one length. prompts: a task and what tells its prompts apart, once per length."""
    found = set()
    for task, of_task in itertools.groupby(sorted(prompts, key=operator.itemgetter(0)), operator.itemgetter(0)):
        seen: set[Hashable] = set()  # of one task at a time
        for _, marks in of_task:
            here = set(marks)
            if not seen.isdisjoint(here):
                found.add(task)
                break
            seen |= here
    return frozenset(found)
