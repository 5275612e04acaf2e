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
_OWN = frozenset({"seed", "loss", "hardware", "device"})


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
    return [Seeds(_name(same), dict(sorted(same.items()))) for same in found.values() if len(same) > 1]


def over_seeds(group: Seeds) -> Iterator[OverSeeds]:
    """Of everything asked, the paper's columns and each family at each length at which all seeds have a whole value."""
    tables = {seed: _averages(e) for seed, e in group.entrants.items()}
    first = next(iter(tables.values()))
    for what, ctx in first:
        values = {seed: table[what, ctx] for seed, table in tables.items() if (what, ctx) in table}
        if len(values) == len(tables):
            of = open_interval([value for value, _, _ in values.values()])
            yield OverSeeds(group.name, what, ctx, values, of.mean, max(0.0, of.low), min(1.0, of.high))


def _name(same: Mapping[int, Entrant]) -> str:
    first = next(iter(same.values()))
    return str(first.described("training").get("architecture") or first.model)


def _averages(e: Entrant) -> dict[tuple[str, int], tuple[float, float, float]]:
    def whole(cells: Mapping[int, Cell]) -> dict[int, tuple[float, float, float]]:
        kept = (c for c in cells.values() if not (c.missing or math.isnan(c.value)))
        return {c.ctx: (c.value, c.ci_low, c.ci_high) for c in kept}

    found = {(EVERYTHING, ctx): value for ctx, value in whole(e.overall).items()}
    for ctx, (_, of) in column_rows([*e.cells.values(), *e.averages.values()]).items():
        if of is not None:
            found[COLUMNS_MEAN, ctx] = (of.mean, of.low, of.high)
    for family in dict.fromkeys(family for family, _ in e.averages):
        cells = {ctx: cell for (name, ctx), cell in e.averages.items() if name == family}
        found |= {(family, ctx): value for ctx, value in whole(cells).items()}
    return found
