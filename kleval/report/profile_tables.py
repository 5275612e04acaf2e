"""The tables beside the profile's curves, as plain values for the template: a row per model, a column per length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kleval import text as words
from kleval.tables.costs import Measure, Profile
from kleval.tables.ratios import Ratio
from kleval.text import MINUS


@dataclass(frozen=True, slots=True)
class Cell:
    """big: the number; subs: smaller lines under it. kind: "" | estimate | failed | empty. title: shown on hover."""

    big: str
    subs: tuple[str, ...] = ()
    kind: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """key: whose swatch stands before the label, None for none."""

    label: str
    cells: tuple[Cell, ...]
    key: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """corner: over the labels."""

    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


CHECK_LIMIT = 0.15  # where a run does not say its own
MAX_BAR_LENGTHS = 5
EMPTY = Cell(words.DASH, kind="empty", title="not measured")
Show = Callable[[Measure], Cell]


def prefill_grid(profile: Profile) -> Grid:
    """Latency in full and sampled; spread over repeats; tokens per second."""
    rows = []
    for model in profile.models:
        for protocol in profile.protocols("prefill"):
            found = [m for m in profile.of("prefill", protocol) if m.model == model]
            if found:
                note = "sampled: estimate" if protocol == "sampled" else "run in full"
                rows.append(_row(found, profile.ctxs("prefill"), _prefill, note))
    return _grid("Prefill latency", profile.ctxs("prefill"), rows)


def decode_grid(profile: Profile, protocol: str) -> Grid:
    """Time per token of all sequences together, the batch, and the step that it comes from."""
    found = profile.of("decode", protocol)
    ctxs = sorted({m.ctx for m in found})
    rows = [_row([m for m in found if m.model == model], ctxs, _decode) for model in _models(found)]
    return _grid("Time per token", ctxs, rows)


def ratio_grid(profile: Profile, kind: str, protocol: str) -> Grid:
    """Ratio, interval, and what operations or bytes alone allow."""
    found = [r for r in profile.ratios if (r.kind, r.protocol) == (kind, protocol)]
    ctxs = sorted({r.ctx for r in found})
    by_place = {(r.model, r.ctx): r for r in found}
    rows = [
        Row(model, tuple(_ratio(by_place.get((model, ctx))) for ctx in ctxs), model)
        for model in profile.models
        if any(r.model == model for r in found)
    ]
    return _grid(f"{profile.baseline} over", ctxs, rows)


def state_ratio_grid(profile: Profile) -> Grid:
    """Ratio of state bytes, and the share saved."""
    ctxs, ceilings = profile.ctxs("memory"), {c.model: c.text for c in profile.ceilings()}
    by_place = {(r.model, r.ctx): r.value for r in profile.state_ratios()}
    rows = []
    for model in dict.fromkeys(r.model for r in profile.state_ratios()):
        cells = []
        for ctx in ctxs:
            value = by_place.get((model, ctx))
            saved = "" if value is None else f"{100 * (1 - 1 / value):.1f} % saved"
            cells.append(EMPTY if value is None else Cell(words.times(value), (saved,)))
        rows.append(Row(model, tuple(cells), model, f"layers alone: {ceilings[model]}" if model in ceilings else ""))
    return _grid(f"{profile.baseline} over", ctxs, rows)


def memory_grid(profile: Profile) -> Grid:
    """Bytes used, whether they equal the closed form, and what holds them."""
    found, ctxs = profile.of("memory"), profile.ctxs("memory")
    rows = [_row([m for m in found if m.model == model], ctxs, _memory) for model in _models(found)]
    return _grid("State of one sequence", ctxs, rows)


def bound_grid(profile: Profile, kind: str, protocol: str) -> Grid:
    """Measured time, the least the bound allows, and the share of the bound that was reached."""
    found = profile.of(kind, protocol)
    ctxs = sorted({m.ctx for m in found})
    rows = [_row([m for m in found if m.model == model], ctxs, _bound) for model in _models(found)]
    return _grid("MFU" if kind == "prefill" else "MBU", ctxs, rows)


def kernel_grid(profile: Profile, heads: int, head_dim: int) -> Grid:
    found = [m for m in profile.of("kernel", "chunk") if (m.heads, m.head_dim) == (heads, head_dim)]
    ctxs = sorted({m.ctx for m in found})
    rows = [_row([m for m in found if m.model == name], ctxs, _kernel, _how(found, name)) for name in _models(found)]
    return _grid("One forward", ctxs, rows)


def kernel_ratio_grid(profile: Profile) -> Grid:
    """General DPLR over KDA, what operations alone allow, and the paper's."""
    from kleval.report.paper_curves import KERNELS, LABEL

    ctxs = sorted({r.ctx for r in profile.kernel_ratios})
    by_place = {((r.heads, r.head_dim), r.ctx): r for r in profile.kernel_ratios}
    rows = []
    for shape in dict.fromkeys((r.heads, r.head_dim) for r in profile.kernel_ratios):
        cells = []
        for ctx in ctxs:
            r = by_place.get((shape, ctx))
            interval = "" if r is None or r.n < 2 else f"{words.times(r.low)} – {words.times(r.high)}"
            ideal = "" if r is None or not r.ideal else f"ops {words.times(r.ideal)}"
            cells.append(EMPTY if r is None else Cell(words.times(r.value), tuple(t for t in (interval, ideal) if t)))
        name = f"{shape[0]} heads of {shape[1]}"
        rows.append(Row(name, tuple(cells), name))
    paper = KERNELS.ratio("kda", "dplr")
    cells = [Cell(words.times(paper[ctx])) if ctx in paper else EMPTY for ctx in ctxs]
    rows.append(Row("paper, Fig. 2", tuple(cells), note=LABEL.removeprefix("paper, ")))
    return _grid("DPLR over KDA", ctxs, rows)


