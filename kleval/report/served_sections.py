"""Served models as their callers see them: time to first token, time per token and throughput, a curve per concurrency.

Several rounds stand behind every number: the median is shown. Where rounds failed, the cell says how many; they are in no number.
"""

from __future__ import annotations

from kleval import text as words
from kleval.report.cost_curves import (
    Rows,
    Show,
    against_length,
    by_load,
    measured,
    measured_grid,
    milliseconds,
    subs,
)
from kleval.report.figure import Cell, Figure, Grid, looks_of, plain
from kleval.report.load_sections import load_cards, reuse_cards
from kleval.report.sections import Card, Section, card, section
from kleval.tables import cost_rows
from kleval.tables.costs import Measure, Profile
from kleval.text import plural


def served_section(profile: Profile, rows: Rows) -> Section | None:
    if not profile.of("served"):
        return None
    csv = cost_rows.part(rows, "served")
    cards = [
        card(f"served-{quantity}", [served_figure(profile, quantity)], served_grid(profile, show), csv)
        for quantity, (_, show) in QUANTITIES.items()
    ]
    return section(
        "served", [*cards, *load_cards(profile, csv), *reuse_cards(profile, csv), *_memory_cards(profile, csv)]
    )


def served_figure(profile: Profile, quantity: str) -> Figure:
    """One quantity against prompt length; whiskers are the smallest and the largest round."""
    name, _ = QUANTITIES[quantity]
    rate = quantity == "throughput"
    factor, spell, tick = (1.0, _rate, words.rate_tick) if rate else (1e-3, words.seconds, words.seconds_tick)
    found = profile.of("served")
    key, label = by_load(found)
    lines = measured(found, looks_of(map(key, found)), factor, spell, name, key, label)
    return against_length("prompt, tokens", profile.ctxs("served"), lines, tick)


def served_grid(profile: Profile, show: Show) -> Grid:
    """A row per load, a column per length."""
    found = profile.of("served")
    key, label = by_load(found)
    return measured_grid("Requests", found, show, key, lambda m: label(key(m)))


def _memory_cards(profile: Profile, csv: str) -> list[Card]:
    """What formula, engine and machine say of memory, by length; none where neither of the last two does."""
    found = {(m.model, m.ctx): m for m in reversed(profile.of("served"))}
    known = [
        m
        for m in found.values()
        if any(m.of(name) for name in ("engine_pool_tokens", "engine_pool_bytes", "server_rss_bytes"))
    ]
    if not known:
        return []
    heads = (
        "Model",
        "Prompt",
        "Formula, one sequence",
        "Engine's pool",
        "Its tokens",
        "Block",
        "A sequence in it",
        "Resident",
        "On GPUs",
        "Grown",
    )
    lines = [
        [
            m.model,
            words.format_length(m.ctx),
            _size(m.closed("state_bytes")),
            _size(m.of("engine_pool_bytes")),
            words.number(m.of("engine_pool_tokens")),
            words.number(m.of("engine_block_tokens")),
            words.size_at(m.of("engine_sequence_bytes"), m.of("engine_sequence_tokens")) or words.DASH,
            _size(m.of("server_rss_bytes")),
            _size(m.of("server_device_bytes")),
            _size(m.of("server_grown_bytes")),
        ]
        for m in sorted(known, key=lambda m: (m.ctx, m.model))
    ]
    return [card("served-memory", [], plain(heads, lines, range(1, len(heads))), csv)]


def _size(value: float | None) -> str:
    return words.DASH if value is None else words.size(value)


def _ttft(m: Measure) -> Cell:
    last = f"last {milliseconds(m.of('ttft_ms_max'))}" if m.batch > 1 else ""
    prompt, cached = m.of("prompt_tokens"), m.total("cached_tokens") or 0
    counted = f"prompt {prompt:,.0f}" if prompt is not None and round(prompt) != m.ctx else ""
    warm = m.of("warmup_ttft_ms")
    title = f"{plural(m.repeats, 'round')}, prompt of {prompt:,.0f} tokens" if prompt is not None else ""
    title += f"; warming up {milliseconds(warm)}" if warm else ""
    more = subs(last, counted, f"{cached:,.0f} cached" if cached else "")
    limited = subs("limited by the client" if m.total("client_limited") else "")
    return Cell(milliseconds(m.of("ttft_ms")), more, title=title, warnings=limited)


def _tpot(m: Measure) -> Cell:
    between = {"p50": "itl_ms_median", "p90": "itl_ms_p90", "p99": "itl_ms_p99"}
    several = m.of("tokens_per_arrival") or 1.0
    at_a_time = f"{several:.1f} tokens at a time" if several > 1.05 else ""
    stalled = f"{milliseconds(m.of('stalled_tpot_ms'))} while others prefill" if m.of("stalled_tpot_ms") else ""
    title = f"{plural(m.repeats, 'round')}, {milliseconds(m.low)} to {milliseconds(m.high)}"
    more = subs(*(f"{label} {milliseconds(m.of(name))}" for label, name in between.items()), at_a_time, stalled)
    return Cell(milliseconds(m.of("tpot_ms")), more, "estimate" if m.estimate else "", title)


def _throughput(m: Measure) -> Cell:
    prompts = words.rate(m.of("prompt_tokens_per_second"), "tok/s")
    more = (f"end to end {milliseconds(m.of('e2e_ms'))}", f"prompts {prompts}")
    return Cell(_rate(m.of("output_tokens_per_second")), more)


def _rate(value: float | None) -> str:
    return words.rate(value, "tok/s")


# quantity -> the value that is drawn, and its cell
QUANTITIES: dict[str, tuple[str, Show]] = {
    "ttft": ("ttft_ms", _ttft),
    "tpot": ("tpot_ms", _tpot),
    "throughput": ("output_tokens_per_second", _throughput),
}
