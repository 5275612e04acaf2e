"""Scores of cells: stored rows as one number with an interval per task, length and metric, and per family.

A cell's interval is `kleval.tables.intervals`'s. A family's mean over its tasks has `mover`: the tasks' intervals are
combined by "square and add" (Zou & Donner 2008, Newcombe 1998), which keeps their asymmetry:
low = m - sqrt(sum (v_i - l_i)^2) / k, high likewise.

Repeats of one sample are averaged first and the sample is the unit of every interval, so that asking five times does
not pretend to be five samples. A failure is never a wrong answer: it leaves the mean, and the two bounds say what the
mean would be if every answer that is missing were wrong, or right.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kleval.files import family_facts
from kleval.store import Row
from kleval.tables.answers import BROKEN
from kleval.tables.groups import BROKEN as IS_BROKEN
from kleval.tables.groups import Group, GroupKey, grouped
from kleval.tables.intervals import Interval, interval, open_interval, square_and_add
from kleval.types import unit_of

FAMILY_METRIC = "average"


# What a cell counts: answers, and of them what `tables.answers` finds amiss.
COUNTS = ("n_total", "n_failed", "n_skipped", "n_texts", *(f"n_{name}" for name in BROKEN))


@dataclass(frozen=True, slots=True)
class Cell:
    """One number: a model on a task at a length, in one metric. Values lie in [0, 1]; NaN is "not scored".

    unit: what values are in that have no ends (`kleval.types.unit_of`), as those of a paired likelihood: their bounds are NaN where an
    answer failed, since nothing bounds what it might have been.
    n_total: answers that have a row (samples x repeats); n_failed of them have no answer, n_scored have a value.
    n_skipped: answers that were never asked for, because the task does not fit into ctx.
    n_samples: distinct samples among the scored ones, the n of the interval.
    headline: whether this is the task's main metric.
    n_tasks: 1, or for a family's mean the tasks it averages; missing: tasks of the family without a value at this ctx.
    n_texts: answers that are texts (failed ones among them); n_cut, n_empty, n_looped, n_reasoning_cut of them are broken
    (`tables.answers`), perhaps in several ways.
    value_completed: the mean over answers with a value that are not broken, n_completed of them.
    """

    model: str
    task: str
    ctx: int
    metric: str
    edition: str
    protocol: str
    value: float
    ci_low: float
    ci_high: float
    ci_method: str
    n_total: int
    n_scored: int
    n_failed: int
    n_skipped: int
    bound_low: float
    bound_high: float
    n_samples: int
    headline: bool = True
    n_tasks: int = 1
    missing: tuple[str, ...] = ()
    n_texts: int = 0
    n_cut: int = 0
    n_empty: int = 0
    n_looped: int = 0
    n_reasoning_cut: int = 0
    n_completed: int = 0
    value_completed: float = math.nan
    unit: str = ""

    @property
    def broken(self) -> bool:
        return any(getattr(self, f"n_{name}") for name in BROKEN)

    @property
    def degenerate(self) -> bool:
        """Whether every answer, of three or more, is a loop to its end: a weak model writes one now and then."""
        return 3 <= self.n_texts == self.n_looped


def summarise(rows: Iterable[Row], skips: Iterable[Mapping[str, Any]] = (), seed: int = 0) -> list[Cell]:
    """One Cell per (model, task, ctx, metric, edition, protocol), ordered by model, task, ctx, headline metric first.

    rows: one per (model, sample, repeat), as RunStore.rows() gives them. skips: as `grouped` takes them.
    """
    return cells_of(grouped(rows, skips), seed)


def cells_of(groups: Mapping[GroupKey, Group], seed: int = 0) -> list[Cell]:
    """The cells of groups, in their order."""
    cells = []
    for key, group in groups.items():
        repeats = group.repeats()
        cells += [_cell(key, group, list(repeats.values()), metric, seed) for metric in group.metrics]
    return cells


def _cell(key: GroupKey, group: Group, repeats: Sequence[Sequence[int]], metric: str, seed: int) -> Cell:
    """repeats: where the answers of each sample stand."""
    model, task, ctx, edition, protocol = key
    unit = unit_of(protocol)
    means: list[float] = []
    lows: list[float] = []
    highs: list[float] = []
    n_scored = n_completed = 0
    completed: list[float] = []
    column, flags = group.column(metric), group.flags
    for at in repeats:
        values = [column[i] for i in at if column[i] == column[i]]
        whole = [column[i] for i in at if column[i] == column[i] and not flags[i] & IS_BROKEN]
        if values:
            means.append(_mean(values))
        if whole:
            completed.append(_mean(whole))
        n_completed += len(whole)
        n_scored += len(values)
        missing, total = len(at) - len(values), math.fsum(values)
        # Nothing bounds gains that were not measured; a metric beside the headline may not hold for a sample at all.
        unknown = bool(missing and (unit or metric != group.headline))
        lows.append(math.nan if unknown else total / len(at))
        highs.append(math.nan if unknown else (total + missing) / len(at))
    ci = open_interval(means, seed) if unit else interval(means, seed)
    counts: dict[str, Any] = {name: group.counts[name] for name in COUNTS}
    return Cell(
        model=model,
        task=task,
        ctx=ctx,
        metric=metric,
        edition=edition,
        protocol=protocol,
        value=ci.mean,
        ci_low=ci.low,
        ci_high=ci.high,
        ci_method=ci.method,
        n_scored=n_scored,
        bound_low=_mean(lows),
        bound_high=_mean(highs),
        n_samples=len(means),
        headline=metric == group.headline,
        n_completed=n_completed,
        value_completed=_mean(completed),
        unit=unit,
        **counts,
    )


def has_mean(family: str) -> bool:
    """Whether a family's tasks have a mean: `mean` of what it says of itself."""
    return bool(family_facts(family).get("mean", True))


