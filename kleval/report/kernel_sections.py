"""Kernels: one operator at a time, beside the paper's general DPLR and KDA."""

from __future__ import annotations

from kleval import text as words
from kleval.report.cost_curves import (
    Rows,
    against_length,
    allowed,
    cell,
    compared,
    grid,
    measured,
    measured_grid,
    printed,
    spread,
    subs,
)
from kleval.report.figure import EMPTY, GREY, Cell, Figure, Grid, Look, Row, looks_of
from kleval.report.paper_curves import KERNEL_HEAD_DIM, KERNEL_HEADS, KERNELS, LABEL
from kleval.report.sections import Card, Section, whole
from kleval.tables import cost_rows
from kleval.tables.costs import OPERATORS, Measure, Profile


def kernel_section(profile: Profile, rows: Rows) -> Section | None:
    cards = []
    csv = cost_rows.part(rows, "kernel", ["chunk"])
    for heads, dim in dict.fromkeys((m.heads, m.head_dim) for m in profile.of("kernel", "chunk")):
        found = [m for m in profile.of("kernel", "chunk") if (m.heads, m.head_dim) == (heads, dim)]
        text = f"Forward of one operator alone, batch 1, {heads} heads of {dim}. Whiskers: smallest and largest repeat."
        table = measured_grid("One forward", found, _kernel, note=_how)
        figures = (kernel_figure(profile, heads, dim),)
        cards.append(Card(f"kernel-{heads}-{dim}", _shape(heads, dim), text, figures=figures, grid=table, csv=csv))
    if profile.kernel_ratios:
        text = (
            "How many times longer the general form takes than KDA, its special case: the paper says about 2x. "
            "Whiskers are 95 % intervals over paired repeats."
        )
        figure, table = ratio_figure(profile), ratio_grid(profile)
        cards.append(Card("kernel-ratio", "General DPLR over KDA", text, figures=(figure,), grid=table, csv=csv))
    text = "Batch 1. The state is read and written once; its size does not depend on the context."
    csv = cost_rows.part(rows, "kernel", ["recurrent"])
    cards.append(Card("kernel-steps", "Recurrent forms: one decoded token", text, grid=step_grid(profile), csv=csv))
    lead = (
        "One operator at a time, without projections around it. Each was checked against its recurrent form in float64 before it was "
        "timed."
    )
    kept = whole(cards)
    return Section("kernels", "Kernels", "Kernels", lead, kept, methods=("times", "kernels", "paper")) if kept else None


def _shape(heads: int, head_dim: int) -> str:
    return f"{heads} heads of {head_dim}"


def kernel_figure(profile: Profile, heads: int, head_dim: int) -> Figure:
    """Seconds of one operator against T; the paper's own times only where shape and kind of device are its own."""
    found = [m for m in profile.of("kernel", "chunk") if (m.heads, m.head_dim) == (heads, head_dim)]
    ctxs, looks = [m.ctx for m in found], looks_of(OPERATORS)
    lines = measured(found, looks, 1.0)
    on_cuda = all(str(m.first.settings.get("device")).startswith("cuda") for m in found if m.good)
    if on_cuda and (heads, head_dim) == (KERNEL_HEADS, KERNEL_HEAD_DIM):
        lines = [*printed(KERNELS.curves, KERNELS, ctxs, 1e-3, words.seconds, looks), *lines]
    return against_length("tokens", ctxs, lines, words.seconds_tick)


def ratio_figure(profile: Profile) -> Figure:
    """General DPLR over KDA, per shape, beside the paper's."""
    ctxs = sorted({r.ctx for r in profile.kernel_ratios})
    shapes = looks_of(dict.fromkeys((r.heads, r.head_dim) for r in profile.kernel_ratios))
    lines = printed({"dplr / kda": KERNELS.ratio("kda", "dplr")}, KERNELS, ctxs, 1.0, words.times, {})
    for shape, look in shapes.items():
        lines.append(
            compared(_shape(*shape), look, [r for r in profile.kernel_ratios if (r.heads, r.head_dim) == shape])
        )
    ideal = sorted({(r.ctx, r.ideal) for r in profile.kernel_ratios if r.ideal})
    what = "operations alone allow"
    lines.append(allowed("operations", Look(GREY, "circle", "dot"), ideal, what, words.times, name=what))
    return against_length("tokens", ctxs, lines, words.times_tick, even=True)


def ratio_grid(profile: Profile) -> Grid:
    """General DPLR over KDA, what operations alone allow, and the paper's."""
    cells: dict[str, dict[int, Cell]] = {}
    for r in profile.kernel_ratios:
        interval = "" if r.n < 2 else f"{words.times(r.low)} – {words.times(r.high)}"
        ideal = f"ops {words.times(r.ideal)}" if r.ideal else ""
        cells.setdefault(_shape(r.heads, r.head_dim), {})[r.ctx] = Cell(words.times(r.value), subs(interval, ideal))
    paper = {ctx: Cell(words.times(value)) for ctx, value in KERNELS.ratio("kda", "dplr").items()}
    rows = [(name, mine, "") for name, mine in cells.items()]
    rows.append(("paper, Fig. 2", paper, LABEL.removeprefix("paper, ")))
    return grid("DPLR over KDA", sorted({r.ctx for r in profile.kernel_ratios}), rows)


def step_grid(profile: Profile) -> Grid:
    """Recurrent forms: one decoded token, a column per number of heads."""
    found = profile.of("kernel", "recurrent")
    shapes = list(dict.fromkeys((m.heads, m.head_dim) for m in found))
    by_place = {(m.model, m.heads, m.head_dim): cell(m, _kernel) for m in found}
    notes = {m.model: _how(m) for m in found}
    rows = [
        Row(name, tuple(by_place.get((name, *shape), EMPTY) for shape in shapes), how) for name, how in notes.items()
    ]
    return Grid(("One token", *(_shape(*shape) for shape in shapes)), tuple(rows))


def _kernel(m: Measure) -> Cell:
    speed = words.rate(m.of("flops_per_second"), "FLOP/s")
    share = f"{words.percent(m.bound / m.value)} of bound" if m.bound else ""
    more = subs(f"p90 {words.seconds(m.of('seconds_p90'))}", speed, share, spread(m))
    return Cell(words.seconds(m.value), more, title=f"{m.repeats} repeats")


def _how(m: Measure) -> str:
    """Which code computed it."""
    settings = m.first.settings if m.good else {}
    chunk = settings.get("chunk_tokens")
    return str(settings.get("implementation") or "") + (f", chunks of {chunk}" if chunk else "")
