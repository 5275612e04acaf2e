"""Tables of single operators on stdout: whole prompts, decoded tokens, and KDA against DPLR beside the paper's figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kleval.cli.profile_table import print_records, print_table
from kleval.text import format_length, number, percent, times

if TYPE_CHECKING:
    from kleval.tables.kernel_summary import KernelRow


def print_kernels(rows: Sequence[KernelRow], kind: str) -> None:
    """Rows in one of profile_table.FORMATS; for people in three tables, the last of KDA against DPLR beside the paper's."""
    if kind not in ("table", "md"):
        print_records([row.record() for row in rows], kind)
        return
    chunk = [row for row in rows if row.protocol == "chunk"]
    steps = [row for row in rows if row.protocol == "recurrent"]
    header: tuple[str, ...]
    if chunk:
        header = ("heads", "tokens", "operator", "ms", "p90", "spread", "Mtok/s", "GFLOP/s", "of bound", "vs KDA")
        print_table(header, [_chunk(row) for row in chunk], kind, "Whole prompt, forward, batch 1")
    if steps:
        header = ("heads", "operator", "us", "p90", "spread", "of bound")
        print_table(header, [_step(row) for row in steps], kind, "One decoded token, batch 1")
    compared = [row for row in chunk if row.operator == "dplr" and row.over_kda]
    if compared:
        header = ("heads", "tokens", "DPLR / KDA", "95 %", "FLOPs allow", "paper Fig. 2 (16 heads)")
        title = "General DPLR over KDA; the paper says about 2x, hardware not stated"
        print_table(header, [_compared(row) for row in compared], kind, title)


def _chunk(row: KernelRow) -> list[str]:
    lead = [str(row.heads), format_length(row.ctx), row.operator]
    if row.seconds is None:
        return [*lead, "failed", *[""] * 6]
    return [
        *lead,
        number(1e3 * row.seconds),
        number(_scaled(row.seconds_p90, 1e3)),
        percent(row.spread),
        number(_scaled(row.tokens_per_second, 1e-6)),
        number(_scaled(row.flops_per_second, 1e-9)),
        percent(row.utilisation),
        times(row.over_kda),
    ]


def _step(row: KernelRow) -> list[str]:
    if row.seconds is None:
        return [str(row.heads), row.operator, "failed", *[""] * 3]
    shown = [number(1e6 * row.seconds), number(_scaled(row.seconds_p90, 1e6))]
    return [str(row.heads), row.operator, *shown, percent(row.spread), percent(row.utilisation)]


def _compared(row: KernelRow) -> list[str]:
    from kleval.report.paper_curves import KERNELS

    interval = "" if row.over_kda_low is None else f"{row.over_kda_low:.2f}-{row.over_kda_high:.2f}"
    theirs: Any = KERNELS.ratio("kda", "dplr").get(row.ctx)
    lead = [str(row.heads), format_length(row.ctx)]
    return [*lead, times(row.over_kda), interval, times(row.flops_over_kda), times(theirs)]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
