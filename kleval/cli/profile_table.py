"""Tables of a profile on stdout: for people, as text or markdown, or every column as CSV, JSON or JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kleval.cli.console import table
from kleval.tables import formats
from kleval.text import DASH, format_length, load, number, percent, size, size_at, times

if TYPE_CHECKING:
    from kleval.tables.costs import Profile

FORMATS = ("table", "md", "csv", "json", "jsonl")

Row = Mapping[str, Any]
Columns = dict[str, Callable[[Row], str]]  # header -> the cell of a row


def print_records(records: Sequence[Row], kind: str) -> None:
    """Records with the same keys, complete and unrounded, as csv, json or jsonl."""
    click.echo(formats.COMPLETE[kind](records, list(records[0]) if records else []), nl=False)


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], kind: str, title: str = "", lead: int = 0
) -> None:
    """kind: table or md. lead: as `console.table` takes it."""
    if title:
        click.echo(f"{'### ' if kind == 'md' else ''}{title}\n")
    if kind == "table":
        table(header, rows, lead=lead)
    else:
        click.echo(formats.to_markdown(header, rows), nl=False)
    click.echo()


def print_profile(profile: Profile, kind: str) -> None:
    """What a profile holds (kleval.tables.cost_rows.shown_rows) in one of FORMATS."""
    from kleval.tables.cost_rows import shown_rows
    from kleval.tables.verify import HEADER, cells, law_rows

    if profile.laws:
        rows = law_rows(profile.laws)
        if kind in ("table", "md"):
            print_table(HEADER, [cells(row) for row in rows], kind)
        else:
            print_records(rows, kind)
        return
    print_rows(shown_rows(profile), kind)


def print_rows(rows: Sequence[Row], kind: str) -> None:
    """Rows of models, operators or requests in one of FORMATS; for people in a table per kind of measurement."""
    if kind not in ("table", "md"):
        print_records(rows, kind)
        return
    served = SERVED_OF
    if len({row["model"] for row in rows if "load" in row}) > 1:
        served = {"ctx": LENGTH, "model": _of("model"), **SERVED_OF}
    scored = any(row.get("score") is not None for row in rows)
    under_load = LOAD if scored else {name: cell for name, cell in LOAD.items() if name != "score"}
    against = next((f"vs {row['baseline']}" for row in rows if row.get("baseline")), "vs baseline")
    for title, is_shown, lead, columns in (
        ("Prefill latency, batch 1", _is("kind", "prefill"), PREFILL_OF, prefill(against)),
        ("Decode, sampling excluded", _is("kind", "decode"), DECODE_OF, decode(against)),
        ("State memory of one sequence", _is("kind", "memory"), MEMORY_OF, memory(against)),
        ("Whole prompt, forward, batch 1", _is("protocol", "chunk"), CHUNK_OF, CHUNK),
        ("One decoded token, batch 1", _is("protocol", "recurrent"), STEP_OF, STEP),
        (PAIR_TITLE, lambda row: row.get("operator") == "dplr" and row["over_kda"], PAIR_OF, PAIR),
        (SERVED_TITLE, lambda row: row.get("load", "").startswith("concurrency-"), served, SERVED),
        (LOAD_TITLE, lambda row: row.get("load", "").startswith(("steady-", "rate-", "best-")), served, under_load),
        (REUSE_TITLE, lambda row: row.get("load", "").startswith("reuse-"), served, REUSE),
        (ENGINE_TITLE, _first_of_length(rows), {"ctx": LENGTH, "model": _of("model")}, ENGINE),
    ):
        if shown := [row for row in rows if is_shown(row)]:
            lines = [[cell(row) for cell in lead.values()] + _cells(row, columns) for row in shown]
            marks = "; ~ an estimate" if any(row.get("tpot_estimate") for row in shown) else ""
            if "requests" in lead and any(row.get("client_limited") for row in shown):
                marks += "; ! limited by the client"
                for row, line in zip(shown, lines, strict=True):
                    line[len(lead) - 1] += " !" if row["client_limited"] else ""
            print_table([*lead, *columns], lines, kind, title + marks, len(lead))


def _cells(row: Row, columns: Columns) -> list[str]:
    """One line behind its lead; of what failed, that alone."""
    if "concurrency" not in row and row.get("value", row.get("seconds")) is None:
        return ["failed", *[""] * (len(columns) - 1)]
    return [cell(row) for cell in columns.values()]


def _first_of_length(rows: Sequence[Row]) -> Callable[[Row], bool]:
    """Whether a row is the one that shows what its model's engine holds at its length."""
    known = [
        row for row in rows if any(row.get(name) is not None for name in ("engine_pool_tokens", "server_rss_bytes"))
    ]
    first = {(row["model"], row["ctx"]): row for row in reversed(known)}
    return lambda row: any(row is one for one in first.values())


