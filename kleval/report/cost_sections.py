"""Times of a context: prefill, decode, ratios to the baseline, and the machine's bound. A section each, where there are points."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kleval import text as words
from kleval.report.cost_curves import (
    Rows,
    against_length,
    allowed,
    by_model,
    compared,
    curve,
    grid,
    measured,
    measured_grid,
    milliseconds,
    printed,
    spread,
    subs,
)
from kleval.report.figure import Cell, Figure, Grid, Series
from kleval.report.paper_curves import BY_QUANTITY
from kleval.report.score_curves import Looks
from kleval.report.sections import Card, Section, whole
from kleval.tables import cost_rows
from kleval.tables.costs import Measure, Profile
from kleval.tables.ratios import Ratio
from kleval.text import MINUS

CHECK_LIMIT = 0.15  # of sampled against full, where a run does not say its own
PUBLISHED_SIZE = "48b-a3b"


def prefill_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    found = profile.of("prefill")
    if not found:
        return None
    text = "Whole prompt to first logits, batch 1, warmed up; whiskers are the smallest and the largest repeat."
    if "sampled" in profile.protocols("prefill"):
        text += " Hollow markers: sampled, an estimate from chunks timed along the prompt."
    csv = cost_rows.part(rows, "prefill")
    table = measured_grid(
        "Prefill latency",
        sorted(found, key=lambda m: profile.models.index(m.model)),
        _prefill,
        key=lambda m: (m.model, m.protocol),
        note=lambda m: "sampled: estimate" if m.protocol == "sampled" else "run in full",
    )
    check = "A sampled latency is an estimate: chunks are timed at positions along the prompt and integrated. Here is what it is worth."
    cards = [
        Card("prefill", "Prefill latency", text, figures=(prefill_figure(profile, looks),), grid=table, csv=csv),
        Card("sampling-check", "Sampled against full, where both were run", check, grid=check_grid(profile), csv=csv),
    ]
    lead = "How long a prompt takes until the first token can be chosen. Both axes are logarithmic; lower is faster."
    title = "Prefill latency against context"
    return Section("prefill-latency", title, "Prefill", lead, whole(cards), methods=("times", "prefill", "paper"))


def prefill_figure(profile: Profile, looks: Looks) -> Figure:
    """Seconds of a prompt against its length: run in full, and sampled."""
    lines = _paper_times(profile, "prefill", 1.0, looks)
    for protocol in ("sampled", "full"):
        lines += measured(profile.of("prefill", protocol), looks, 1.0)
    return against_length("prompt, tokens", profile.ctxs("prefill"), lines, words.seconds_tick)


def decode_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    cards = []
    for protocol in profile.protocols("decode"):
        name, text = protocol_words(protocol)
        figure, found = decode_figure(profile, protocol, looks), profile.of("decode", protocol)
        table, csv = measured_grid("Time per token", found, _decode), cost_rows.part(rows, "decode", [protocol])
        cards.append(Card(protocol, f"TPOT, {name}", text, figures=(figure,), grid=table, csv=csv))
    lead = (
        "The cache is put at its depth directly, the first steps are dropped, sampling is excluded. The two protocols answer different "
        "questions and are never mixed."
    )
    title, methods = "Time per output token against depth", ("times", "decode", "paper")
    return Section("tpot", title, "TPOT", lead, whole(cards), methods=methods) if cards else None


def decode_figure(profile: Profile, protocol: str, looks: Looks) -> Figure:
    """Seconds per token of all sequences together against depth."""
    found = profile.of("decode", protocol)
    lines = [*_paper_times(profile, protocol, 1e-3, looks), *measured(found, looks, 1e-3)]
    return against_length("depth, tokens", [m.ctx for m in found], lines, words.seconds_tick)


def protocol_words(protocol: str) -> tuple[str, str]:
    """A decode protocol's name, and what it measures."""
    if protocol == "largest-batch":
        return (
            "largest batch that fits",
            "As many sequences as fit the memory budget, so another batch for every model and depth (in the table). "
            "Time of a step over its batch: what one token costs when all are counted.",
        )
    if protocol == "batch-1":
        return "batch 1", "One sequence: what its reader waits for a token."
    batch = protocol.removeprefix("batch-")
    return f"batch {batch}", f"{batch} sequences in every model. Time of a step over its batch."


def _measurement(kind: str, protocol: str) -> str:
    """`Prefill, run in full`, `TPOT, batch 1`."""
    if kind == "prefill":
        return "Prefill, sampled (estimate)" if protocol == "sampled" else "Prefill, run in full"
    return f"TPOT, {protocol_words(protocol)[0]}"