def step_grid(profile: Profile) -> Grid:
    """Recurrent forms: one decoded token, a column per number of heads."""
    found = profile.of("kernel", "recurrent")
    shapes = list(dict.fromkeys((m.heads, m.head_dim) for m in found))
    rows = []
    for name in _models(found):
        by_shape = {(m.heads, m.head_dim): m for m in found if m.model == name}
        cells = tuple(_kernel(by_shape[shape]) if shape in by_shape else EMPTY for shape in shapes)
        rows.append(Row(name, cells, name, _how(found, name)))
    return Grid("One token", tuple(f"{heads} heads of {dim}" for heads, dim in shapes), tuple(rows))


def check_grid(profile: Profile) -> Grid:
    """Error of sampled against full prefill of the same prompts, median over repeats; failed beyond the run's limit."""
    limit = float(profile.get("sampling_checks", "limit", default=CHECK_LIMIT))
    full = {(m.model, m.ctx): m for m in profile.of("prefill", "full") if not m.failed}
    both = {(m.model, m.ctx): m for m in profile.of("prefill", "sampled") if not m.failed and (m.model, m.ctx) in full}
    ctxs = sorted({ctx for _, ctx in both})
    rows = []
    for model in dict.fromkeys(model for model, _ in both):
        cells = []
        for ctx in ctxs:
            sampled, theirs = both.get((model, ctx)), full.get((model, ctx))
            if sampled is None or theirs is None:
                cells.append(EMPTY)
                continue
            error = (sampled.of("sampled_over_full") or sampled.value / theirs.value) - 1
            sign = "+" if error >= 0 else MINUS
            subs = (f"≈ {words.seconds(sampled.value)}", f"full {words.seconds(theirs.value)}")
            kind = "failed" if abs(error) > limit else ""
            cells.append(Cell(f"{sign}{abs(100 * error):.1f} %", subs, kind))
        rows.append(Row(model, tuple(cells), model))
    return _grid("Error of the estimate", ctxs, rows)


@dataclass(frozen=True, slots=True)
class Bar:
    """State bytes of one model at one length. parts: (component, share of the length's largest in %, text)."""

    model: str
    total: str
    parts: tuple[tuple[str, float, str], ...]
    note: str = ""


