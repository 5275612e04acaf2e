"""Score against cost: a model's scores beside what they cost at the same lengths (the paper's Figure 1a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kleval.report.figure import GREY, Cell, Figure, Grid, Look, Row, Series, logarithmic, scores
from kleval.report.score_curves import Looks, Shape, notes
from kleval.report.sections import Card, Section, section
from kleval.tables import cells
from kleval.tables.costs import Profile
from kleval.tables.joined import Cost, columns, joined
from kleval.tables.scores import Entrant, conflicts
from kleval.text import DASH, format_length, limits, score, seconds, seconds_tick, size, size_tick

_BATCH = "largest_batch"  # the column of a batch that was found, which is no cost
MAX_LABELS = 4  # along a line: of more points only the ends have theirs
_TITLES = {
    "tpot_ms": "time per token",
    "ms_per_token": "time per token",
    "prefill_seconds": "prefill time",
    "ttft_ms": "time to first token",
    "state_bytes": "state bytes of one sequence",
}
Scores = Mapping[tuple[str, int], cells.Cell]
Costs = Mapping[tuple[str, int], Cost]


def score_cost_section(entrants: Sequence[Entrant], profiles: Sequence[Profile], shape: Shape, looks: Looks) -> Section:
    """A figure per cost, then all numbers. UsageError naming two profiles that hold the same model's cost."""
    costs = joined(entrants, profiles)
    what = "Score"
    found = {(e.key, ctx): cell for e in entrants for ctx, cell in e.overall.items()}
    comparable = not any(conflicts(entrants[0], e) for e in entrants[1:])
    names = [name for name in columns(costs) if name != _BATCH]
    cards = []
    for name in names:
        title, figure = f"{what} against {_title(name)}", _figure(entrants, found, costs, name, looks)
        if not figure.empty:
            at, best = _front(entrants, found, costs, name) if comparable else (0, [])
            figure = replace(figure, series=(*figure.series, *_steps(at, best, name)))
            said_of = (_on_front(at, best),) if best else ()
            cards.append(Card(f"score-{name.replace('_', '-')}", title, figures=(figure,), notes=said_of))
    said = _sources(entrants, costs)
    if not cards:
        text = "Nothing could be joined: no score has a cost of the same model at the same length."
        return section("score-cost", [Card("joined", text=text, notes=said)])
    rows = []
    for e, ctx in sorted(((e, ctx) for e in entrants for ctx in shape.ctxs), key=lambda place: place[1]):
        if (cost := costs.get((e.key, ctx))) is not None and cost.values:
            cell = found.get((e.key, ctx))
            shown = score(cell.value) + f"  ({limits(cell.ci_low, cell.ci_high)})" if cell else DASH
            values = [Cell(_spelled(name, cost.values.get(name))) for name in names]
            rows.append(Row(e.label, (Cell(format_length(ctx)), Cell(shown), *values), look=looks[e.key]))
    heads = ("Model", "Length", what, *map(_title, names))
    grid = Grid(heads, tuple(rows), "plain", numbers=frozenset(range(1, len(heads))))
    return section("score-cost", [*cards, Card("joined", grid=grid, notes=said)], layout="pair")


def _figure(entrants: Sequence[Entrant], found: Scores, costs: Costs, name: str, looks: Looks) -> Figure:
    series = []
    for e in entrants:
        both = [
            (cell, cost.values[name])
            for (key, ctx), cell in sorted(found.items(), key=lambda item: item[0][1])
            if key == e.key and (cost := costs.get((key, ctx))) is not None and cost.values.get(name, 0) > 0
        ]
        one = Series(
            e.key,
            e.label,
            looks[e.key],
            [_plain(name) * cost for _, cost in both],
            [round(100 * cell.value, 4) for cell, _ in both],
            [[*notes(e, cell)[:2], f"{_title(name)} {_spelled(name, cost)}"] for cell, cost in both],
            [100 * cell.ci_low for cell, _ in both],
            [100 * cell.ci_high for cell, _ in both],
            labels=[
                format_length(cell.ctx) if len(both) <= MAX_LABELS or i in (0, len(both) - 1) else ""
                for i, (cell, _) in enumerate(both)
            ],
        )
        series += [one] if both else []
    of_bytes = name.endswith("_bytes")
    values = [x for one in series for x in one.x]
    axis = logarithmic(
        f"{_title(name)}; lower is better", values, size_tick if of_bytes else seconds_tick, 1.25, doublings=of_bytes
    )
    return Figure(axis, scores(), tuple(series))


