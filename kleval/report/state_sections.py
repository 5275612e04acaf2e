"""State bytes of one sequence: measured in live tensors, or as the backend that served it says; by component where these are known."""

from __future__ import annotations

from dataclasses import replace

from kleval import text as words
from kleval.report.cost_curves import Rows, against_length, curve, measured_grid, subs
from kleval.report.figure import Cell, Figure, Grid, Row
from kleval.report.score_curves import Looks
from kleval.report.sections import Card, Section, section
from kleval.tables import cost_rows
from kleval.tables.costs import Measure, Profile

MAX_BAR_LENGTHS = 5
COMPONENTS = ("latent", "kv", "recurrent", "conv", "other")
ALL = "state"  # what stands for all of it, where components are not known


def state_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    found = _said(profile)
    if not found:
        return None
    bars = state_bars(found)
    kinds = {cell.kind for row in bars.rows for cell in row.cells if cell.level}
    cards = [
        Card("state-bars", grid=bars),
        Card(
            "state-bytes",
            figures=(state_figure(found, looks),),
            grid=measured_grid("State of one sequence", found, _state),
            csv=cost_rows.part(rows, found[0].kind),
        ),
    ]
    how = "as the backend that served it says" if found[0].kind == "served" else "as live tensors"
    keys = tuple(name for name in (*COMPONENTS, ALL) if name in kinds)
    return replace(section("state", cards, how=how), keys=keys)


def _said(profile: Profile) -> list[Measure]:
    """One per model and length: of the memory that was measured, else of the smallest concurrency whose backend said bytes."""
    served = [m for m in profile.of("served") if m.of("state_bytes") is not None]
    by_place = {(m.model, m.ctx): m for m in reversed(profile.of("memory") or served)}
    return list(by_place.values())[::-1]


def state_figure(found: list[Measure], looks: Looks) -> Figure:
    lines = []
    for model in dict.fromkeys(m.model for m in found):
        mine = [(m.ctx, value) for m in found if m.model == model and (value := m.of("state_bytes"))]
        lines.append(curve(model, looks[model], [(ctx, value, [_size(value)]) for ctx, value in sorted(mine)]))
    ctxs = [m.ctx for m in found]
    return against_length("context, tokens", ctxs, lines, words.size_tick, doublings=True)


def state_bars(found: list[Measure]) -> Grid:
    """The models' bytes by component, on one scale within a length; at most MAX_BAR_LENGTHS lengths, the longest among them."""
    rows, ctxs = [], sorted({m.ctx for m in found})
    step = max(1, -(-len(ctxs) // MAX_BAR_LENGTHS))
    for ctx in ctxs[::-1][::step][::-1]:
        here = [m for m in found if m.ctx == ctx]
        largest = max((m.of("state_bytes") or 0.0 for m in here), default=0.0)
        rows.append(Row(f"{words.format_length(ctx)} tokens", (), kind="head"))
        for m in here:
            total = m.of("state_bytes")
            parts = {name: value for name in COMPONENTS if (value := m.of(f"{name}_bytes"))} or {ALL: total or 0.0}
            cells = [Cell(_size(v), kind=name, level=100 * v / largest) for name, v in parts.items() if largest]
            note = f"failed: {m.failure}" if m.failed else _size(total)
            rows.append(Row(m.model, () if m.failed else tuple(cells), note))
    return Grid(("", *COMPONENTS, ALL), tuple(rows), "bars")


def _state(m: Measure) -> Cell:
    """Whether it equals the closed form, and what holds it."""
    total, closed, allocated = m.of("state_bytes"), m.closed("state_bytes"), m.of("allocated_bytes")
    equal = "" if closed is None else "= closed form" if closed == total else f"closed form {_size(closed)}"
    names = {
        "weights": "weights_bytes",
        "workspace": "workspace_bytes",
        "peak": "peak_bytes",
        "reserved": "reserved_bytes",
        "RSS": "rss_bytes",
    }
    title = "; ".join(f"{name} {_size(value)}" for name, key in names.items() if (value := m.of(key)) is not None)
    per_token = f"{_size((total or 0) / m.ctx)} per token" if m.kind == "served" else ""
    more = subs(equal, f"alloc. {_size(allocated)}" if allocated else "", per_token)
    return Cell(_size(total), more, "" if closed in (None, total) else "failed", title)


def _size(value: float | None) -> str:
    return words.size(value, precise=True)
