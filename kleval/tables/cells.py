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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kleval.tables.answers import condition
from kleval.tables.intervals import Interval, interval

NO_MEAN = {"lca", "lm_eval", "short", "code"}
FAMILY_METRIC = "average"


class RowLike(Protocol):
    """What summarise reads of a row; `kleval.store.Row` has all of it."""

    @property
    def model(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def ctx(self) -> int: ...
    @property
    def edition(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def score(self) -> float | None: ...
    @property
    def metrics(self) -> Mapping[str, float | None]: ...
    @property
    def failure(self) -> Mapping[str, Any] | None: ...
    @property
    def outcomes(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def references(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Cell:
    """One number: a model on a task at a length, in one metric. Values lie in [0, 1]; NaN is "not scored".

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

    @property
    def broken(self) -> bool:
        return bool(self.n_cut or self.n_empty or self.n_looped or self.n_reasoning_cut)

    @property
    def degenerate(self) -> bool:
        """Whether every answer, of two or more, is empty or a loop."""
        return 2 <= self.n_texts <= self.n_empty + self.n_looped


GroupKey = tuple[str, str, int, str, str]  # model, task, ctx, edition, protocol


@dataclass(slots=True)
class _Group:
    headline: str
    answers: dict[str, list[Mapping[str, float]]]  # sample id -> one entry per repeat; empty for no score
    metrics: set[str]
    broken: set[tuple[str, int]] = field(default_factory=set)  # (sample id, place among its repeats)
    n_total: int = 0
    n_failed: int = 0
    n_skipped: int = 0
    n_texts: int = 0
    n_cut: int = 0
    n_empty: int = 0
    n_looped: int = 0
    n_reasoning_cut: int = 0


def summarise(rows: Iterable[RowLike], skips: Iterable[Mapping[str, Any]] = (), seed: int = 0) -> list[Cell]:
    """One Cell per (model, task, ctx, metric, edition, protocol), ordered by model, task, ctx, headline metric first.

    rows: one per (model, sample, repeat), as RunStore.rows() gives them; only their scores are kept in memory.
    skips: the manifest's `skips`; each makes a cell without a value, so that nothing that was asked for disappears.
    """
    groups: dict[GroupKey, _Group] = {}
    for row in rows:
        key = (row.model, row.task, row.ctx, row.edition, row.protocol)
        group = groups.setdefault(key, _Group(row.metric, {}, {row.metric}))
        values = {} if row.failure is not None else _values(row)
        group.metrics.update(values)
        repeats = group.answers.setdefault(row.id, [])
        found = condition(row.outcomes, row.references)
        if found.broken:
            group.broken.add((row.id, len(repeats)))
        group.n_texts += found.asked
        group.n_cut += found.cut
        group.n_empty += found.empty
        group.n_looped += found.looped
        group.n_reasoning_cut += found.reasoning_cut
        repeats.append(values)
        group.n_total += 1
        group.n_failed += row.failure is not None
    for skip in skips:
        key = (skip["model"], skip["task"], skip["ctx"], skip["edition"], skip["protocol"])
        group = groups.setdefault(key, _Group(skip["metric"], {}, {skip["metric"]}))
        group.n_skipped += skip["n"]
    cells = []
    for key in sorted(groups):
        group = groups[key]
        others = sorted(group.metrics - {group.headline})
        cells += [_cell(key, group, metric, seed) for metric in (group.headline, *others)]
    return cells


def _values(row: RowLike) -> dict[str, float]:
    values = {name: value for name, value in row.metrics.items() if value is not None and not math.isnan(value)}
    if row.score is not None and not math.isnan(row.score):
        values[row.metric] = row.score
    return values


def _cell(key: GroupKey, group: _Group, metric: str, seed: int) -> Cell:
    model, task, ctx, edition, protocol = key
    means: list[float] = []
    lows: list[float] = []
    highs: list[float] = []
    n_scored = n_completed = 0
    completed: list[float] = []
    for sample, repeats in group.answers.items():
        values = [answer[metric] for answer in repeats if metric in answer]
        if values:
            means.append(math.fsum(values) / len(values))
        whole = [a[metric] for i, a in enumerate(repeats) if metric in a and (sample, i) not in group.broken]
        if whole:
            completed.append(math.fsum(whole) / len(whole))
        n_completed += len(whole)
        n_scored += len(values)
        missing = len(repeats) - len(values)
        lows.append(math.fsum(values) / len(repeats))
        highs.append((math.fsum(values) + missing) / len(repeats))
    ci = interval(means, seed)
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
        n_total=group.n_total,
        n_scored=n_scored,
        n_failed=group.n_failed,
        n_skipped=group.n_skipped,
        bound_low=_mean(lows),
        bound_high=_mean(highs),
        n_samples=len(means),
        headline=metric == group.headline,
        n_texts=group.n_texts,
        n_cut=group.n_cut,
        n_empty=group.n_empty,
        n_looped=group.n_looped,
        n_reasoning_cut=group.n_reasoning_cut,
        n_completed=n_completed,
        value_completed=_mean(completed),
    )


def families(cells: Iterable[Cell], groups: Mapping[str, Sequence[str]] | None = None) -> list[Cell]:
    """The unweighted mean over the tasks of each family (`ruler` for `ruler/...`), per model, ctx and edition.

    Families in NO_MEAN have none: their tasks are columns of their own. groups: further names and their tasks, with a mean
    that weighs each task by its samples, as lm-eval's groups (`weight_by_size`) have.

    Takes headline cells and leaves the others; a family of which only one task was run gets no mean. Tasks without a
    value at a ctx (skipped, or every answer failed) are left out of the mean there and named in `missing`; those with
    failures still widen the bounds. metric is FAMILY_METRIC; the interval is `mover`.
    """
    named = groups or {}
    members: dict[tuple[str, str, str], dict[int, list[Cell]]] = {}
    for cell in cells:
        if not (cell.headline and "/" in cell.task and cell.n_tasks == 1):
            continue
        family = cell.task.split("/", 1)[0]
        names = [name for name, tasks in named.items() if cell.task in tasks]
        for name in names if family in NO_MEAN else [family, *names]:
            members.setdefault((cell.model, name, cell.edition), {}).setdefault(cell.ctx, []).append(cell)
    means = []
    for (model, family_name, edition), by_ctx in sorted(members.items()):
        tasks = {cell.task for group in by_ctx.values() for cell in group}
        if len(tasks) > 1:
            means += [
                _family_cell(model, family_name, ctx, edition, group, tasks, by_size=family_name in named)
                for ctx, group in sorted(by_ctx.items())
            ]
    return means


def _family_cell(
    model: str, family: str, ctx: int, edition: str, group: Sequence[Cell], tasks: set[str], by_size: bool
) -> Cell:
    present = [cell for cell in group if not math.isnan(cell.value)]
    asked = [cell for cell in group if cell.n_total]
    whole = [cell for cell in group if cell.n_completed]
    protocols = {cell.protocol for cell in group}
    ci = mover(present, [cell.n_samples for cell in present] if by_size else None)
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
        n_total=sum(cell.n_total for cell in group),
        n_scored=sum(cell.n_scored for cell in group),
        n_failed=sum(cell.n_failed for cell in group),
        n_skipped=sum(cell.n_skipped for cell in group),
        bound_low=_weighted([cell.bound_low for cell in asked], [cell.n_total if by_size else 1 for cell in asked]),
        bound_high=_weighted([cell.bound_high for cell in asked], [cell.n_total if by_size else 1 for cell in asked]),
        n_samples=sum(cell.n_samples for cell in present),
        n_tasks=len(present),
        missing=tuple(sorted(tasks - {cell.task for cell in present})),
        n_texts=sum(cell.n_texts for cell in group),
        n_cut=sum(cell.n_cut for cell in group),
        n_empty=sum(cell.n_empty for cell in group),
        n_looped=sum(cell.n_looped for cell in group),
        n_reasoning_cut=sum(cell.n_reasoning_cut for cell in group),
        n_completed=sum(cell.n_completed for cell in group),
        value_completed=_weighted(
            [cell.value_completed for cell in whole], [cell.n_completed if by_size else 1 for cell in whole]
        ),
    )


def mover(cells: Sequence[Cell], weights: Sequence[float] | None = None) -> Interval:
    """Mean of independent cells and its interval by square-and-add; `none` for no cells. weights: of the cells, equal unless given."""
    if not cells:
        return Interval(math.nan, math.nan, math.nan, "none")
    shares = [w / math.fsum(weights) for w in weights] if weights else [1 / len(cells)] * len(cells)
    mean = math.fsum(share * cell.value for share, cell in zip(shares, cells, strict=True))
    down = math.sqrt(math.fsum((s * (c.value - c.ci_low)) ** 2 for s, c in zip(shares, cells, strict=True)))
    up = math.sqrt(math.fsum((s * (c.ci_high - c.value)) ** 2 for s, c in zip(shares, cells, strict=True)))
    return Interval(mean, max(mean - down, 0.0), min(mean + up, 1.0), "mover")


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights) if values else math.nan


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
