"""Entrants of a comparison: every model of every run, with its cells, averages and per-sample scores.

An entrant is one model in one run, and one line in every figure. Runs are never pooled: the same model in two runs is
two entrants, told apart by the run's name, and `conflicts` says in words why two entrants cannot be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kleval.files import family_facts
from kleval.store import Row, RunStore
from kleval.store.manifest import value_at
from kleval.tables.area import come_again
from kleval.tables.bins import means_of_bins
from kleval.tables.cells import FAMILY_METRIC, Cell, average, cells_of, families, has_mean
from kleval.tables.groups import Asked, ByPlace, Group, Place, grouped
from kleval.text import digest, moment
from kleval.types import UsageError

EVERYTHING = "everything asked"  # the task of the mean over all tasks of a model

Watch = Callable[[Row], None]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run directory's manifest, read without trusting that every field is there.

    id: told from those of other runs. title: for people, what they called it, else the id.
    """

    id: str
    title: str
    store: RunStore
    manifest: Mapping[str, Any]
    status: str

    def get(self, *path: str, default: Any = None) -> Any:
        """The manifest's value at a path of keys; default where it ends early or holds null."""
        return value_at(self.manifest, path, default)

    def setting(self, name: str) -> Any:
        """An option of the command: seed, temperature, repeats, limit, suite, ..."""
        for place in (("generation", name), ("spec", name), ("settings", name), ("seeds", name)):
            value = self.get(*place)
            if value is not None:
                return value
        return None

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Names that stand for several of the run's tasks and have a mean over them."""
        found: Mapping[str, Sequence[str]] = self.get("spec", "groups", default={})
        return found

    @property
    def complete(self) -> bool:
        return self.status == "complete"


@dataclass(frozen=True, slots=True, eq=False)
class Entrant:
    """One model in one run.

    cells: headline metric by (task, ctx), of scores in [0, 1]. others: cells of the further metrics. averages: by (family, ctx).
    overall: by ctx, the unweighted mean over all tasks that were asked at any length; without the lengths at which none has a value.
    groups: its rows as columns. Made of them by (task, ctx), when asked for: scores, sample key -> mean score of its repeats (a key is
    the id and the mark of the prompt: the same text was asked); ids: the sample ids alone; answers: of each sample its repeats.
    gains: the same model in the same run with what has a unit (`cells.Cell.unit`) in the place of scores, so that the two are never
    averaged, drawn or ranked together; None where there is none.
    failures: (kind, message) -> places, one per failed answer. temperatures: what the requests were sampled at.
    """

    key: str
    label: str
    model: str
    run: Run
    cells: Mapping[Place, Cell]
    others: tuple[Cell, ...]
    averages: Mapping[Place, Cell]
    overall: Mapping[int, Cell]
    groups: Mapping[Place, Group]
    scores: Mapping[Place, Mapping[tuple[str, int], float]]
    ids: Mapping[Place, frozenset[str]]
    answers: Mapping[Place, Mapping[str, Sequence[Asked]]]
    failures: Mapping[tuple[str, str], tuple[Place, ...]]
    temperatures: tuple[float, ...]
    gains: Entrant | None = None

    @property
    def about(self) -> Mapping[str, Any]:
        """The manifest's entry of the model: backend, tokenizer, describe."""
        return self.run.get("models", self.model, default={})

    def described(self, name: str) -> Any:
        """What the backend said about itself (dtype, device, weights digest, ...), None where it did not."""
        described = self.about.get("describe")
        return described.get(name) if isinstance(described, Mapping) else None

    @property
    def temperature(self) -> float | str | None:
        """The one temperature of all requests, else all of them as text."""
        if len(self.temperatures) > 1:
            return " ".join(str(t) for t in self.temperatures)
        return self.temperatures[0] if self.temperatures else self.run.setting("temperature")

    @property
    def again(self) -> frozenset[str]:
        """Tasks with a prompt that is asked at more than one length."""
        return come_again((task, group.prompts) for (task, _), group in self.groups.items())

    def scored_at(self, ctx: int) -> frozenset[str]:
        """Tasks with a value at a length, which its `overall` there is the mean of."""
        return frozenset(task for (task, at), cell in self.cells.items() if at == ctx and cell.n_scored)

    def task(self, task: str) -> Mapping[str, Any]:
        """The manifest's entry of a task: version, edition, protocol, data_revision, data_digest."""
        return self.run.get("tasks", task, default={})


