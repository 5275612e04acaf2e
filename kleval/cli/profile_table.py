"""A profile's rows on stdout: tables for people, or every column as markdown, CSV, JSON or JSON lines."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from kleval.cli.console import table
from kleval.text import format_length, number, percent, size, times

FORMATS = ("table", "md", "csv", "json", "jsonl")


def print_records(records: Sequence[Mapping[str, Any]], kind: str) -> None:
    """Records with the same keys, complete and unrounded, as csv, json or jsonl."""
    if kind == "csv":
        writer = csv.DictWriter(sys.stdout, list(records[0]) if records else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    elif kind == "json":
        click.echo(json.dumps(list(records), indent=1, ensure_ascii=False))
    else:
        for record in records:
            click.echo(json.dumps(record, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str, title: str = "") -> None:
    """kind: table or md."""
    if title:
        click.echo(f"{'### ' if kind == 'md' else ''}{title}\n")
    if kind == "table":
        table(header, rows)
    else:
        for line in (header, ["---"] * len(header), *rows):
            click.echo(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |")
    click.echo()


def print_profile(rows: Sequence[Any], kind: str) -> None:
    """Summary rows (kleval.tables.summary.SummaryRow) in one of FORMATS."""
    if kind not in ("table", "md"):
        print_records([row.record() for row in rows], kind)
        return
    against = next((f"vs {row.baseline}" for row in rows if row.baseline), "vs baseline")
    by_kind: dict[str, list[Any]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, []).append(row)
    header: tuple[str, ...]
    if found := by_kind.get("prefill"):
        header = (
            "ctx",
            "model",
            "protocol",
            "seconds",
            "spread",
            "tokens/s",
            "MFU",
            against,
            "flops allow",
            "check",
        )
        print_table(header, [_prefill(row) for row in found], kind, "Prefill latency, batch 1")
    if found := by_kind.get("decode"):
        header = ("depth", "model", "protocol", "batch", "ms/step", "p90", "ms/token", "tokens/s", "spread", "MBU")
        header += (against, "bytes allow")
        print_table(header, [_decode(row) for row in found], kind, "Decode, sampling excluded")
    if found := by_kind.get("memory"):
        header = ("ctx", "model", "state used", "closed form", "allocated", "weights", f"saved {against}")
        print_table(header, [_memory(row) for row in found], kind, "State memory of one sequence")


def _prefill(row: Any) -> list[str]:
    protocol = "sampled (estimate)" if row.estimate else row.protocol
    if row.value is None:
        return [format_length(row.ctx), row.model, protocol, "failed", *[""] * 6]
    check = "" if row.sampled_over_full is None else f"{row.sampled_over_full:.3f} of full"
    return [
        format_length(row.ctx),
        row.model,
        protocol,
        number(row.value),
        percent(row.spread),
        number(row.tokens_per_second),
        percent(row.utilisation),
        ratio(row),
        times(row.ratio_ideal),
        check,
    ]


def _decode(row: Any) -> list[str]:
    if row.value is None:
        return [format_length(row.ctx), row.model, row.protocol, str(row.batch), "failed", *[""] * 7]
    return [
        format_length(row.ctx),
        row.model,
        row.protocol,
        str(row.batch),
        number(row.step_ms_median),
        number(row.step_ms_p90),
        number(row.value),
        number(row.tokens_per_second),
        percent(row.spread),
        percent(row.utilisation),
        ratio(row),
        times(row.ratio_ideal),
    ]


def _memory(row: Any) -> list[str]:
    if row.value is None:
        return [format_length(row.ctx), row.model, "failed", *[""] * 4]
    same = "equal" if row.value == row.closed_form else f"{size(row.closed_form)}: DIFFERS"
    saved = "" if not row.ratio else f"{1 - 1 / row.ratio:.1%}"
    return [
        format_length(row.ctx),
        row.model,
        size(row.value),
        same,
        size(row.allocated_bytes),
        size(row.weights_bytes),
        saved,
    ]


def ratio(row: Any) -> str:
    """`2.88× (2.80–2.96)`, the interval only where there is one."""
    if row.ratio is None:
        return ""
    interval = "" if row.ratio_low is None else f" ({row.ratio_low:.2f}–{row.ratio_high:.2f})"
    return times(row.ratio) + interval
