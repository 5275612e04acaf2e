"""Section of training seeds: what another training of the same recipe changes, beside what other questions would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kleval.report.figure import Cell, Figure, Look, Series, lengths, looks_of, plain, scores
from kleval.report.score_curves import APART
from kleval.report.sections import Section, card, section
from kleval.tables.scores import EVERYTHING, Entrant
from kleval.tables.training_seeds import COLUMNS_MEAN, OverSeeds, by_recipe, over_seeds
from kleval.text import DASH, format_length, limits, score


def seed_section(entrants: Sequence[Entrant]) -> Section | None:
    """None where no recipe has two seeds or more."""
    found = [one for group in by_recipe(entrants) for one in over_seeds(group)]
    if not found:
        return None
    seeds = sorted({seed for one in found for seed in one.values})
    looks = looks_of(dict.fromkeys(one.name for one in found))
    means = dict.fromkeys(one.what for one in found)
    first = [what for what in (EVERYTHING, COLUMNS_MEAN) if what in means]
    figures = [_figure([one for one in found if one.what == what], looks) for what in first]
    cards = [card("over-seeds", figures, names=first)]
    heads = ("model", "mean of", "length", *(f"seed {seed}" for seed in seeds), "mean", "over seeds")
    table = plain(heads, (_line(one, seeds) for one in found), range(3, len(heads)))
    made = section("seeds", cards, n=", ".join(f"{seed}" for seed in seeds))
    return replace(made, more=(card("seed-table", grid=table),), more_title=f"Each of the {len(found)} means by seed")


def seed_tables(entrants: Sequence[Entrant]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """For the terminal, of everything asked and of the paper's columns: what, heads and rows."""
    found = [one for group in by_recipe(entrants) for one in over_seeds(group)]
    for what in (EVERYTHING, COLUMNS_MEAN):
        kept = [one for one in found if one.what == what]
        seeds = sorted({seed for one in kept for seed in one.values})
        rows = []
        for one in kept:
            told = [DASH if v is None else f"{score(v)} [{limits(low, high)}]" for v, low, high in _of(one, seeds)]
            rows.append([one.name, format_length(one.ctx), *told, f"{score(one.mean)} [{limits(one.low, one.high)}]"])
        if rows:
            yield what, ["model", "ctx", *(f"seed {seed}" for seed in seeds), "mean [over seeds]"], rows


def _of(one: OverSeeds, seeds: Sequence[int]) -> list[tuple[float | None, float, float]]:
    return [one.values.get(seed, (None, 0.0, 0.0)) for seed in seeds]


def _figure(found: Sequence[OverSeeds], looks: Mapping[str, Look]) -> Figure:
    """Means against length; whiskers from the lowest seed to the highest."""
    series = []
    for name in dict.fromkeys(one.name for one in found):
        mine = sorted((one for one in found if one.name == name), key=lambda one: one.ctx)
        values = [[v for v, _, _ in one.values.values()] for one in mine]
        series.append(
            Series(
                name,
                name,
                looks[name],
                [one.ctx for one in mine],
                [round(100 * one.mean, 4) for one in mine],
                [_notes(one) for one in mine],
                [100 * min(of) for of in values],
                [100 * max(of) for of in values],
            )
        )
    return Figure(lengths((one.ctx for one in found), ""), scores(), tuple(series), banded=False, apart=APART)


def _notes(one: OverSeeds) -> list[str]:
    told = [
        f"seed {seed}: {score(v)}  (95 % over samples: {limits(lo, hi)})" for seed, (v, lo, hi) in one.values.items()
    ]
    over = f"mean {score(one.mean)}  (95 % over {len(one.values)} seeds: {limits(one.low, one.high)})"
    return [f"{one.name} at {format_length(one.ctx)}", over, *told]


def _line(one: OverSeeds, seeds: Sequence[int]) -> tuple[str | Cell, ...]:
    told = [
        Cell(DASH, kind="empty") if v is None else Cell(score(v), subs=(limits(low, high),))
        for v, low, high in _of(one, seeds)
    ]
    mean = Cell(score(one.mean), title=f"of {len(one.values)} seeds")
    return (one.name, one.what, format_length(one.ctx), *told, mean, Cell(limits(one.low, one.high)))