def collect(runs: Sequence[RunStore], watch: Callable[[Run], Watch] | None = None) -> list[Entrant]:
    """Every model of the runs, in the runs' order and, within one, that of its models.

    watch: called once per run, gives a function that is called with each of its rows as they are read, once.
    UsageError when there is no run, or no run that holds an answer or a skip.
    """
    if not runs:
        raise UsageError("no run given: name at least one run directory, see kleval ls runs")
    found: list[tuple[Run, str, list[Cell], list[tuple[Place, Group]]]] = []
    for store, (name, title) in zip(runs, names_of(runs), strict=True):
        run = Run(name, title, store, store.manifest, store.status)
        groups = grouped(_seen(store.rows(), watch(run) if watch else None), run.get("skips", default=[]))
        cells = cells_of(groups)
        cells += means_of_bins(cells)
        order = {model: i for i, model in enumerate(run.get("models", default={}))}
        for model in sorted({cell.model for cell in cells}, key=lambda m, o=order: (o.get(m, len(o)), m)):  # type: ignore[misc]
            mine = [((task, ctx), group) for (name, task, ctx, *_), group in groups.items() if name == model]
            found.append((run, model, [c for c in cells if c.model == model], mine))
    if not found:
        where = ", ".join(str(store.path) for store in runs)
        raise UsageError(f"{where} has no answers yet: run its command again to continue it")
    counts = Counter(model for _, model, _, _ in found)
    mixed = len({cell.edition for _, _, cells, _ in found for cell in cells}) > 1
    entrants = []
    for i, (run, model, cells, mine) in enumerate(found):
        failures: dict[tuple[str, str], tuple[Place, ...]] = {}
        for place, group in mine:
            for what, n in group.failures.items():
                failures[what] = failures.get(what, ()) + (place,) * n
        entrants.append(
            Entrant(
                key=f"m{i}",
                label=(model if counts[model] == 1 else f"{model} · {run.title}") + (_editions(cells) if mixed else ""),
                model=model,
                run=run,
                failures=failures,
                temperatures=tuple(sorted(set().union(*(group.temperatures for _, group in mine)))),
                **_of_unit(run, model, cells, mine, measured=False),
            )
        )
        if any(cell.unit for cell in cells):
            gains = replace(entrants[-1], **_of_unit(run, model, cells, mine, measured=True))
            entrants[-1] = replace(entrants[-1], gains=gains)
    return entrants


def _of_unit(
    run: Run, model: str, all_cells: Sequence[Cell], groups: Sequence[tuple[Place, Group]], measured: bool
) -> dict[str, Any]:
    """An entrant's cells and what is made of them: those that have a unit, or those that are scores."""
    cells = [cell for cell in all_cells if bool(cell.unit) == measured]
    places = {(cell.task, cell.ctx) for cell in cells}
    mine = {place: group for place, group in groups if place in places and group.samples}
    return {
        "cells": {(c.task, c.ctx): c for c in cells if c.headline},
        "others": tuple(c for c in cells if not c.headline),
        "averages": {(c.task, c.ctx): c for c in families(cells, run.groups)},
        "overall": {c.ctx: c for c in _overall(model, [c for c in cells if c.headline])},
        "groups": mine,
        "scores": ByPlace(Group.scores, {place: group for place, group in mine.items() if group.scored}),
        "ids": ByPlace(lambda group: frozenset(group.samples), mine),
        "answers": ByPlace(Group.answers, {place: group for place, group in groups if group.samples}),
    }