def families(cells: Iterable[Cell], groups: Mapping[str, Sequence[str]] | None = None) -> list[Cell]:
    """The unweighted mean over the tasks of each family (`ruler` for `ruler/...`), per model, ctx and edition.

    Of those that have one (`has_mean`): the tasks of the others are columns of their own. groups: further names and their tasks,
    with a mean that weighs each task by its samples, as lm-eval's groups (`weight_by_size`) have.

    Takes headline cells and leaves the others; a mean is over cells of one unit. A family of which only one task was run gets no
    mean. Tasks without a value at a ctx (skipped, or every answer failed) are left out of the mean there and named in `missing`; those
    with failures still widen the bounds. metric is FAMILY_METRIC; the interval is `mover`.
    """
    named = groups or {}
    members: dict[tuple[str, str, str, str], dict[int, list[Cell]]] = {}
    for cell in cells:
        if not (cell.headline and "/" in cell.task and cell.n_tasks == 1):
            continue
        family = cell.task.split("/", 1)[0]
        names = [name for name, tasks in named.items() if cell.task in tasks]
        for name in [family, *names] if has_mean(family) else names:
            members.setdefault((cell.model, name, cell.edition, cell.unit), {}).setdefault(cell.ctx, []).append(cell)
    means = []
    for (model, family_name, edition, _), by_ctx in sorted(members.items()):
        tasks = {cell.task for group in by_ctx.values() for cell in group}
        if len(tasks) > 1:
            means += [
                average(model, family_name, ctx, edition, group, tasks, by_size=family_name in named)
                for ctx, group in sorted(by_ctx.items())
            ]
    return means


def average(
    model: str, family: str, ctx: int, edition: str, group: Sequence[Cell], tasks: set[str], by_size: bool = False
) -> Cell:
    """The mean over the cells of several tasks at one length, under a family's name. tasks: that it should cover."""
    present = [cell for cell in group if not math.isnan(cell.value)]
    protocols = {cell.protocol for cell in group}
    ci = mover(present, [cell.n_samples for cell in present] if by_size else None)

    counts: dict[str, Any] = {
        name: sum(getattr(cell, name) for cell in group) for name in (*COUNTS, "n_scored", "n_samples", "n_completed")
    }

    def mean(name: str, size: str) -> float:
        """Over the tasks that have any of it."""
        some = [cell for cell in group if getattr(cell, size)]
        weights = [getattr(cell, size) if by_size else 1 for cell in some]
        values = [weight * getattr(cell, name) for cell, weight in zip(some, weights, strict=True)]
        return math.fsum(values) / math.fsum(weights) if some else math.nan

    return Cell(
        model=model,
        task=family,
        ctx=ctx,
        metric=FAMILY_METRIC,
        edition=edition,
        protocol=protocols.pop() if len(protocols) == 1 else "mixed",
        value=ci.mean,
        ci_low=ci.low,
        ci_high=ci.high,
        ci_method=ci.method,
        bound_low=mean("bound_low", "n_total"),
        bound_high=mean("bound_high", "n_total"),
        n_tasks=len(present),
        missing=tuple(sorted(tasks - {cell.task for cell in present})),
        value_completed=mean("value_completed", "n_completed"),
        unit=group[0].unit,
        **counts,
    )


def mover(cells: Sequence[Cell], weights: Sequence[float] | None = None, again: Collection[str] = ()) -> Interval:
    """Mean of cells of one unit, its interval by square-and-add; `none` for no cells.

    weights: equal unless given. again: tasks whose cells, at several lengths, are of the same questions; all others are independent.
    """
    if not cells:
        return Interval(math.nan, math.nan, math.nan, "none")
    keys = [cell.task if cell.task in again else i for i, cell in enumerate(cells)]
    mean, low, high = square_and_add([(cell.value, cell.ci_low, cell.ci_high) for cell in cells], weights, keys)
    if cells[0].unit:
        return Interval(mean, low, high, "mover")
    return Interval(mean, max(low, 0.0), min(high, 1.0), "mover")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
