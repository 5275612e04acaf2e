"""Served models under load: throughput against latency, goodput, and the highest rate that holds an SLO, by length."""

from __future__ import annotations

from collections.abc import Sequence

from kleval.report.cost_curves import by_load, grouped, measured, measured_grid, milliseconds, subs
from kleval.report.figure import Axis, Cell, Figure, Grid, Series, lengths, logarithmic, looks_of, plain
from kleval.report.sections import Card, card
from kleval.tables.costs import Measure, Profile
from kleval.text import DASH, format_length, load, number, percent, plural, rate_tick, seconds, seconds_tick

LATENCIES = {"Time to first token, p99": "ttft_ms_p99", "Time per token of a request, p99": "request_tpot_ms_p99"}
SAVED = Axis(
    "time of the shared part that is saved, %",
    -20.0,
    105.0,
    tuple((v, str(v)) for v in (0, 25, 50, 75, 100)),
    log=False,
)
HEADS = (
    "Load",
    "Prompt",
    "Sent",
    "n",
    "Failed",
    "TTFT p50 · p90 · p99",
    "TPOT p50 · p90 · p99",
    "E2E p99",
    "In SLO",
    "Goodput",
)


def load_cards(profile: Profile, csv: str) -> list[Card]:
    """Throughput against latency, and the best rate by length; empty where no load was put on the model."""
    found = [m for m in profile.of("served") if m.protocol.startswith(("steady-", "rate-", "best-"))]
    if not found:
        return []
    drawn = [_against_throughput(found, title, name) for title, name in LATENCIES.items()]
    return [
        card("served-load", drawn, _grid(found), csv, names=tuple(LATENCIES)),
        card(
            "served-best-rate",
            [_frontier(found)],
            _rates(found),
            csv,
            slo=str(profile.get("settings", "slo", default=DASH)),
        ),
    ]


def reuse_cards(profile: Profile, csv: str) -> list[Card]:
    """How much of the time of a beginning that was sent before is saved, by length; none where that was not measured."""
    found = [m for m in profile.of("served") if m.of("reuse") is not None]
    if not found:
        return []
    key, label = by_load(found)
    looks = looks_of(map(key, found))
    lines = [measured(found, looks, 100.0, _percents, name, key, label) for name in ("reuse", "between_reuse")]
    axis = lengths([m.ctx for m in found], "prompt, tokens")
    drawn = [Figure(axis, SAVED, tuple(series)) for series in lines]
    names = ("At once", "After another conversation in between")
    return [
        card(
            "served-reuse",
            drawn,
            measured_grid("Beginning", found, _reuse, key, lambda m: label(key(m))),
            csv,
            names=names,
        )
    ]


def _reuse(m: Measure) -> Cell:
    more = subs(
        f"{milliseconds(m.of('ttft_ms'))} instead of {milliseconds(m.of('cold_ttft_ms'))}",
        f"after another {percent(m.of('between_reuse'))}",
        f"{reused:,.0f} tokens cached" if (reused := m.of("reused_tokens")) is not None else "",
    )
    return Cell(percent(m.of("reuse")), more)


def _percents(value: float | None) -> str:
    return percent(None if value is None else value / 100)


def _against_throughput(found: Sequence[Measure], title: str, name: str) -> Figure:
    """A curve per length, a point per load; the limits are those of the quantile over requests."""
    several = len({m.model for m in found}) > 1
    drawn = [m for m in found if m.of(name) and m.of("output_tokens_per_second")]
    by_length = grouped(drawn, lambda m: f"{format_length(m.ctx)}{f', {m.model}' if several else ''}")
    looks = looks_of(by_length)
    series = []
    for ctx, mine in by_length.items():
        mine = sorted(mine, key=lambda m: m.of("output_tokens_per_second") or 0)
        values = [1e-3 * (m.of(name) or 0) for m in mine]
        series.append(
            Series(
                f"load-{ctx}",
                ctx,
                looks[ctx],
                [m.of("output_tokens_per_second") or 0 for m in mine],
                values,
                [
                    [load(m.protocol), f"{seconds(value)}, n = {_count(m)}"]
                    for m, value in zip(mine, values, strict=True)
                ],
                labels=[load(m.protocol) for m in mine],
            )
        )
    x = logarithmic("output tokens per second", [x for one in series for x in one.x], rate_tick)
    y = logarithmic(title, [y for one in series for y in one.y if y], seconds_tick)
    return Figure(x, y, tuple(series))