def ratio_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    """Times first, in the order full, sampled, batch 1, other batches; then state bytes."""
    order = {"full": 0, "sampled": 1, "batch-1": 2}
    measured_here = dict.fromkeys((r.kind, r.protocol) for r in profile.ratios)
    cards = []
    for kind, protocol in sorted(measured_here, key=lambda pair: order.get(pair[1], 3)):
        text = (
            f"Dotted: what {_ideal(kind)} alone allow. Paired repeat by repeat; whiskers are 95 % intervals of the geometric mean "
            "(Student's t), none for a single repeat."
        )
        figure, table = ratio_figure(profile, kind, protocol, looks), ratio_grid(profile, kind, protocol)
        csv = cost_rows.part(rows, kind, [protocol])
        title = _measurement(kind, protocol)
        cards.append(Card(f"ratio-{kind}-{protocol}", title, text, figures=(figure,), grid=table, csv=csv))
    if profile.state_ratios():
        text = "Bytes of one sequence's state: the baseline's over the model's. Dashed: what it tends to, by layers that keep a cache."
        figure, csv = state_ratio_figure(profile, looks), cost_rows.part(rows, "memory")
        cards.append(
            Card("ratio-state", "State bytes", text, figures=(figure,), grid=state_ratio_grid(profile), csv=csv)
        )
    ceilings = list(dict.fromkeys(ceiling.text for ceiling in profile.ceilings()))
    lead = f"How many times faster, or smaller, than {profile.baseline}: above 1 the model is ahead."
    if ceilings:
        lead += f" No ratio of cache bytes can pass the ratio of layers that keep a cache ({', '.join(ceilings)})"
        lead += "." if "27/7 = 3.86" in ceilings else "; the published shape's is 27/7 = 3.86."
        lead += " The paper's 6.3× for large batches lies above its 3.86."
    lead += " Grey curves: paper, hardware not stated."
    title = f"Ratio to {profile.baseline}"
    return Section("ratios", title, title, lead, whole(cards), methods=("ratios", "paper")) if cards else None


def _ideal(kind: str) -> str:
    return "operations" if kind == "prefill" else "bytes"


def ratio_figure(profile: Profile, kind: str, protocol: str, looks: Looks) -> Figure:
    """The baseline's time over each model's, what operations or bytes alone allow, and the ceiling of cache bytes."""
    found = [r for r in profile.ratios if (r.kind, r.protocol) == (kind, protocol)]
    ctxs = sorted({r.ctx for r in profile.ratios if r.kind == kind})
    lines: list[Series] = []
    quantity = BY_QUANTITY.get("prefill" if kind == "prefill" else protocol)
    if quantity and profile.baseline.split("@")[0] == "mla":
        here = {model.split("@")[0]: looks[model] for model in reversed(profile.models)}
        curves = {name: quantity.ratio(name) for name in quantity.curves if name != "mla" and name in here}
        lines = printed(curves, quantity, ctxs, 1.0, words.times, here)
    for model in profile.models:
        mine = [r for r in found if r.model == model]
        if mine:
            pairs = [(r.ctx, r.ideal) for r in mine if r.ideal]
            lines.append(allowed(model, looks[model], pairs, f"{_ideal(kind)} alone allow", words.times))
            lines.append(compared(model, looks[model], mine, protocol == "sampled"))
    ceilings = profile.ceilings() if kind == "decode" else []
    return against_length("context, tokens", ctxs, lines, words.times_tick, ceilings, even=True)


def ratio_grid(profile: Profile, kind: str, protocol: str) -> Grid:
    """Ratio, interval, and what operations or bytes alone allow."""
    found = [r for r in profile.ratios if (r.kind, r.protocol) == (kind, protocol)]
    models = [model for model in profile.models if any(r.model == model for r in found)]
    rows = [(model, {r.ctx: _ratio(r) for r in found if r.model == model}, "") for model in models]
    return grid(f"{profile.baseline} over", sorted({r.ctx for r in found}), rows)


def state_ratio_figure(profile: Profile, looks: Looks) -> Figure:
    lines = []
    for model in (m for m in profile.models if m != profile.baseline):
        found = [r for r in profile.state_ratios() if r.model == model]
        points = [(r.ctx, r.value, [f"{words.times(r.value)} fewer bytes"]) for r in found]
        lines.append(curve(model, looks[model], points))
    ctxs, tick = profile.ctxs("memory"), words.times_tick
    return against_length("context, tokens", ctxs, lines, tick, profile.ceilings(), even=True)


def state_ratio_grid(profile: Profile) -> Grid:
    """Ratio of state bytes, and the share saved."""
    ceilings = {c.model: f"layers alone: {c.text}" for c in profile.ceilings()}
    cells: dict[str, dict[int, Cell]] = {}
    for r in profile.state_ratios():
        saved = f"{100 * (1 - 1 / r.value):.1f} % saved"
        cells.setdefault(r.model, {})[r.ctx] = Cell(words.times(r.value), (saved,))
    rows = [(model, mine, ceilings.get(model, "")) for model, mine in cells.items()]
    return grid(f"{profile.baseline} over", profile.ctxs("memory"), rows)