def _is(name: str, value: str) -> Callable[[Row], bool]:
    return lambda row: row.get(name) == value


def _of(name: str, spell: Callable[[Any], str] = str, factor: float = 1) -> Callable[[Row], str]:
    """A column: one value, in words."""
    return lambda row: spell(row[name] if factor == 1 or row[name] is None else factor * row[name])


def ratio(row: Row) -> str:
    """`2.88× (2.80–2.96)`, the interval only where there is one."""
    if row["ratio"] is None:
        return ""
    interval = "" if row["ratio_low"] is None else f" ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"
    return times(row["ratio"]) + interval


def prefill(against: str) -> Columns:
    return {
        "seconds": _of("value", number),
        "tokens/s": _of("tokens_per_second", number),
        against: ratio,
        "flops allow": _of("ratio_ideal", times),
        "MFU": _of("utilisation", percent),
        "spread": _of("spread", percent),
        "check": lambda row: "" if row["sampled_over_full"] is None else f"{row['sampled_over_full']:.3f} of full",
    }


def decode(against: str) -> Columns:
    return {
        "ms/token": _of("value", number),
        against: ratio,
        "bytes allow": _of("ratio_ideal", times),
        "tokens/s": _of("tokens_per_second", number),
        "ms/step": _of("step_ms_median", number),
        "p90": _of("step_ms_p90", number),
        "MBU": _of("utilisation", percent),
        "spread": _of("spread", percent),
    }


def memory(against: str) -> Columns:
    def closed_form(row: Row) -> str:
        return "equal" if row["value"] == row["closed_form"] else f"{size(row['closed_form'])}: DIFFERS"

    return {
        "state used": _of("value", size),
        f"saved {against}": lambda row: "" if not row["ratio"] else f"{1 - 1 / row['ratio']:.1%}",
        "formula": closed_form,
        "allocated": _of("allocated_bytes", size),
        "weights": _of("weights_bytes", size),
    }


def _paper(row: Row) -> str:
    from kleval.report.paper_curves import paper_figures

    return times(paper_figures()["kernels"].ratio("kda", "dplr").get(row["ctx"]))


def _over_kda(row: Row) -> str:
    return "" if row["over_kda_low"] is None else f"{row['over_kda_low']:.2f}-{row['over_kda_high']:.2f}"


def _failed(row: Row) -> str:
    return f"{row['failed']} of {row['failed'] + row['rounds']}" if row["failed"] else "0"


