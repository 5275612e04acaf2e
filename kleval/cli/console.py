"""Words for people on stderr, results on stdout. rich is imported when something is drawn with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click

from kleval.cli.terminal import says_everything

WIDTH = 80  # of a terminal, as far as tables know


def note(text: str = "") -> None:
    """One line for a person."""
    click.echo(text, err=True)


def emit(record: str, **fields: Any) -> None:
    """One JSON line on stdout, named by its record."""
    escaped = not says_everything(sys.stdout)
    click.echo(json.dumps({"record": record, **fields}, ensure_ascii=escaped, default=str))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], file: TextIO | None = None, lead: int = 0) -> None:
    """A borderless table on stdout, numbers to the right. Plain text: never cut to the terminal's width.

    lead: how many columns say what a line is of; a table with such that is wider than WIDTH goes on below in further columns, behind
    the same lead.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    columns = [[name, *(row[i] for row in cells)] for i, name in enumerate(header)]
    widths = [max(map(len, column)) for column in columns]
    right = [len(column) > 1 and all(map(_numeric, column[1:])) for column in columns]
    for n, block in enumerate(_blocks(widths, lead)):
        if n:
            click.echo(file=file or sys.stdout)
        for line in [list(header), ["-" * width for width in widths], *cells]:
            parts = [line[i].rjust(widths[i]) if right[i] else line[i].ljust(widths[i]) for i in block]
            click.echo("  ".join(parts).rstrip(), file=file or sys.stdout)


def _blocks(widths: Sequence[int], lead: int) -> list[list[int]]:
    """Columns that are printed together: the lead, and as many others as fit, at least one."""
    if not lead:
        return [list(range(len(widths)))]
    blocks: list[list[int]] = []
    room = 0
    for i in range(lead, len(widths)):
        if not blocks or room < widths[i] + 2:
            blocks.append(list(range(lead)))
            room = WIDTH - sum(width + 2 for width in widths[:lead]) + 2
        blocks[-1].append(i)
        room -= widths[i] + 2
    return blocks or [list(range(len(widths)))]


def _numeric(text: str) -> bool:
    return text in ("", "-", "–") or text[0].isdigit()