def state_bars(profile: Profile) -> list[tuple[str, list[Bar]]]:
    """Per length, the models' bytes by component, on one scale within the length; at most MAX_BAR_LENGTHS, the longest among them."""
    found, ctxs = [], profile.ctxs("memory")
    step = max(1, -(-len(ctxs) // MAX_BAR_LENGTHS))
    for ctx in ctxs[::-1][::step][::-1]:
        here = [m for m in profile.of("memory") if m.ctx == ctx]
        largest = max((m.value for m in here if not m.failed), default=0.0)
        bars = []
        for m in here:
            if m.failed:
                bars.append(Bar(m.model, words.DASH, (), f"failed: {m.failure}"))
                continue
            parts = [(name, m.of(f"{name}_bytes") or 0.0) for name in ("latent", "recurrent", "conv")]
            shares = tuple(
                (name, 100 * value / largest, words.size(value, precise=True)) for name, value in parts if value
            )
            bars.append(Bar(m.model, words.size(m.value, precise=True), shares))
        found.append((words.format_length(ctx), bars))
    return found


def _models(found: Sequence[Measure]) -> list[str]:
    return list(dict.fromkeys(m.model for m in found))


def _grid(corner: str, ctxs: Sequence[int], rows: Sequence[Row]) -> Grid:
    return Grid(corner, tuple(words.format_length(ctx) for ctx in ctxs), tuple(rows))


def _row(found: Sequence[Measure], ctxs: Sequence[int], show: Show, note: str = "") -> Row:
    by_ctx = {m.ctx: m for m in found}
    cells = tuple(_cell(by_ctx[ctx], show) if ctx in by_ctx else EMPTY for ctx in ctxs)
    return Row(found[0].model, cells, found[0].model, note)


def _cell(m: Measure, show: Show) -> Cell:
    return Cell("failed", kind="failed", title=m.failure) if m.failed else show(m)


def _spread(m: Measure) -> str:
    return "" if m.spread is None else f"± {50 * m.spread:.0f} %"


def _prefill(m: Measure) -> Cell:
    speed = words.rate(m.of("tokens_per_second"), "tok/s")
    title = f"{m.repeats} repeats, {words.seconds(m.low)} to {words.seconds(m.high)}"
    return Cell(
        words.seconds(m.value), tuple(t for t in (speed, _spread(m)) if t), "estimate" if m.estimate else "", title
    )


def _decode(m: Measure) -> Cell:
    step, p90, p99 = (m.of(f"step_ms_{name}") for name in ("median", "p90", "p99"))
    title = f"step {_ms(step)}, p90 {_ms(p90)}, p99 {_ms(p99)}; {m.of('steps') or 0:.0f} steps x {m.repeats} repeats"
    subs = [f"p90 {_ms(p90)}", words.rate(m.of("tokens_per_second"), "tok/s"), _spread(m)]
    if m.protocol != "batch-1":
        subs = [f"batch {m.batch:,}", f"step {_ms(step)}", *subs]
    return Cell(_ms(m.value), tuple(t for t in subs if t), title=title)


def _ms(value: float | None) -> str:
    return words.seconds(None if value is None else value / 1000)


def _ratio(r: Ratio | None) -> Cell:
    if r is None:
        return EMPTY
    interval = "one repeat" if math.isnan(r.low) else f"{words.times(r.low)} – {words.times(r.high)}"
    what = "ops" if r.kind == "prefill" else "bytes"
    subs = [interval, f"{what} {words.times(r.ideal)}" if r.ideal else ""]
    if r.kind == "decode" and r.batch != r.baseline_batch:
        subs.append(f"batch {r.batch:,} / {r.baseline_batch:,}")
    return Cell(words.times(r.value), tuple(t for t in subs if t), "estimate" if r.estimate else "")


def _memory(m: Measure) -> Cell:
    closed = m.closed("state_bytes")
    equal = "= closed form" if closed == m.value else f"closed form {words.size(closed, precise=True)}"
    subs = [equal, f"alloc. {words.size(m.of('allocated_bytes'), precise=True)}"]
    kinds = (
        ("workspace", "workspace_bytes"),
        ("peak", "peak_bytes"),
        ("reserved", "reserved_bytes"),
        ("RSS", "rss_bytes"),
    )
    seen = [f"{name} {words.size(value, precise=True)}" for name, key in kinds if (value := m.of(key)) is not None]
    title = "; ".join([f"weights {words.size(m.of('weights_bytes'), precise=True)}", *seen])
    return Cell(words.size(m.value, precise=True), tuple(subs), "" if closed == m.value else "failed", title)


def _bound(m: Measure) -> Cell:
    factor = 1e-3 if m.kind == "decode" else 1.0
    bound = None if m.bound is None else m.bound * factor
    reached = m.of("mbu" if m.kind == "decode" else "mfu")
    subs = (f"took {words.seconds(m.value * factor)}", f"bound {words.seconds(bound)}")
    return Cell(words.percent(reached), subs, "estimate" if m.estimate else "")


def _kernel(m: Measure) -> Cell:
    if m.failed:
        return Cell("failed", kind="failed", title=m.failure)
    speed = words.rate(m.of("flops_per_second"), "FLOP/s")
    share = words.percent(m.bound / m.value) if m.bound else ""
    subs = [f"p90 {words.seconds(m.of('seconds_p90'))}", speed, f"{share} of bound" if share else "", _spread(m)]
    return Cell(words.seconds(m.value), tuple(t for t in subs if t), title=f"{m.repeats} repeats")


def _how(found: Sequence[Measure], name: str) -> str:
    """Which code computed it."""
    settings = next((m.first.settings for m in found if m.model == name and m.good), {})
    chunk = settings.get("chunk_tokens")
    return str(settings.get("implementation") or "") + (f", chunks of {chunk}" if chunk else "")
