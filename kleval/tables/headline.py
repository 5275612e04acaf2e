"""Headline of a model: its score over everything that was asked at the longest length, its effective length, what a token costs.

The score is the unweighted mean over all tasks that the model was asked, at a length at which every model of the comparison has one;
tasks without a value there are counted and missing. A model is ahead only where its interval and, with failures, its bounds lie above
those of every other, and all were asked the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kleval.tables.area import Area, area_of_all
from kleval.tables.cells import Cell
from kleval.tables.costs import Measure, Profile
from kleval.tables.joined import Cost
from kleval.tables.ratios import choose_baseline
from kleval.tables.ruler import effective_length, unbroken
from kleval.tables.scores import Entrant, conflicts

RECIPE = ("tokens", "tokens_per_batch", "muon_lr", "adam_lr", "clip", "curriculum", "mixture", "begin", "precision")
_TIMES = ("tpot_ms_batch1", "tpot_ms_concurrency1")  # what one reader waits for a token


@dataclass(frozen=True, slots=True)
class Effective:
    """The longest length up to which scores reach ruler.THRESHOLD, by the scores and by their lower and upper limits.

    None: not even at the shortest, which is `first`. last: the longest length with a score; beyond it nothing is known.
    """

    at: int | None
    low: int | None
    high: int | None
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Headline:
    """One model's. ctx: where score and costs are of, 0 without a score. cells: the mean over everything at each length. area: over
    lengths, of so many tasks; None below two lengths.

    tpot, its value in ms and state_bytes: None where they were not measured there. saved: share of the baseline's state bytes that
    the model does without, None for the baseline itself and where its state was of another dtype. hardware: what the costs were
    measured on, None where that is not known.
    """

    entrant: Entrant
    ctx: int
    cells: Mapping[int, Cell]
    effective: Effective | None
    area: tuple[Area, tuple[str, ...]] | None = None
    tpot: Measure | None = None
    tpot_ms: float | None = None
    state_bytes: float | None = None
    saved: float | None = None
    hardware: str | None = None

    @property
    def score(self) -> Cell | None:
        return self.cells.get(self.ctx)


def effective(cells: Mapping[int, Cell]) -> Effective | None:
    """Of means over the same tasks at several lengths, up to the first that lacks a task; None below two of these."""
    whole = unbroken(cells, lambda cell: not cell.missing)
    if len(whole) < 2:
        return None
    at, low, high = (
        effective_length({ctx: 100 * getattr(cell, name) for ctx, cell in whole.items()})
        for name in ("value", "ci_low", "ci_high")
    )
    return Effective(at, low, high, min(whole), max(whole))


def headlines(entrants: Sequence[Entrant], costs: Mapping[tuple[str, int], Cost]) -> list[Headline]:
    """One per entrant, in their order. costs: as `joined.joined` gives them."""
    asked = [set(e.overall) for e in entrants if e.overall]
    common = set.intersection(*asked) if asked else set()
    baseline = choose_baseline(e.model for e in entrants)
    found = []
    for e in entrants:
        mine = e.overall
        ctx = max(common or mine, default=0)
        here = costs.get((e.key, ctx))
        least = _state(entrants, costs, baseline, ctx, here.dtype if here else None)
        state = here.values.get("state_bytes") if here else None
        name = next((n for n in _TIMES if here and n in here.values), "")
        found.append(
            Headline(
                e,
                ctx,
                mine,
                effective(mine),
                area_of_all(e.cells.values(), e.again),
                here.measures[name] if here and name else None,
                here.values[name] if here and name else None,
                state,
                None if e.model == baseline or not (state and least) else 1 - state / least,
                here.hardware if here else None,
            )
        )
    return found


def _state(
    entrants: Sequence[Entrant], costs: Mapping[tuple[str, int], Cost], model: str, ctx: int, dtype: str | None
) -> float | None:
    """A model's state bytes, where they are not known to be of another dtype."""
    found = (costs.get((e.key, ctx)) for e in entrants if e.model == model)
    alike = (cost for cost in found if cost and (dtype == cost.dtype or None in (dtype, cost.dtype)))
    return next((cost.values.get("state_bytes") for cost in alike), None)


def ahead(found: Sequence[Headline]) -> Headline | None:
    """The one that is ahead of all others at the common length, None where that cannot be said; see the module."""
    scored = [one for one in found if one.score is not None]
    if len(scored) < 2 or len(scored) < len(found) or len({one.ctx for one in scored}) > 1:
        return None
    if not_the_same(scored):
        return None
    best = max(scored, key=lambda one: one.cells[one.ctx].value)
    lowest = min(best.cells[best.ctx].ci_low, _bound(best, "bound_low"))
    rest = (max(one.cells[one.ctx].ci_high, _bound(one, "bound_high")) for one in scored if one is not best)
    return best if lowest > max(rest) else None


def _bound(one: Headline, name: str) -> float:
    """With failures the score that they leave possible, else the score."""
    cell = one.cells[one.ctx]
    value = getattr(cell, name)
    return cell.value if math.isnan(value) or not cell.n_failed else float(value)


def not_the_same(found: Sequence[Headline]) -> bool:
    """Whether any two were asked other tasks at their length, or other questions."""
    tasks = {one.entrant.scored_at(one.ctx) for one in found}
    return len(tasks) > 1 or any(conflicts(found[0].entrant, one.entrant) for one in found[1:])


def recipes_differ(entrants: Iterable[Entrant]) -> list[str]:
    """In which parts of their training recipes models differ, where their backends told these of two or more. The seed is none where
    every architecture was trained with the same seeds."""
    told = [
        # older weights say what began how, and have no word for the kind; they were trained in float32
        {"begin": recipe.get("start"), "precision": "float32", **recipe}
        for e in entrants
        if isinstance(recipe := e.described("training"), Mapping)
    ]
    seeds: dict[str, set[str]] = {}
    for recipe in told:
        seeds.setdefault(str(recipe.get("architecture")), set()).add(str(recipe.get("seed")))
    differ = [name for name in RECIPE if len({str(recipe.get(name)) for recipe in told}) > 1]
    return differ + (["seed"] if len({frozenset(of) for of in seeds.values()}) > 1 else [])


@dataclass(frozen=True, slots=True)
class CostHeadline:
    """Of a model that was measured and not scored: its time per token, its state, and the share of the baseline's that it saves."""

    model: str
    ctx: int
    tpot: Measure
    state_bytes: float | None
    saved: float | None


def cost_headlines(profile: Profile) -> list[CostHeadline]:
    """One per model, at the longest length that all were decoded at by themselves; empty without one."""
    alone = [m for m in (*profile.of("decode", "batch-1"), *profile.of("served", "concurrency-1")) if not m.failed]
    times = {(m.model, m.ctx): m for m in alone}
    lengths = [{ctx for model, ctx in times if model == name} for name in profile.models]
    common = set.intersection(*lengths) if lengths else set()
    if not common:
        return []
    ctx = max(common)
    states = {m.model: m.value for m in profile.of("memory") if m.ctx == ctx and not m.failed}
    saved = {r.model: 1 - 1 / r.value for r in profile.state_ratios() if r.ctx == ctx}
    return [CostHeadline(name, ctx, times[name, ctx], states.get(name), saved.get(name)) for name in profile.models]
