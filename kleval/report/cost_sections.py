"""Costs of a context: prefill, decode, ratios to the baseline, state bytes and the machine's bound, where there are points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kleval import text as words
from kleval.report.cost_curves import (
    Rows,
    against_length,
    allowed,
    grid,
    grouped,
    measured,
    measured_grid,
    milliseconds,
    printed,
    ratio_grid,
    ratio_lines,
    spread,
    subs,
)
from kleval.report.figure import Cell, Figure, Grid, Row, Series
from kleval.report.paper_curves import paper_figures
from kleval.report.score_curves import Looks
from kleval.report.sections import Card, Section, card, section
from kleval.tables import cost_rows
from kleval.tables.costs import Measure, Profile
from kleval.text import MINUS

MAX_BAR_LENGTHS = 5
COMPONENTS = ("latent", "kv", "recurrent", "conv", "other")
ALL = "state"  # what stands for all of it, where components are not known
IDEAL = {"prefill": "operations", "decode": "bytes"}  # what a ratio of times would be, were nothing else at work
CHECK_LIMIT = 0.15  # of sampled against full, where a run does not say its own
PUBLISHED_SIZE = "48b-a3b"


def prefill_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    found = profile.of("prefill")
    if not found:
        return None
    csv = cost_rows.part(rows, "prefill")
    table = measured_grid(
        "Prefill latency",
        sorted(found, key=lambda m: profile.models.index(m.model)),
        _prefill,
        key=lambda m: f"{m.model} {m.protocol}",
        note=lambda m: "sampled: estimate" if m.protocol == "sampled" else "run in full",
    )
    also = ["sampled"] if "sampled" in profile.protocols("prefill") else []
    latency = card("prefill", [prefill_figure(profile, looks)], table, csv, also=also)
    return section("prefill-latency", [latency, card("sampling-check", grid=check_grid(profile), csv=csv)])


def prefill_figure(profile: Profile, looks: Looks) -> Figure:
    """Seconds of a prompt against its length: run in full, and sampled."""
    lines = _paper_times(profile, "prefill", 1.0, looks)
    for protocol in ("sampled", "full"):
        lines += measured(profile.of("prefill", protocol), looks, 1.0)
    return against_length("prompt, tokens", profile.ctxs("prefill"), lines, words.seconds_tick)


def decode_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    cards = []
    for protocol in profile.protocols("decode"):
        known = protocol if protocol in ("batch-1", "largest-batch") else "batch-n"
        table = measured_grid("Time per token", profile.of("decode", protocol), _decode)
        csv, n = cost_rows.part(rows, "decode", [protocol]), protocol.removeprefix("batch-")
        cards.append(card(known, [decode_figure(profile, protocol, looks)], table, csv, protocol, n=n))
    return section("tpot", cards) if cards else None


def decode_figure(profile: Profile, protocol: str, looks: Looks) -> Figure:
    """Seconds per token of all sequences together against depth."""
    found = profile.of("decode", protocol)
    lines = [*_paper_times(profile, protocol, 1e-3, looks), *measured(found, looks, 1e-3)]
    return against_length("depth, tokens", [m.ctx for m in found], lines, words.seconds_tick)


def _measurement(kind: str, protocol: str) -> str:
    """`Prefill, run in full`, `Decode, batch 1`."""
    if kind == "prefill":
        return "Prefill, sampled (estimate)" if protocol == "sampled" else "Prefill, run in full"
    return f"Decode, {protocol.replace('-', ' ')}"


def ratio_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    """Times first, in the order full, sampled, batch 1, other batches; then state bytes."""
    order, corner = {"full": 0, "sampled": 1, "batch-1": 2}, f"{profile.baseline} over"
    both = dict.fromkeys((r.kind, r.protocol) for r in profile.ratios)
    cards = []
    for kind, protocol in sorted(both, key=lambda pair: order.get(pair[1], 3)):
        found = [r for r in profile.ratios if (r.kind, r.protocol) == (kind, protocol)]
        figure, csv = ratio_figure(profile, kind, protocol, looks), cost_rows.part(rows, kind, [protocol])
        said = {"what": _measurement(kind, protocol), "ideal": IDEAL[kind]}
        table = ratio_grid(corner, sorted(found, key=lambda r: profile.models.index(r.model)))
        cards.append(card("ratio", [figure], table, csv, f"ratio-{kind}-{protocol}", **said))
    ceilings = {ceiling.model: ceiling.text for ceiling in profile.ceilings()}
    if states := profile.state_ratios():
        lines = ratio_lines(states, {model: looks[model] for model in profile.models})
        figure = against_length(
            "context, tokens", profile.ctxs("memory"), lines, words.times_tick, profile.ceilings(), even=True
        )
        table = ratio_grid(corner, states, notes={m: f"layers alone: {text}" for m, text in ceilings.items()})
        cards.append(card("ratio-state", [figure], table, cost_rows.part(rows, "memory")))
    said = {"baseline": profile.baseline, "ceilings": ", ".join(dict.fromkeys(ceilings.values()))}
    return section("ratios", cards, ["ceilings"] if ceilings else [], **said) if cards else None


def ratio_figure(profile: Profile, kind: str, protocol: str, looks: Looks) -> Figure:
    """The baseline's time over each model's, what operations or bytes alone allow, and the ceiling of cache bytes."""
    found = [r for r in profile.ratios if (r.kind, r.protocol) == (kind, protocol)]
    ctxs = sorted({r.ctx for r in profile.ratios if r.kind == kind})
    lines: list[Series] = []
    quantity = paper_figures().get("prefill" if kind == "prefill" else protocol)
    if quantity and profile.baseline.split("@")[0] == "mla":
        here = {model.split("@")[0]: looks[model] for model in reversed(profile.models)}
        curves = {name: quantity.ratio(name) for name in quantity.curves if name != "mla" and name in here}
        lines = printed(curves, quantity, ctxs, 1.0, words.times, here)
    lines += ratio_lines(found, {model: looks[model] for model in profile.models}, IDEAL[kind])
    ceilings = profile.ceilings() if kind == "decode" else []
    return against_length("context, tokens", ctxs, lines, words.times_tick, ceilings, even=True)


def state_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    found = _said(profile)
    if not found:
        return None
    bars = state_bars(found)
    kinds = {cell.kind for row in bars.rows for cell in row.cells if cell.level}
    lines, ctxs = measured(found, looks, 1.0, _size, "state_bytes"), [m.ctx for m in found]
    figure = against_length("context, tokens", ctxs, lines, words.size_tick, doublings=True)
    cards = [
        Card("state-bars", grid=bars),
        Card(
            "state-bytes",
            figures=(figure,),
            grid=measured_grid("State of one sequence", found, _state),
            csv=cost_rows.part(rows, found[0].kind),
            better="lower",
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


def bound_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    cards = []
    for kind, share in (("prefill", "MFU"), ("decode", "MBU")):
        for protocol in profile.protocols(kind):
            found = profile.of(kind, protocol)
            if any(m.bound for m in found):
                both = [figure(profile, kind, protocol, looks) for figure in (bound_figure, share_figure)]
                csv, what = cost_rows.part(rows, kind, [protocol]), _measurement(kind, protocol)
                names = ("measured, and bound (dotted)", share)
                table, name = measured_grid(share, found, _bound), f"bound-{kind}"
                cards.append(card(name, both, table, csv, f"{name}-{protocol}", names=names, what=what))
    return section("bounds", cards) if cards else None


def bound_figure(profile: Profile, kind: str, protocol: str, looks: Looks) -> Figure:
    """Measured times and the least that the machine's bound allows."""
    factor, found = 1.0 if kind == "prefill" else 1e-3, profile.of(kind, protocol)
    lines = [
        allowed(model, looks[model], [(m.ctx, m.bound * factor) for m in mine if m.bound], "bound", words.seconds)
        for model, mine in grouped(found).items()
    ]
    lines += measured(found, looks, factor)
    return against_length("context, tokens", [m.ctx for m in found], lines, words.seconds_tick)


