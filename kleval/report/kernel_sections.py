"""Kernels: one operator at a time, beside the paper's general DPLR and KDA."""

from __future__ import annotations

from collections.abc import Sequence

from kleval import text as words
from kleval.report.cost_curves import (
    Rows,
    against_length,
    cell,
    measured,
    measured_grid,
    printed,
    ratio_grid,
    ratio_lines,
    spread,
    subs,
)
from kleval.report.figure import EMPTY, Cell, Figure, Grid, Row, looks_of
from kleval.report.paper_curves import KERNEL_HEAD_DIM, KERNEL_HEADS, LABEL, paper_figures
from kleval.report.sections import Section, card, section
from kleval.tables import cost_rows
from kleval.tables.costs import OPERATORS, Measure, Profile
from kleval.tables.ratios import Ratio


def kernel_section(profile: Profile, rows: Rows) -> Section | None:
    cards = []
    csv = cost_rows.part(rows, "kernel", ["chunk"])
    for heads, dim in dict.fromkeys((m.heads, m.head_dim) for m in profile.of("kernel", "chunk")):
        found = [m for m in profile.of("kernel", "chunk") if (m.heads, m.head_dim) == (heads, dim)]
        table, name = measured_grid("One forward", found, _kernel, note=_how), f"kernel-{heads}-{dim}"
        cards.append(card("kernel", [kernel_figure(found)], table, csv, name, shape=_shape(found[0])))
    if ratios := profile.kernel_ratios:
        paper = {
            ctx: Cell(words.times(value)) for ctx, value in paper_figures()["kernels"].ratio("kda", "dplr").items()
        }
        below = [("paper, Fig. 2", paper, LABEL.removeprefix("paper, "))]
        table = ratio_grid("DPLR over KDA", ratios, _shape, below=below)
        cards.append(card("kernel-ratio", [ratio_figure(ratios)], table, csv))
    csv = cost_rows.part(rows, "kernel", ["recurrent"])
    found_section = section("kernels", [*cards, card("kernel-steps", grid=step_grid(profile), csv=csv)])
    return found_section if found_section.cards else None


def _shape(of: Measure | Ratio) -> str:
    return f"{of.heads} heads of {of.head_dim}"


def kernel_figure(found: Sequence[Measure]) -> Figure:
    """Seconds of one operator against T; the paper's own times only where shape and kind of device are its own."""
    ctxs, looks = [m.ctx for m in found], looks_of(OPERATORS)
    lines = measured(found, looks, 1.0)
    on_cuda = all(str(m.first.settings.get("device")).startswith("cuda") for m in found if m.good)
    theirs = paper_figures()["kernels"]
    if on_cuda and (found[0].heads, found[0].head_dim) == (KERNEL_HEADS, KERNEL_HEAD_DIM):
        lines = [*printed(theirs.curves, theirs, ctxs, 1e-3, words.seconds, looks), *lines]
    return against_length("tokens", ctxs, lines, words.seconds_tick)


def ratio_figure(found: Sequence[Ratio]) -> Figure:
    """General DPLR over KDA, per shape, beside the paper's."""
    ctxs = sorted({r.ctx for r in found})
    theirs = paper_figures()["kernels"]
    lines = printed({"dplr / kda": theirs.ratio("kda", "dplr")}, theirs, ctxs, 1.0, words.times, {})
    lines += ratio_lines(found, looks_of(dict.fromkeys(map(_shape, found))), "operations", _shape)
    return against_length("tokens", ctxs, lines, words.times_tick, even=True)


def step_grid(profile: Profile) -> Grid:
    """Recurrent forms: one decoded token, a column per number of heads."""
    found = profile.of("kernel", "recurrent")
    shapes = list(dict.fromkeys(map(_shape, found)))
    by_place = {(m.model, _shape(m)): cell(m, _kernel) for m in found}
    notes = {m.model: _how(m) for m in found}
    rows = [Row(name, tuple(by_place.get((name, one), EMPTY) for one in shapes), how) for name, how in notes.items()]
    return Grid(("One token", *shapes), tuple(rows))


def _kernel(m: Measure) -> Cell:
    speed = words.rate(m.of("flops_per_second"), "FLOP/s")
    share = f"{words.percent(m.bound / m.value)} of bound" if m.bound else ""
    more = subs(f"p90 {words.seconds(m.of('seconds_p90'))}", speed, share, spread(m))
    return Cell(words.seconds(m.value), more, title=words.plural(m.repeats, "repeat"))


def _how(m: Measure) -> str:
    """Which code computed it."""
    settings = m.first.settings if m.good else {}
    chunk = settings.get("chunk_tokens")
    return str(settings.get("implementation") or "") + (f", chunks of {chunk}" if chunk else "")