def names_of(stores: Sequence[RunStore]) -> list[tuple[str, str]]:
    """(id, title) of each. id: its directory's name, numbered where several have one; title: the name that it was given, with when it
    began where several have one, else the id."""
    counts = Counter(store.title for store in stores if store.manifest["title"])
    seen: Counter[str] = Counter()
    found = []
    for store in stores:
        seen[store.name] += 1
        name = store.name + (f" ({seen[store.name]})" if seen[store.name] > 1 else "")
        given = store.title if counts[store.title] < 2 else f"{store.title} {moment(store.manifest['started'])}"
        found.append((name, given if store.manifest["title"] else name))
    return found


def _overall(model: str, cells: Sequence[Cell]) -> Iterator[Cell]:
    for ctx in sorted({cell.ctx for cell in cells}):
        group = [cell for cell in cells if cell.ctx == ctx]
        editions = ", ".join(dict.fromkeys(cell.edition for cell in group))
        mean = average(model, EVERYTHING, ctx, editions, group, {cell.task for cell in cells})
        if mean.value == mean.value:
            yield mean


def _editions(cells: Sequence[Cell]) -> str:
    return f" ({', '.join(dict.fromkeys(cell.edition for cell in cells))})"


def _seen(rows: Iterable[Row], watch: Watch | None) -> Iterator[Row]:
    for row in rows:
        if watch is not None:
            watch(row)
        yield row


def members(name: str, entrant: Entrant, tasks: Iterable[str]) -> list[str]:
    """Those of `tasks` that an average is over: of a group that the run names, else of a family."""
    group = entrant.run.groups.get(name)
    return [task for task in tasks if (task in group if group is not None else task.startswith(f"{name}/"))]


def expected_tasks(family: str, average: Cell) -> int:
    """How many tasks a family's average has to cover: all that it says it has, of one that says nothing those of the run."""
    return _n_tasks(family) or average.n_tasks + len(average.missing)


def column_tasks(cell: Cell) -> tuple[int, int]:
    """How many tasks of its family a column's cell is over, an average or a single task, and how many there are."""
    if cell.metric == FAMILY_METRIC:
        return cell.n_tasks, expected_tasks(cell.task, cell)
    return 1, _n_tasks(cell.task.split("/", 1)[0]) or 1


def _n_tasks(family: str) -> int:
    """Of a family with a mean, as its card lists them."""
    return len(family_facts(family).get("tasks", ())) if has_mean(family) else 0


def conflicts(a: Entrant, b: Entrant) -> list[str]:
    """Why scores of a and b are not comparable, one line per setting; empty when they are."""
    if a.run is b.run:
        return []
    tasks = [task for task in a.run.get("tasks", default={}) if task in b.run.get("tasks", default={})]
    reasons = questions_differ(a, b)
    said = [text if len(of) == len(tasks) else f"{text} ({', '.join(of)})" for text, of in reasons.items()]
    return said + sampling_differs(a, b)


def questions_differ(a: Entrant, b: Entrant) -> dict[str, list[str]]:
    """What differs in the questions and their scoring -> the tasks that both runs have and that it differs for."""
    reasons: dict[str, list[str]] = {}
    for task in a.run.get("tasks", default={}):
        if task not in b.run.get("tasks", default={}):
            continue
        for name in ("edition", "protocol", "version", "data_revision", "data_digest"):
            one, other = a.task(task).get(name), b.task(task).get(name)
            if one != other:
                reasons.setdefault(versus(name, one, other), []).append(task)
    return reasons


def sampling_differs(a: Entrant, b: Entrant) -> list[str]:
    """What differs in how answers were sampled, one line per setting."""
    pairs = {name: (a.run.setting(name), b.run.setting(name)) for name in ("seed", "top_p", "repeats")}
    pairs["temperature"] = (a.temperature, b.temperature)
    return [versus(name, one, other) for name, (one, other) in pairs.items() if one != other]


def versus(name: str, one: Any, other: Any) -> str:
    """`data digest 0123456789ab against 89ab01234567`"""
    return f"{name.replace('_', ' ')} {digest(one)} against {digest(other)}"