def _frontier(found: Sequence[Measure]) -> Figure:
    """The best rate by length; its upper limit is the lowest tried that does not hold."""
    by = grouped([m for m in found if m.of("best_rate")])
    looks = looks_of(by)
    series = []
    for model, best in by.items():
        values = [m.of("best_rate") or 0 for m in best]
        above = [m.of("best_rate_above") or value for m, value in zip(best, values, strict=True)]
        words = [[format_length(m.ctx), f"{number(value)} requests/s"] for m, value in zip(best, values, strict=True)]
        name = "best rate" if len(by) == 1 else model
        series.append(Series(f"best-{model}", name, looks[model], [m.ctx for m in best], values, words, values, above))
    axis = lengths([m.ctx for best in by.values() for m in best] or [1], "prompt, tokens")
    levels = [v for one in series for v in (*one.y, *one.high) if v is not None]
    return Figure(axis, logarithmic("requests per second", levels, rate_tick), tuple(series))


def _grid(found: Sequence[Measure]) -> Grid:
    """With scores where the prompts were those of tasks."""
    key, label = by_load(found)
    heads = (*HEADS, "Score") if any(m.of("score") is not None for m in found) else HEADS
    lines = ([label(key(m)), *_line(m)] for m in found)
    return plain(
        heads, ([*line, *[""] * (len(heads) - len(line))][: len(heads)] for line in lines), range(1, len(heads))
    )


def _line(m: Measure) -> list[str | Cell]:
    """All but the load."""
    if m.failed:
        return [format_length(m.ctx), Cell("failed", kind="failed", title=m.failure)]
    limited = subs("limited by the client" if m.total("client_limited") else "")
    return [
        format_length(m.ctx),
        Cell(f"{number(m.of('requests_per_second'))}/s", warnings=limited),
        _count(m),
        number(m.total("failed_requests")),
        _spread(m, "ttft_ms"),
        _spread(m, "request_tpot_ms"),
        milliseconds(m.of("e2e_ms_p99")),
        _share(m),
        f"{number(m.of('goodput'))}/s" if m.of("goodput") is not None else DASH,
        _score(m),
    ]


def _score(m: Measure) -> Cell:
    score = m.mean("score", "scored")
    return Cell(
        DASH if score is None else percent(score),
        subs(f"of {m.total('scored') or 0:,.0f} answers" if score is not None else ""),
    )


def _share(m: Measure) -> Cell:
    low, high = m.of("slo_share_low"), m.of("slo_share_high")
    more = f"{percent(low)} to {percent(high)}" if low is not None else ""
    return Cell(percent(m.of("slo_share")), subs(more))


def _spread(m: Measure, name: str) -> Cell:
    """The three quantiles; under them the interval of the last."""
    low, high = m.of(f"{name}_p99_low"), m.of(f"{name}_p99_high")
    more = f"p99 {milliseconds(low)} to {milliseconds(high)}" if low is not None and high is not None else ""
    return Cell(" · ".join(milliseconds(m.of(f"{name}_{p}")) for p in ("p50", "p90", "p99")), subs(more))


def _rates(found: Sequence[Measure]) -> Grid | None:
    best = [m for m in found if m.protocol == "best-rate"]
    if not best:
        return None
    several = len({m.model for m in best}) > 1
    return measured_grid("", best, _best, label=lambda m: m.model if several else "best rate")


def _best(m: Measure) -> Cell:
    if m.failed:
        return Cell("none", kind="failed", title=m.failure)
    above = m.of("best_rate_above")
    more = f"not at {number(above)}" if above else "the client could send no faster"
    return Cell(f"{number(m.of('best_rate'))} requests/s", (more,), title=plural(m.repeats, "round"))


def _count(m: Measure) -> str:
    return f"{m.total('requests') or 0:,.0f}"
