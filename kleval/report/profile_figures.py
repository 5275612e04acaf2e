"""The profile's curves: which lines each figure has. How lines are drawn is `profile_lines`'.

A model keeps its colour, marker and dash everywhere. The paper's times are overlaid on models of the published shape alone, its
ratios on all: what its times were measured on is not stated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from kleval import text as words
from kleval.report.figures import Look, looks_of
from kleval.report.paper_curves import BY_QUANTITY, KERNEL_HEAD_DIM, KERNEL_HEADS, KERNELS, LABEL, PaperFigure
from kleval.report.profile_lines import GREY, Figure, Line, draw, escaped
from kleval.tables.costs import OPERATORS, Measure, Profile

PUBLISHED_SIZE = "48b-a3b"


def looks(profile: Profile) -> dict[str, Look]:
    """Models in the run's order, then operators, which no figure shares with models."""
    return looks_of(profile.models) | looks_of(OPERATORS)


def prefill_figure(profile: Profile) -> Figure:
    """Seconds of a prompt against its length: run in full, and sampled."""
    lines = _paper_lines(profile, "prefill", 1.0)
    for protocol, style in (("sampled", "estimate"), ("full", "measured")):
        lines += _measure_lines(profile, profile.of("prefill", protocol), style, 1.0)
    return draw(lines, profile.ctxs("prefill"), words.seconds_tick)


def decode_figure(profile: Profile, protocol: str) -> Figure:
    """Seconds per token of all sequences together against depth."""
    lines = _paper_lines(profile, protocol, 1e-3)
    lines += _measure_lines(profile, profile.of("decode", protocol), "measured", 1e-3)
    return draw(lines, [m.ctx for m in profile.of("decode", protocol)], words.seconds_tick)


def ratio_figure(profile: Profile, kind: str, protocol: str) -> Figure:
    """The baseline's time over each model's, what operations or bytes alone allow, and the ceiling of cache bytes."""
    look = looks(profile)
    ctxs = sorted({r.ctx for r in profile.ratios if r.kind == kind})
    lines = []
    for model in (m for m in profile.models if m != profile.baseline):
        found = [r for r in profile.ratios if (r.kind, r.protocol, r.model) == (kind, protocol, model)]
        if found:
            ideal = [(r.ctx, r.ideal) for r in found if r.ideal]
            what = "operations" if kind == "prefill" else "bytes"
            lines.append(_allowed(model, ideal, look[model], f"{what} alone allow", words.times))
            texts = [
                f"<b>{escaped(model)}</b> at {words.format_length(r.ctx)}<br>{words.times(r.value)}"
                + ("" if r.n < 2 else f"  (95 %: {words.times(r.low)} – {words.times(r.high)})")
                + ("<br>estimate" if r.estimate else "")
                for r in found
            ]
            lows = [r.value if math.isnan(r.low) else r.low for r in found]
            highs = [r.value if math.isnan(r.high) else r.high for r in found]
            style = "estimate" if protocol == "sampled" else "measured"
            values = [r.value for r in found]
            lines.append(Line(model, model, [r.ctx for r in found], values, texts, look[model], style, lows, highs))
    if profile.baseline.split("@")[0] == "mla":
        quantity = "prefill" if kind == "prefill" else protocol
        lines = _paper_ratio_lines(profile, quantity, ctxs) + lines
    ceilings = profile.ceilings() if kind == "decode" else []
    return draw(lines, ctxs, words.times_tick, ceilings=ceilings, even=True)


def state_ratio_figure(profile: Profile) -> Figure:
    """The baseline's state bytes over each model's."""
    look, lines = looks(profile), []
    for model in (m for m in profile.models if m != profile.baseline):
        found = [r for r in profile.state_ratios() if r.model == model]
        texts = [
            f"<b>{escaped(model)}</b> at {words.format_length(r.ctx)}<br>{words.times(r.value)} fewer bytes"
            for r in found
        ]
        lines.append(Line(model, model, [r.ctx for r in found], [r.value for r in found], texts, look[model]))
    return draw(lines, profile.ctxs("memory"), words.times_tick, ceilings=profile.ceilings(), even=True)


