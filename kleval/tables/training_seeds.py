"""Trainings of one recipe that differ in their seed alone, told from `training` in run.json, and their averages over the seeds.

An interval over samples says what other questions would change; one over seeds, what another training would. With few seeds the second
is wide (Student's t; 12.7 standard errors of two seeds): it is the one that a claim about an architecture needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kleval.tables.cells import Cell
from kleval.tables.columns import column_rows
from kleval.tables.intervals import open_interval
from kleval.tables.scores import EVERYTHING, Entrant, conflicts

COLUMNS_MEAN = "the paper's eight columns"
# What a training says of itself that a seed changes, or that is no part of what was asked for.
_OWN = frozenset({"seed", "loss", "hardware", "device", "parameters"})


@dataclass(frozen=True, slots=True)
class _Mean:
    """value: with its interval over samples. asked: tasks with the number of their answers, and of those that failed."""

    value: tuple[float, float, float]
    asked: frozenset[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Seeds:
    """Entrants of one architecture and recipe by their training seed, two or more, all asked the same."""

    name: str
    entrants: Mapping[int, Entrant]


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """An average at one length over training seeds. values: by seed, with the interval over samples. mean: with its interval over
    seeds, cut to [0, 1]."""

    name: str
    what: str
    ctx: int
    values: Mapping[int, tuple[float, float, float]]
    mean: float
    low: float
    high: float


def by_recipe(entrants: Sequence[Entrant]) -> list[Seeds]:
    """Groups with two seeds or more, in the entrants' order. Of several runs of one seed the first counts; what was not asked the same
    as the group's first is left out."""
    found: dict[str, dict[int, Entrant]] = {}
    for e in entrants:
        made = e.described("training")
        if not (isinstance(made, Mapping) and isinstance(made.get("seed"), int) and e.overall):
            continue
        same = found.setdefault(json.dumps({k: made[k] for k in made.keys() - _OWN}, sort_keys=True), {})
        if not (same and conflicts(next(iter(same.values())), e)):
            same.setdefault(made["seed"], e)
    several = {recipe: same for recipe, same in found.items() if len(same) > 1}
    names = _names({recipe: next(iter(same.values())) for recipe, same in several.items()})
    return [Seeds(names[recipe], dict(sorted(same.items()))) for recipe, same in several.items()]


def over_seeds(group: Seeds) -> Iterator[OverSeeds]:
    """Of everything asked, the paper's columns and each family at each length at which all seeds have a whole value over the same tasks
    and numbers of answers, failed ones included."""
    tables = {seed: _averages(e) for seed, e in group.entrants.items()}
    first = next(iter(tables.values()))
    for what, ctx in first:
        means = {seed: table[what, ctx] for seed, table in tables.items() if (what, ctx) in table}
        if len(means) == len(tables) and len({mean.asked for mean in means.values()}) == 1:
            values = {seed: mean.value for seed, mean in means.items()}
            of = open_interval([value for value, _, _ in values.values()])
            yield OverSeeds(group.name, what, ctx, values, of.mean, max(0.0, of.low), min(1.0, of.high))


def _names(first: Mapping[str, Entrant]) -> dict[str, str]:
    """By recipe: the architecture, with what the recipes of one architecture differ in where it has several."""
    plain = {recipe: str(e.described("training").get("architecture") or e.model) for recipe, e in first.items()}
    told = {recipe: json.loads(recipe) for recipe in first}
    named = {}
    for recipe, name in plain.items():
        others = [told[other] for other, called in plain.items() if called == name]
        apart = [k for k in told[recipe] if len({json.dumps(other.get(k)) for other in others}) > 1]
        named[recipe] = name + (f" ({', '.join(f'{k} {told[recipe][k]}' for k in apart)})" if apart else "")
    return named


def _averages(e: Entrant) -> dict[tuple[str, int], _Mean]:
    def means(what: str, cells: Mapping[int, Cell], of: str = "") -> dict[tuple[str, int], _Mean]:
        whole = (c for c in cells.values() if not (c.missing or math.isnan(c.value)))
        return {(what, c.ctx): _Mean((c.value, c.ci_low, c.ci_high), _asked(e, c.ctx, of)) for c in whole}

    found = means(EVERYTHING, e.overall)
    for ctx, (_, of) in column_rows([*e.cells.values(), *e.averages.values()]).items():
        if of is not None:
            found[COLUMNS_MEAN, ctx] = _Mean((of.mean, of.low, of.high), _asked(e, ctx))
    for family in dict.fromkeys(family for family, _ in e.averages):
        found |= means(family, {ctx: cell for (name, ctx), cell in e.averages.items() if name == family}, family)
    return found


def _asked(e: Entrant, ctx: int, family: str = "") -> frozenset[tuple[str, int, int]]:
    """Tasks at a length, of a family or all, with their answers and failures."""
    group = e.run.groups.get(family, ())
    return frozenset(
        (task, cell.n_total, cell.n_failed)
        for (task, at), cell in e.cells.items()
        if at == ctx and (not family or task.startswith(f"{family}/") or task in group)
    )