LENGTH = _of("ctx", format_length)
MEMORY_OF: Columns = {"ctx": LENGTH, "model": _of("model")}
PREFILL_OF = MEMORY_OF | {"protocol": lambda row: "sampled (estimate)" if row["estimate"] else row["protocol"]}
DECODE_OF: Columns = {"depth": LENGTH, "model": _of("model"), "protocol": _of("protocol"), "batch": _of("batch")}
CHUNK_OF: Columns = {"heads": _of("heads"), "tokens": LENGTH, "operator": _of("operator")}
CHUNK: Columns = {
    "ms": _of("seconds", number, 1e3),
    "p90": _of("seconds_p90", number, 1e3),
    "spread": _of("spread", percent),
    "Mtok/s": _of("tokens_per_second", number, 1e-6),
    "GFLOP/s": _of("flops_per_second", number, 1e-9),
    "of bound": _of("utilisation", percent),
    "vs KDA": _of("over_kda", times),
}
STEP_OF: Columns = {"heads": _of("heads"), "operator": _of("operator")}
STEP: Columns = {
    "us": _of("seconds", number, 1e6),
    "p90": _of("seconds_p90", number, 1e6),
    "spread": _of("spread", percent),
    "of bound": _of("utilisation", percent),
}
PAIR_TITLE = "General DPLR over KDA; the paper says about 2x, hardware not stated"
PAIR_OF: Columns = {"heads": _of("heads"), "tokens": LENGTH}
PAIR: Columns = {
    "DPLR / KDA": _of("over_kda", times),
    "95 %": _over_kda,
    "FLOPs allow": _of("flops_over_kda", times),
    "paper Fig. 2 (16 heads)": _paper,
}
SERVED_TITLE = "Served model: medians over rounds; p50, p90, p99 of the times between tokens, ms"
SERVED_OF: Columns = {
    "ctx": LENGTH,
    "prompt": lambda row: "" if row["prompt_tokens"] is None else f"{row['prompt_tokens']:,.0f}",
    "requests": lambda row: load(row["load"]).removesuffix(" requests") or row["load"],
}
SERVED: Columns = {
    "TTFT ms": _of("ttft_ms", number),
    "TPOT ms": lambda row: ("~" if row["tpot_estimate"] else "") + number(row["tpot_ms"]),
    "p50": _of("itl_ms_median", number),
    "p90": _of("itl_ms_p90", number),
    "p99": _of("itl_ms_p99", number),
    "E2E ms": _of("e2e_ms", number),
    "out tok/s": _of("output_tokens_per_second", number),
    "spread": _of("spread", percent),
    "cached": lambda row: "not told" if row["cached_tokens"] is None else f"{row['cached_tokens']:,}",
    "failed": _failed,
}
LOAD_TITLE = "Under load: p50, p90, p99 over requests, ms; TPOT is a request's whole one"


def _three(name: str) -> Callable[[Row], str]:
    return lambda row: " ".join(number(row[f"{name}_{p}"]) for p in ("p50", "p90", "p99"))


def _share(row: Row) -> str:
    """Of the requests in the SLO, with its interval."""
    if row["slo_share"] is None:
        return ""
    return f"{percent(row['slo_share'])} ({percent(row['slo_share_low'])}–{percent(row['slo_share_high'])})"


def _best(row: Row) -> str:
    return "" if row["best_rate"] is None else f"{number(row['best_rate'])}/s"


LOAD: Columns = {
    "sent/s": _of("requests_per_second", number),
    "TTFT": _three("ttft_ms"),
    "TPOT": _three("request_tpot_ms"),
    "E2E": _three("e2e_ms"),
    "out tok/s": _of("output_tokens_per_second", number),
    "in SLO": _share,
    "goodput/s": lambda row: "" if row["goodput"] is None else number(row["goodput"]),
    "best": _best,
    "score": lambda row: "" if row["score"] is None else f"{percent(row['score'])} of {row['scored']:,.0f}",
    "failed": lambda row: f"{row['failed_requests'] or 0:,.0f}" if not row["failure"] else _failed(row),
}
ENGINE_TITLE = (
    "Memory: a sequence by formula; the engine's pool and a sequence in it; what its processes hold, and grew by"
)


def _bytes(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row[name] is None else size(row[name])


def _count(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row[name] is None else f"{row[name]:,.0f}"


ENGINE: Columns = {
    "formula": _bytes("formula_bytes"),
    "pool": _bytes("engine_pool_bytes"),
    "pool tokens": _count("engine_pool_tokens"),
    "block": _count("engine_block_tokens"),
    "a sequence": lambda row: size_at(row["engine_sequence_bytes"], row["engine_sequence_tokens"]),
    "RSS": _bytes("server_rss_bytes"),
    "GPU": _bytes("server_device_bytes"),
    "grown": _bytes("server_grown_bytes"),
}
REUSE_TITLE = (
    "Prefix reuse: TTFT of a new prompt, of one whose beginning was sent before, and after another conversation, ms"
)


def _whole(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


REUSE: Columns = {
    "new": _of("cold_ttft_ms", number),
    "sent before": _of("ttft_ms", number),
    "saved": _of("reuse", percent),
    "cached": _of("reused_tokens", _whole),
    "after another": _of("between_ttft_ms", number),
    "saved then": _of("between_reuse", percent),
    "cached then": _of("between_reused_tokens", _whole),
    "failed": _failed,
}
