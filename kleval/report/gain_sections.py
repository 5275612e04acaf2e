"""Gain from the context, of runs with `--protocol likelihood`: against length, task by task, and by depth of the answer.

Gains are nats per token and have no ends, so that they have axes and colours of their own and stand beside no score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kleval.report.figure import Figure, Series, lengths, linear
from kleval.report.score_curves import APART, MAX_BANDS, Looks, Shape, cell_at, notes
from kleval.report.score_grids import depth_cards, heat_grid, keys_of
from kleval.report.sections import Card, Section, card, section
from kleval.tables.cells import Cell
from kleval.tables.depths import Depths
from kleval.tables.scores import EVERYTHING, Entrant
from kleval.types import NATS


def gain_sections(entrants: Sequence[Entrant], depths: Depths, looks: Looks) -> list[Section]:
    """entrants: `Entrant.gains` of those that have them. Colours of a section share one scale."""
    if not entrants:
        return []
    shape = Shape.of(entrants)
    found = [_curves(entrants, shape, looks)]
    if len(shape.tasks) > 1:
        cells = [cell for e in entrants for cell in (*e.cells.values(), *e.averages.values())]
        cards = [Card(title=e.label, look=looks[e.key], grid=heat_grid(e, shape, _full(cells))) for e in entrants]
        found.append(replace(section("gain-heat", cards, layout="pair"), keys=_keys(cards, _full(cells))))
    full = _full(cell for e in entrants for cell in depths.cells(e).values())
    cards = depth_cards(entrants, depths, looks, full=full)
    if cards:
        tasks = [task for task in shape.tasks if task in depths.tasks]
        made = section("gain-depth", cards, layout="pair", tasks=", ".join(tasks))
        found.append(replace(made, keys=_keys(cards, full)))
    return found


def _curves(entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section:
    """Of the mean over everything and of each task; at a single length the points alone."""
    several = len(shape.tasks) > 1
    over = f"mean of all {len(shape.tasks)} tasks" if several else f"gain of {shape.tasks[0]}"
    first = card("gain", [gain_figure(entrants, EVERYTHING, shape, looks)], over=over)
    each = [
        Card(f"gain-task-{i}", shape.name(task), figures=(gain_figure(entrants, task, shape, looks),))
        for i, task in enumerate(shape.tasks)
    ]
    made = section("gains", [first])
    return replace(made, more=tuple(each), more_title=f"Each of the {len(each)} tasks by itself") if several else made


def gain_figure(entrants: Sequence[Entrant], name: str, shape: Shape, looks: Looks) -> Figure:
    """The mean over everything or a task, at all lengths of the page."""
    series = []
    for e in entrants:
        found = [cell_at(e, name, ctx) for ctx in shape.ctxs]
        known = [None if cell is None or math.isnan(cell.value) else cell for cell in found]
        limited = all(cell is None or math.isfinite(cell.ci_low) for cell in known)
        series.append(
            Series(
                e.key,
                e.label,
                looks[e.key],
                list(shape.ctxs),
                [None if c is None else round(c.value, 6) for c in known],
                [() if c is None else notes(e, c) for c in known],
                [0.0 if c is None else c.ci_low for c in known] if limited else (),
                [0.0 if c is None else c.ci_high for c in known] if limited else (),
                hollow=[c is not None and bool(c.missing) for c in known],
            )
        )
    values = [v for one in series for v in (*one.y, *one.low, *one.high) if v is not None]
    axis = linear(f"gain, {NATS}", values)
    return Figure(lengths(shape.ctxs, ""), axis, tuple(series), banded=len(series) <= MAX_BANDS, apart=APART)


def _full(cells: Iterable[Cell]) -> float:
    """The value with the whole colour: the largest."""
    return max((cell.value for cell in cells if cell.value > 0), default=1.0)


def _keys(cards: Sequence[Card], full: float) -> tuple[str, ...]:
    return keys_of(cards, f"ramp {full:.3g} {NATS}")
