"""Score against cost: a model's scores beside what they cost at the same lengths (the paper's Figure 1a)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from kleval.report.figure import Cell, Figure, Grid, Row, Series, logarithmic, scores
from kleval.report.score_curves import Looks, Shape, notes
from kleval.report.sections import Card, Section
from kleval.tables import cells
from kleval.tables.costs import Profile
from kleval.tables.joined import Cost, columns, joined
from kleval.tables.scores import Entrant
from kleval.text import DASH, format_length, limits, score, seconds, seconds_tick, size, size_tick

_BATCH = "largest_batch"  # the column of a batch that was found, which is no cost
Costs = Mapping[tuple[str, int], Cost]


def score_cost_section(entrants: Sequence[Entrant], profiles: Sequence[Profile], shape: Shape, looks: Looks) -> Section:
    """A figure per cost, then all numbers. UsageError naming two profiles that hold the same model's cost."""
    costs = joined(entrants, profiles)
    what = f"{shape.families[0]} average" if shape.families else shape.tasks[0]
    found = {(e.key, ctx): cell for e in entrants for ctx in shape.ctxs if (cell := _score(e, shape, ctx)) is not None}
    names = [name for name in columns(costs) if name != _BATCH]
    cards = []
    for name in names:
        figure = _figure(entrants, found, costs, name, shape, looks)
        title = f"{what} against {_title(name)}"
        cards += [] if figure.empty else [Card(f"score-{name.replace('_', '-')}", title, figures=(figure,))]
    said = _sources(entrants, costs)
    if not cards:
        text = "Nothing could be joined: no score has a cost of the same model at the same length."
        return _section((Card("joined", text=text, notes=said),))
    rows = []
    for ctx in shape.ctxs:
        for e in entrants:
            if (cost := costs.get((e.key, ctx))) is None or not cost.values:
                continue
            cell = found.get((e.key, ctx))
            shown = score(cell.value) + f"  ({limits(cell.ci_low, cell.ci_high)})" if cell else DASH
            values = [Cell(_spell(name)(cost.values.get(name))) for name in names]
            rows.append(Row(e.label, (Cell(format_length(ctx)), Cell(shown), *values), look=looks[e.key]))
    heads = ("Model", "Length", what, *map(_title, names))
    grid = Grid(heads, tuple(rows), "plain", numbers=frozenset(range(1, len(heads))))
    return _section((*cards, Card("joined", grid=grid, notes=said)))


def _section(cards: tuple[Card, ...]) -> Section:
    lead = (
        "Each line is a model, each of its points a context length: up is better, left is cheaper. Scores with 95 % intervals; costs "
        "were measured by the profiles on this page, on a logarithmic axis."
    )
    title = "Score against cost"
    return Section("score-cost", title, title, lead, cards, "pair", methods=("score-cost",))


def _score(entrant: Entrant, shape: Shape, ctx: int) -> cells.Cell | None:
    """The first family's average, else the first task."""
    named = (entrant.averages, shape.families) if shape.families else (entrant.cells, shape.tasks)
    cell = named[0].get((named[1][0], ctx))
    return None if cell is None or math.isnan(cell.value) else cell


def _figure(
    entrants: Sequence[Entrant],
    found: Mapping[tuple[str, int], cells.Cell],
    costs: Costs,
    name: str,
    shape: Shape,
    looks: Looks,
) -> Figure:
    spell, series = _spell(name), []
    for e in entrants:
        both = [
            (ctx, found[e.key, ctx], costs[e.key, ctx].values[name])
            for ctx in shape.ctxs
            if (e.key, ctx) in found and (e.key, ctx) in costs and costs[e.key, ctx].values.get(name, 0) > 0
        ]
        series.append(
            Series(
                e.key,
                e.label,
                looks[e.key],
                [_plain(name) * cost for _, _, cost in both],
                [round(100 * cell.value, 4) for _, cell, _ in both],
                [[*notes(e, cell)[:2], f"{_title(name)} {spell(cost)}"] for _, cell, cost in both],
                [100 * cell.ci_low for _, cell, _ in both],
                [100 * cell.ci_high for _, cell, _ in both],
                labels=[format_length(ctx) for ctx, _, _ in both],
            )
        )
    kept = tuple(one for one in series if one.x)
    of_bytes = name.endswith("_bytes")
    values = [x for one in kept for x in one.x]
    axis = logarithmic(_title(name), values, size_tick if of_bytes else seconds_tick, 1.25, doublings=of_bytes)
    return Figure(axis, scores(), kept)


def _sources(entrants: Sequence[Entrant], costs: Costs) -> tuple[str, ...]:
    """Per model whose cost it is, once for all lengths that say the same."""
    said: dict[str, list[int]] = {}
    for e in entrants:
        for (key, ctx), cost in costs.items():
            if key == e.key:
                said.setdefault(f"{e.label}: {cost.of}", []).append(ctx)
    return tuple(f"{text} ({', '.join(map(format_length, ctxs))})." for text, ctxs in said.items())


def _title(name: str) -> str:
    """`tpot_ms_batch1` in words."""
    if name == "state_bytes":
        return "state bytes of one sequence"
    for start, text in (
        ("tpot_ms", "time per token"),
        ("ms_per_token", "time per token"),
        ("prefill_seconds", "prefill time"),
        ("ttft_ms", "time to first token"),
    ):
        if name.startswith(start):  # then protocol and batch
            protocol = name.removeprefix(start).strip("_").replace("_", " ").replace("batch1", "batch 1")
            return f"{text}, {protocol.replace('sampled', 'sampled (estimate)')}" if protocol else text
    return name


def _plain(name: str) -> float:
    """Factor to seconds or bytes."""
    return 1.0 if name.endswith("_bytes") or "seconds" in name else 1e-3


def _spell(name: str) -> Callable[[float | None], str]:
    def spell(value: float | None) -> str:
        plain = None if value is None else _plain(name) * value
        return size(plain, precise=True) if name.endswith("_bytes") else seconds(plain)

    return spell