def bound_figure(profile: Profile, kind: str, protocol: str) -> Figure:
    """Measured times and the least that the machine's bound allows."""
    look, factor = looks(profile), 1.0 if kind == "prefill" else 1e-3
    found = profile.of(kind, protocol)
    lines = []
    for model in dict.fromkeys(m.model for m in found):
        pairs = [(m.ctx, m.bound * factor) for m in found if m.model == model and m.bound]
        lines.append(_allowed(model, pairs, look[model], "bound", words.seconds))
    lines += _measure_lines(profile, found, "estimate" if protocol == "sampled" else "measured", factor)
    return draw(lines, [m.ctx for m in found], words.seconds_tick)


def utilisation_figure(profile: Profile, kind: str, protocol: str) -> Figure:
    """MFU or MBU."""
    look, name = looks(profile), "mfu" if kind == "prefill" else "mbu"
    lines = []
    found = profile.of(kind, protocol)
    for model in dict.fromkeys(m.model for m in found):
        known = [(m.ctx, value) for m in found if m.model == model and (value := m.of(name))]
        texts = [
            f"<b>{escaped(model)}</b> at {words.format_length(c)}<br>{name.upper()} {words.percent(v)}"
            for c, v in known
        ]
        style = "estimate" if protocol == "sampled" else "measured"
        lines.append(Line(model, model, [c for c, _ in known], [v for _, v in known], texts, look[model], style))
    return draw(lines, [m.ctx for m in found], words.percent_tick)


def kernel_figure(profile: Profile, heads: int, head_dim: int) -> Figure:
    """Seconds of one operator against T; the paper's own times only where shape and kind of device are its own."""
    found = [m for m in profile.of("kernel", "chunk") if (m.heads, m.head_dim) == (heads, head_dim)]
    ctxs = [m.ctx for m in found]
    lines = []
    if (heads, head_dim) == (KERNEL_HEADS, KERNEL_HEAD_DIM) and all(
        str(m.first.settings.get("device")).startswith("cuda") for m in found if m.good
    ):
        lines = _grey_lines(KERNELS.curves, KERNELS, ctxs, 1e-3, words.seconds, looks_of(OPERATORS))
    return draw(lines + _measure_lines(profile, found, "measured", 1.0), ctxs, words.seconds_tick)


def kernel_ratio_figure(profile: Profile) -> Figure:
    """General DPLR over KDA, per shape, beside the paper's."""
    ctxs = sorted({r.ctx for r in profile.kernel_ratios})
    shapes = list(dict.fromkeys((r.heads, r.head_dim) for r in profile.kernel_ratios))
    look = looks_of([f"{heads} heads of {head_dim}" for heads, head_dim in shapes])
    lines = _grey_lines({"dplr / kda": KERNELS.ratio("kda", "dplr")}, KERNELS, ctxs, 1.0, words.times, {})
    for (heads, head_dim), (name, mine) in zip(shapes, look.items(), strict=True):
        found = [r for r in profile.kernel_ratios if (r.heads, r.head_dim) == (heads, head_dim)]
        texts = [
            f"<b>{name}</b>, {words.format_length(r.ctx)} tokens<br>{words.times(r.value)}"
            + ("" if r.n < 2 else f"  (95 %: {words.times(r.low)} – {words.times(r.high)})")
            for r in found
        ]
        lows = [r.value if math.isnan(r.low) else r.low for r in found]
        highs = [r.value if math.isnan(r.high) else r.high for r in found]
        lines.append(
            Line(name, name, [r.ctx for r in found], [r.value for r in found], texts, mine, low=lows, high=highs)
        )
    ideal = [(r.ctx, r.ideal) for r in profile.kernel_ratios if r.ideal]
    if ideal:
        plain = Look(GREY, "circle", "dot")
        lines.append(_allowed("operations", sorted(set(ideal)), plain, "operations alone allow", words.times))
    return draw(lines, ctxs, words.times_tick, even=True)


