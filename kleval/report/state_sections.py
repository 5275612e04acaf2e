"""State bytes of one sequence: by component where they were measured so, in all where an engine says them."""

from __future__ import annotations

from kleval import text as words
from kleval.report.cost_curves import Rows, against_length, curve, grid, measured_grid, subs
from kleval.report.figure import Cell, Grid, Row
from kleval.report.score_curves import Looks
from kleval.report.sections import Card, Section, whole
from kleval.tables import cost_rows
from kleval.tables.costs import Measure, Profile

MAX_BAR_LENGTHS = 5
COMPONENTS = {
    "latent": "latent KV (MLA layers)",
    "recurrent": "recurrent state",
    "conv": "convolution tails",
    "state": "state, as the engine says",
}


def state_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    """State bytes of one sequence: by component where they were measured so, in all where a server or an engine says them."""
    found = profile.of("memory")
    if not found:
        return _served_state(profile, rows, looks)
    bars = state_bars(profile)
    kinds = {c for row in bars.rows for c, cell in zip(COMPONENTS, row.cells, strict=False) if cell.level}
    table, csv = measured_grid("State of one sequence", found, _memory), cost_rows.part(rows, "memory")
    lead = (
        "What one sequence keeps between tokens, as live tensors. Bars of one length share a scale; lengths do not. The table has "
        "every length."
    )
    cards = (Card("state-bars", grid=bars), Card("state-bytes", grid=table, csv=csv))
    keys = tuple(name for name in COMPONENTS if name in kinds)
    return Section("state", "State bytes by component", "State bytes", lead, cards, keys=keys, methods=("state",))


def _served_state(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    """The bytes that a backend said beside its times, at the smallest concurrency that has them."""
    said: dict[tuple[str, int], float] = {}
    for m in profile.of("served"):
        if (value := m.of("state_bytes")) is not None:
            said.setdefault((m.model, m.ctx), value)
    if not said:
        return None
    lines, cells = [], []
    for model in dict.fromkeys(model for model, _ in said):
        mine = {ctx: value for (name, ctx), value in sorted(said.items()) if name == model}
        shown = {ctx: words.size(value, precise=True) for ctx, value in mine.items()}
        lines.append(curve(model, looks[model], [(ctx, value, [shown[ctx]]) for ctx, value in mine.items()]))
        per_token = {ctx: f"{words.size(value / ctx, precise=True)} per token" for ctx, value in mine.items()}
        cells.append((model, {ctx: Cell(shown[ctx], (per_token[ctx],)) for ctx in mine}, ""))
    ctxs = sorted({ctx for _, ctx in said})
    figure = against_length("prompt, tokens", ctxs, lines, words.size_tick, doublings=True)
    card = Card("served-state", figures=(figure,), grid=grid("State of one sequence", ctxs, cells))
    csv = cost_rows.part(rows, "served")
    lead = "What one sequence keeps between tokens, as the backend that served it says. Both axes are logarithmic."
    cards = whole([Card(card.id, figures=card.figures, grid=card.grid, csv=csv)])
    return Section("state", "State bytes against context", "State bytes", lead, cards, methods=("state",))


def state_bars(profile: Profile) -> Grid:
    """The models' bytes by component, on one scale within a length; at most MAX_BAR_LENGTHS lengths, the longest among them."""
    rows, ctxs = [], profile.ctxs("memory")
    step = max(1, -(-len(ctxs) // MAX_BAR_LENGTHS))
    for ctx in ctxs[::-1][::step][::-1]:
        here = [m for m in profile.of("memory") if m.ctx == ctx]
        largest = max((m.value for m in here if not m.failed), default=0.0)
        rows.append(Row(f"{words.format_length(ctx)} tokens", (), kind="head"))
        for m in here:
            if m.failed:
                rows.append(Row(m.model, (), f"failed: {m.failure}"))
                continue
            parts = [m.of(f"{name}_bytes") or 0.0 for name in COMPONENTS if name != "state"]
            parts.append(0.0 if any(parts) else m.value)
            cells = [
                Cell(words.size(v, precise=True), kind=c, level=100 * v / largest)
                for c, v in zip(COMPONENTS, parts, strict=True)
            ]
            rows.append(Row(m.model, tuple(cells), words.size(m.value, precise=True)))
    return Grid(("", *COMPONENTS.values()), tuple(rows), "bars")


def _memory(m: Measure) -> Cell:
    def spell(value: float | None) -> str:
        return words.size(value, precise=True)

    closed = m.closed("state_bytes")
    equal = "" if closed is None else "= closed form" if closed == m.value else f"closed form {spell(closed)}"
    names = {"workspace": "workspace_bytes", "peak": "peak_bytes", "reserved": "reserved_bytes", "RSS": "rss_bytes"}
    seen = [f"{name} {spell(value)}" for name, key in names.items() if (value := m.of(key)) is not None]
    title = "; ".join([f"weights {spell(m.of('weights_bytes'))}", *seen])
    allocated = m.of("allocated_bytes")
    more = subs(equal, f"alloc. {spell(allocated)}" if allocated else "")
    return Cell(spell(m.value), more, "" if closed in (None, m.value) else "failed", title)