def _front(
    entrants: Sequence[Entrant], found: Scores, costs: Costs, name: str
) -> tuple[int, list[tuple[float, float, str]]]:
    """The longest length at which two models or more have both, their scores over the same tasks, and those that no other beats in one
    and equals in the other there, by cost: (cost, score, label). Empty where there is no such length, and where times are of more than
    one hardware."""
    points: dict[int, list[tuple[float, float, str]]] = {}
    tasks: dict[int, set[frozenset[str]]] = {}
    for e in entrants:
        for (key, ctx), cell in found.items():
            cost = costs.get((key, ctx))
            if key == e.key and cost is not None and cost.values.get(name, 0) > 0:
                points.setdefault(ctx, []).append((cost.values[name], cell.value, e.label))
                tasks.setdefault(ctx, set()).add(e.scored_at(ctx))
    ctx = max((ctx for ctx, here in points.items() if len(here) > 1 and len(tasks[ctx]) == 1), default=0)
    known = {cost.hardware for (_, at), cost in costs.items() if at == ctx and cost.hardware}
    here = [] if len(known) > 1 and not name.endswith("_bytes") else points.get(ctx, [])
    best = [p for p in here if not any(q[0] <= p[0] and q[1] >= p[1] and q[:2] != p[:2] for q in here)]
    return ctx, sorted(best)


def _steps(ctx: int, best: Sequence[tuple[float, float, str]], name: str) -> list[Series]:
    """The front as a staircase, where it has a step."""
    if len({point[:2] for point in best}) < 2:
        return []
    corners = [best[0][:2]]
    for cost, value, _ in best[1:]:
        corners += [(cost, corners[-1][1]), (cost, value)]
    label = f"Pareto front at {format_length(ctx)}"
    x, y = [_plain(name) * cost for cost, _ in corners], [round(100 * value, 4) for _, value in corners]
    look = Look(GREY, "circle", "dot")
    return [Series("front", label, look, x, y, [[label, _on_front(ctx, best)]] * len(x), style="allowed")]


def _on_front(ctx: int, best: Sequence[tuple[float, float, str]]) -> str:
    """By the values alone: where intervals overlap, another draw of samples may give another front."""
    names = ", ".join(label for *_, label in best)
    alone = " (no other model is better in either)" if len(best) == 1 else ""
    return f"On the Pareto front at {format_length(ctx)}, by the values alone: {names}{alone}."


def _sources(entrants: Sequence[Entrant], costs: Costs) -> tuple[str, ...]:
    """Per model whose cost it is, once for all lengths that say the same."""
    labels, said = {e.key: e.label for e in entrants}, dict[str, list[int]]()
    for (key, ctx), cost in costs.items():
        said.setdefault(f"{labels[key]}: {cost.of}", []).append(ctx)
    return tuple(f"{text} ({', '.join(map(format_length, ctxs))})." for text, ctxs in said.items())


def _title(name: str) -> str:
    """`tpot_ms_batch1` in words, protocol and batch behind a comma."""
    start = next((start for start in _TITLES if name.startswith(start)), name)
    protocol = (
        name.removeprefix(start)
        .strip("_")
        .replace("_", " ")
        .replace("batch1", "batch 1")
        .replace("concurrency", "concurrency ")
    )
    title = _TITLES.get(start, start)
    return f"{title}, {protocol.replace('sampled', 'sampled (estimate)')}" if protocol else title


def _plain(name: str) -> float:
    """Factor to seconds or bytes."""
    return 1.0 if name.endswith("_bytes") or "seconds" in name else 1e-3


def _spelled(name: str, value: float | None) -> str:
    plain = None if value is None else _plain(name) * value
    return size(plain, precise=True) if name.endswith("_bytes") else seconds(plain)