def share_figure(profile: Profile, kind: str, protocol: str, looks: Looks) -> Figure:
    """MFU or MBU."""
    found = profile.of(kind, protocol)
    lines = measured(found, looks, 1.0, words.percent, "mfu" if kind == "prefill" else "mbu")
    return against_length("context, tokens", [m.ctx for m in found], lines, words.percent_tick)


def check_grid(profile: Profile) -> Grid:
    """Error of sampled against full prefill of the same prompts, median over repeats; failed beyond the run's limit."""
    limit = float(profile.get("sampling_checks", "limit", default=CHECK_LIMIT))
    full = {(m.model, m.ctx): m for m in profile.of("prefill", "full") if not m.failed}
    cells: dict[str, dict[int, Cell]] = {}
    for m in profile.of("prefill", "sampled"):
        if m.failed or (theirs := full.get((m.model, m.ctx))) is None:
            continue
        error = (m.of("sampled_over_full") or m.value / theirs.value) - 1
        both = (f"≈ {words.seconds(m.value)}", f"full {words.seconds(theirs.value)}")
        shown = f"{'+' if error >= 0 else MINUS}{abs(100 * error):.1f} %"
        cells.setdefault(m.model, {})[m.ctx] = Cell(shown, both, "failed" if abs(error) > limit else "")
    ctxs = sorted({ctx for mine in cells.values() for ctx in mine})
    return grid("Error of the estimate", ctxs, [(model, mine, "") for model, mine in cells.items()])


