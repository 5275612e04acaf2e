"""The profile's page for served models: time to first token, time per token and throughput, a curve per concurrency.

Several rounds stand behind every number: big is their median. Where rounds failed, the cell says how many; they are in no number.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from kleval import text as words
from kleval.report.figures import Look, looks_of
from kleval.report.header import Fact
from kleval.report.profile_lines import Figure, Line, draw, escaped
from kleval.report.profile_tables import EMPTY, Cell, Grid, Row
from kleval.tables.costs import Measure, Profile, software_of
from kleval.text import plural

QUANTITIES = {
    "ttft": (
        "Time to first token",
        "ttft_ms",
        "Submitted until the first content token is there, median over the requests of a round.",
    ),
    "tpot": (
        "Time per output token",
        "tpot_ms",
        "From the first token to the last, over the tokens after the first, as the server counts them. Below: the times between "
        "tokens, pooled over the requests of a round.",
    ),
    "throughput": (
        "Output throughput",
        "output_tokens_per_second",
        "All output tokens of a round over the time from its first submission to its last token; prefill is in it.",
    ),
}


def served_figure(profile: Profile, quantity: str) -> Figure:
    """One quantity against prompt length, a line per concurrency; whiskers are the smallest and the largest round."""
    _, name, _ = QUANTITIES[quantity]
    rate = quantity == "throughput"
    factor = 1.0 if rate else 1e-3
    text: Callable[[float], str] = _rate if rate else words.seconds
    look = _looks(profile)
    lines = []
    for protocol in profile.protocols("served"):
        found = [m for m in profile.of("served", protocol) if m.of(name)]
        values = [[factor * float(p.values.get(name) or 0) for p in m.good] for m in found]
        texts = [
            f"<b>{escaped(together(protocol))}</b> at {words.format_length(m.ctx)}<br>{text(median(v))}"
            + (f"<br>{text(min(v))} to {text(max(v))}" if len(v) > 1 else "")
            for m, v in zip(found, values, strict=True)
        ]
        lines.append(
            Line(
                protocol,
                together(protocol),
                [m.ctx for m in found],
                [median(v) for v in values],
                texts,
                look[protocol],
                low=[min(v) for v in values],
                high=[max(v) for v in values],
            )
        )
    return draw(lines, profile.ctxs("served"), words.rate_tick if rate else words.seconds_tick)


def served_grid(profile: Profile, quantity: str) -> Grid:
    """A row per concurrency, a column per length."""
    show = {"ttft": _ttft, "tpot": _tpot, "throughput": _throughput}[quantity]
    ctxs = profile.ctxs("served")
    rows = []
    for protocol in profile.protocols("served"):
        by_ctx = {m.ctx: m for m in profile.of("served", protocol)}
        cells = tuple(_cell(profile, by_ctx[ctx], show) if ctx in by_ctx else EMPTY for ctx in ctxs)
        rows.append(Row(together(protocol), cells))
    return Grid("Requests", tuple(words.format_length(ctx) for ctx in ctxs), tuple(rows))


def served_tiles(profile: Profile) -> list[Fact]:
    """The few facts in large type."""
    counted = [p for p in profile.points if p.kind == "served"]
    failed = len(profile.failures)
    settings = next((p.settings for p in counted), {})
    environment = profile.environments[0] if profile.environments else {}
    sent = [cached for p in counted if (cached := p.values.get("cached_tokens")) is not None]
    where = settings.get("hardware") or settings.get("server") or environment.get("gpu") or environment.get("cpu")
    return [
        Fact("Prompts, tokens", ", ".join(words.format_length(ctx) for ctx in profile.ctxs("served"))),
        Fact("Served by", software_of(environment)),
        Fact("Where", str(where or words.DASH)),
        Fact("Requests together", ", ".join(p.removeprefix("concurrency-") for p in profile.protocols("served"))),
        Fact("Tokens asked of each", str(settings.get("decode_tokens", words.DASH))),
        Fact("Prompts sent as", str(settings.get("prompts", words.DASH))),
        Fact("From prefix cache", f"{sum(sent):,.0f} tokens" if sent else "not told"),
        Fact("Rounds", f"{len(counted):,}" + (f", {failed:,} failed" if failed else ", none failed")),
    ]


def together(protocol: str) -> str:
    """`1 request`, `8 requests together`."""
    n = int(protocol.removeprefix("concurrency-"))
    return "1 request" if n == 1 else f"{n} requests together"


def _looks(profile: Profile) -> dict[str, Look]:
    return looks_of(profile.protocols("served"))


def _cell(profile: Profile, m: Measure, show: Callable[[Measure], Cell]) -> Cell:
    if m.failed:
        return Cell("failed", kind="failed", title=m.failure)
    cell = show(m)
    failed = sum((p.kind, p.protocol, p.ctx) == (m.kind, m.protocol, m.ctx) for p in profile.failures)
    if not failed:
        return cell
    return Cell(cell.big, (*cell.subs, f"{plural(failed, 'round')} failed"), cell.kind, cell.title)


def _ttft(m: Measure) -> Cell:
    subs = []
    if m.batch > 1:
        subs.append(f"last {_ms(m.of('ttft_ms_max'))}")
    prompt, cached = m.of("prompt_tokens"), sum(p.values.get("cached_tokens") or 0 for p in m.good)
    if prompt is not None and round(prompt) != m.ctx:
        subs.append(f"prompt {prompt:,.0f}")
    if cached:
        subs.append(f"{cached:,.0f} cached")
    warm = m.of("warmup_ttft_ms")
    title = f"{plural(m.repeats, 'round')}, prompt of {prompt:,.0f} tokens" if prompt is not None else ""
    return Cell(_ms(m.of("ttft_ms")), tuple(subs), title=title + (f"; warming up {_ms(warm)}" if warm else ""))


def _tpot(m: Measure) -> Cell:
    subs = [
        f"{label} {_ms(m.of(f'itl_ms_{name}'))}" for label, name in (("p50", "median"), ("p90", "p90"), ("p99", "p99"))
    ]
    several = m.of("tokens_per_arrival") or 1.0
    if several > 1.05:
        subs.append(f"{several:.1f} tokens at a time")
    title = f"{plural(m.repeats, 'round')}, {_ms(m.low)} to {_ms(m.high)}"
    return Cell(_ms(m.of("tpot_ms")), tuple(subs), title=title)


def _throughput(m: Measure) -> Cell:
    subs = (f"end to end {_ms(m.of('e2e_ms'))}", f"prompts {words.rate(m.of('prompt_tokens_per_second'), 'tok/s')}")
    return Cell(_rate(m.of("output_tokens_per_second")), subs)


def _ms(value: float | None) -> str:
    return words.seconds(None if value is None else value / 1000)


def _rate(value: float | None) -> str:
    return words.rate(value, "tok/s")
