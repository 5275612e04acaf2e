"""Mean over the lengths in which a data set is published, each weighing the same however many of its rows were asked.

MRCR at 1M is, as labs report it, the mean of its eight bins from 4k to 1M tokens. A task's score at a ctx is over all rows that fit
into ctx, so that a limit, or rows left out, shifts it towards some lengths. Here the cells of the bins (`match 4k-8k`) are averaged;
they share no row, and the interval is `cells.mover`'s. A mean that lacks bins says so in its name: it compares with no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kleval.files import family_facts
from kleval.tables.cells import Cell, mover
from kleval.text import plural

_MEAN = ", mean of "


def bins_of(task: str) -> Sequence[str]:
    """The lengths in which the data of the task's family are published, as its card has them, and its metrics are named after."""
    found: Sequence[str] = family_facts(task.partition("/")[0]).get("bins", ())
    return found


def means_of_bins(cells: Iterable[Cell]) -> list[Cell]:
    """A side cell per task and length with a score in two bins or more; missing: the bins without one. Failed answers lie in no bin, so
    that it has no bounds.

    cells: with those of the bins, as `cells.cells_of` gives them."""
    found: dict[tuple[str, str, int, str, str], dict[str, Cell]] = {}
    headlines: dict[tuple[str, str, int, str, str], Cell] = {}
    for cell in cells:
        key = (cell.model, cell.task, cell.ctx, cell.edition, cell.protocol)
        if cell.headline:
            headlines[key] = cell
        name = cell.metric.rpartition(" ")[2]
        if name in bins_of(cell.task) and not math.isnan(cell.value):
            found.setdefault(key, {})[name] = cell
    return [_mean(headlines[key], bins) for key, bins in found.items() if len(bins) > 1 and key in headlines]


def _mean(of: Cell, bins: dict[str, Cell]) -> Cell:
    wanted = bins_of(of.task)
    ci = mover(list(bins.values()))
    whole = [cell for cell in bins.values() if cell.n_completed]
    count = f"{len(wanted)} bins" if len(bins) == len(wanted) else f"{len(bins)} of {len(wanted)} bins"
    return replace(
        of,
        metric=f"{of.metric}{_MEAN}{count}",
        headline=False,
        value=ci.mean,
        ci_low=ci.low,
        ci_high=ci.high,
        ci_method=ci.method,
        n_scored=sum(cell.n_scored for cell in bins.values()),
        n_samples=sum(cell.n_samples for cell in bins.values()),
        bound_low=math.nan,
        bound_high=math.nan,
        missing=tuple(name for name in wanted if name not in bins),
        n_completed=sum(cell.n_completed for cell in whole),
        value_completed=math.fsum(cell.value_completed for cell in whole) / len(whole) if whole else math.nan,
    )


def in_words(cells: Iterable[Cell]) -> list[str]:
    """A line per task on the mean at its longest length, of one model's cells with `means_of_bins` among them."""
    longest: dict[str, Cell] = {}
    for cell in sorted(cells, key=lambda cell: cell.ctx):
        if _MEAN in cell.metric and cell.metric.endswith(" bins"):
            longest[cell.task] = cell
    return [_said(cell) for cell in longest.values()]


def _said(cell: Cell) -> str:
    bins = bins_of(cell.task)
    limits = f"{100 * cell.value:.1f} [{100 * cell.ci_low:.0f}, {100 * cell.ci_high:.0f}], n = {cell.n_samples}"
    if not cell.missing:
        return f"{cell.task}, mean of its {len(bins)} length bins, {bins[0]} to {bins[-1]}: {limits}"
    has = plural(len(bins) - len(cell.missing), "length bin")
    return f"{cell.task}, mean of {has} of {len(bins)}, not the published number: {limits}; no score in {', '.join(cell.missing)}"