def _measure_lines(profile: Profile, found: Sequence[Measure], style: str, factor: float) -> list[Line]:
    """One line per model with the spread of its repeats; factor: of value to seconds."""
    look, lines = looks(profile), []
    for model in dict.fromkeys(m.model for m in found):
        mine = [m for m in found if m.model == model and not m.failed]
        lines.append(
            Line(
                model,
                model,
                [m.ctx for m in mine],
                [m.value * factor for m in mine],
                [_hover(m, factor) for m in mine],
                look[model],
                style,
                [m.low * factor for m in mine],
                [m.high * factor for m in mine],
            )
        )
    return lines


def _hover(m: Measure, factor: float) -> str:
    lines = [f"<b>{escaped(m.model)}</b> at {words.format_length(m.ctx)}", words.seconds(m.value * factor)]
    if m.repeats > 1:
        lines[-1] += f"  ({words.seconds(m.low * factor)} – {words.seconds(m.high * factor)}, {m.repeats} repeats)"
    if m.kind == "decode":
        lines.append(f"batch {m.batch:,}, step {words.seconds((m.of('step_ms_median') or math.nan) / 1000)}")
    if m.kind == "prefill":
        lines.append("sampled: estimate" if m.estimate else "run in full")
    return "<br>".join(lines)


def _allowed(
    model: str, pairs: Sequence[tuple[int, float]], look: Look, what: str, text: Callable[[float], str]
) -> Line:
    texts = [f"<b>{escaped(model)}</b> at {words.format_length(c)}<br>{what}: {text(v)}" for c, v in pairs]
    return Line(
        model,
        what if model == "operations" else model,
        [c for c, _ in pairs],
        [v for _, v in pairs],
        texts,
        look,
        "allowed",
    )


def _paper_lines(profile: Profile, quantity: str, factor: float) -> list[Line]:
    """The paper's own times, where the run has models of the published shape."""
    figure = BY_QUANTITY.get(quantity)
    here = {m.split("@")[0]: looks(profile)[m] for m in profile.models if m.endswith(f"@{PUBLISHED_SIZE}")}
    if figure is None or not here:
        return []
    kind = "prefill" if quantity == "prefill" else "decode"
    curves = {name: curve for name, curve in figure.curves.items() if name in here}
    return _grey_lines(curves, figure, profile.ctxs(kind), factor, words.seconds, here)


def _paper_ratio_lines(profile: Profile, quantity: str, ctxs: Sequence[int]) -> list[Line]:
    figure = BY_QUANTITY.get(quantity)
    if figure is None:
        return []
    look = {model.split("@")[0]: looks(profile)[model] for model in reversed(profile.models)}
    names = [name for name in figure.curves if name != "mla" and name in look]
    return _grey_lines({name: figure.ratio(name) for name in names}, figure, ctxs, 1.0, words.times, look)


def _grey_lines(
    curves: Mapping[str, Mapping[int, float]],
    figure: PaperFigure,
    ctxs: Iterable[int],
    factor: float,
    text: Callable[[float], str],
    look: Mapping[str, Look],
) -> list[Line]:
    """The paper's curves over the lengths that were measured here."""
    low, high = min(ctxs := sorted(ctxs), default=0), max(ctxs, default=0)
    lines = []
    for name, curve in curves.items():
        inside = {ctx: value * factor for ctx, value in curve.items() if low <= ctx <= high}
        texts = [
            f"<b>{escaped(name)}</b> at {words.format_length(c)}: {text(v)}<br>{figure.figure}, {LABEL}<br>{figure.note}"
            for c, v in inside.items()
        ]
        plain = look.get(name, Look(GREY, "circle", "dash"))
        label = f"{name}: {LABEL} ({figure.figure})"
        lines.append(Line(f"paper {name}", label, list(inside), list(inside.values()), texts, plain, "paper"))
    return lines