def bound_section(profile: Profile, rows: Rows, looks: Looks) -> Section | None:
    cards = []
    for kind in ("prefill", "decode"):
        for protocol in profile.protocols(kind):
            found = [m for m in profile.of(kind, protocol) if m.bound]
            if not found:
                continue
            if kind == "prefill":
                text = "Bound: operations over the machine's matrix rate. MFU: bound over measured."
            else:
                text = (
                    "Bound: the longer of bytes over copy bandwidth and operations over matrix rate. MBU: bytes over copy "
                    "bandwidth, as a share of the measured time."
                )
            share = "MFU" if kind == "prefill" else "MBU"
            cards.append(
                Card(
                    f"bound-{kind}-{protocol}",
                    _measurement(kind, protocol).replace("TPOT", "Decode"),
                    text,
                    figures=(
                        bound_figure(profile, kind, protocol, looks),
                        share_figure(profile, kind, protocol, looks),
                    ),
                    names=("measured, and bound (dotted)", share),
                    grid=measured_grid(share, profile.of(kind, protocol), _bound),
                    csv=cost_rows.part(rows, kind, [protocol]),
                )
            )
    lead = (
        "What the same machine needs to copy as many bytes, or to multiply matrices with as many operations. What stays in a "
        "processor's own cache can be faster than the copy."
    )
    title = "Measured against the machine's bound"
    return Section("bounds", title, "Bounds", lead, whole(cards), methods=("times",)) if cards else None


def bound_figure(profile: Profile, kind: str, protocol: str, looks: Looks) -> Figure:
    """Measured times and the least that the machine's bound allows."""
    factor, found = 1.0 if kind == "prefill" else 1e-3, profile.of(kind, protocol)
    lines = [
        allowed(model, looks[model], [(m.ctx, m.bound * factor) for m in mine if m.bound], "bound", words.seconds)
        for model, mine in by_model(found).items()
    ]
    lines += measured(found, looks, factor)
    return against_length("context, tokens", [m.ctx for m in found], lines, words.seconds_tick)


def share_figure(profile: Profile, kind: str, protocol: str, looks: Looks) -> Figure:
    """MFU or MBU."""
    name, found = "mfu" if kind == "prefill" else "mbu", profile.of(kind, protocol)
    lines = []
    for model, mine in by_model(found).items():
        points = [(m.ctx, v, [f"{name.upper()} {words.percent(v)}"]) for m in mine if (v := m.of(name))]
        lines.append(curve(model, looks[model], points, "estimate" if protocol == "sampled" else "measured"))
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
    figure = BY_QUANTITY.get(quantity)
    here = {m.split("@")[0]: looks[m] for m in profile.models if m.endswith(f"@{PUBLISHED_SIZE}")}
    if figure is None or not here:
        return []
    curves: Mapping[str, Mapping[int, float]] = {name: one for name, one in figure.curves.items() if name in here}
    ctxs = profile.ctxs("prefill" if quantity == "prefill" else "decode")
    return printed(curves, figure, ctxs, factor, words.seconds, here)


def _prefill(m: Measure) -> Cell:
    speed = words.rate(m.of("tokens_per_second"), "tok/s")
    title = f"{m.repeats} repeats, {words.seconds(m.low)} to {words.seconds(m.high)}"
    return Cell(words.seconds(m.value), subs(speed, spread(m)), "estimate" if m.estimate else "", title)


def _decode(m: Measure) -> Cell:
    step, p90, p99 = (milliseconds(m.of(f"step_ms_{name}")) for name in ("median", "p90", "p99"))
    title = f"step {step}, p90 {p90}, p99 {p99}; {m.of('steps') or 0:.0f} steps x {m.repeats} repeats"
    batch = (f"batch {m.batch:,}", f"step {step}") if m.protocol != "batch-1" else ()
    more = subs(*batch, f"p90 {p90}", words.rate(m.of("tokens_per_second"), "tok/s"), spread(m))
    return Cell(milliseconds(m.value), more, title=title)


def _ratio(r: Ratio) -> Cell:
    interval = "one repeat" if math.isnan(r.low) else f"{words.times(r.low)} – {words.times(r.high)}"
    ideal = f"{'ops' if r.kind == 'prefill' else 'bytes'} {words.times(r.ideal)}" if r.ideal else ""
    differ = r.kind == "decode" and r.batch != r.baseline_batch
    batches = f"batch {r.batch:,} / {r.baseline_batch:,}" if differ else ""
    return Cell(words.times(r.value), subs(interval, ideal, batches), "estimate" if r.estimate else "")


def _bound(m: Measure) -> Cell:
    factor = 1e-3 if m.kind == "decode" else 1.0
    bound = None if m.bound is None else m.bound * factor
    more = (f"took {words.seconds(m.value * factor)}", f"bound {words.seconds(bound)}")
    reached = m.of("mbu" if m.kind == "decode" else "mfu")
    return Cell(words.percent(reached), more, "estimate" if m.estimate else "")