def _paper_times(profile: Profile, quantity: str, factor: float, looks: Looks) -> list[Series]:
    """The paper's own times, where the run has models of the published shape."""
    figure = paper_figures().get(quantity)
    here = {m.split("@")[0]: looks[m] for m in profile.models if m.endswith(f"@{PUBLISHED_SIZE}")}
    if figure is None or not here:
        return []
    curves: Mapping[str, Mapping[int, float]] = {name: one for name, one in figure.curves.items() if name in here}
    ctxs = profile.ctxs("prefill" if quantity == "prefill" else "decode")
    return printed(curves, figure, ctxs, factor, words.seconds, here)


def _prefill(m: Measure) -> Cell:
    speed = words.rate(m.of("tokens_per_second"), "tok/s")
    title = words.plural(m.repeats, "repeat") + (
        f", {words.seconds(m.low)} to {words.seconds(m.high)}" if m.repeats > 1 else ""
    )
    return Cell(words.seconds(m.value), subs(speed, spread(m)), "estimate" if m.estimate else "", title)


def _decode(m: Measure) -> Cell:
    step, p90, p99 = (milliseconds(m.of(f"step_ms_{name}")) for name in ("median", "p90", "p99"))
    title = f"step {step}, p90 {p90}, p99 {p99}; {m.of('steps') or 0:.0f} steps x {words.plural(m.repeats, 'repeat')}"
    batch = (f"batch {m.batch:,}", f"step {step}") if m.protocol != "batch-1" else ()
    more = subs(*batch, f"p90 {p90}", words.rate(m.of("tokens_per_second"), "tok/s"), spread(m))
    return Cell(milliseconds(m.value), more, title=title)


def _bound(m: Measure) -> Cell:
    factor = 1e-3 if m.kind == "decode" else 1.0
    bound = None if m.bound is None else m.bound * factor
    more = (f"took {words.seconds(m.value * factor)}", f"bound {words.seconds(bound)}")
    reached = m.of("mbu" if m.kind == "decode" else "mfu")
    return Cell(words.percent(reached), more, "estimate" if m.estimate else "")


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
