"""Words for people on stderr, results on stdout. rich is imported when something is drawn with it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import click

from kleval.cli.terminal import says_everything

WIDTH = 80  # of a terminal, as far as tables know
TRUE = ("1", "true", "t", "yes", "y", "on")  # as click reads a variable of a flag
ENDS = ("done", "error")  # records that a command's JSON lines end with


@dataclass(slots=True)
class _Lines:
    """The JSON lines of the command that runs. wanted: whether it was asked for them. last: the name of the last record."""

    wanted: bool = False
    last: str = ""


_lines = _Lines()


def begin(words: Sequence[str]) -> None:
    """A command line is about to run."""
    _lines.wanted = "--json" in words or os.environ.get("KLEVAL_JSON", "").lower() in TRUE
    _lines.last = ""


def emit_error(message: str, exit_code: int) -> None:
    """What ended a command, as its last record, where JSON lines were asked for and do not say how they ended."""
    if _lines.wanted and _lines.last not in ENDS:
        emit("error", exit_code=exit_code, message=message)


def note(text: str = "") -> None:
    """One line for a person."""
    click.echo(text, err=True)


def debugging() -> bool:
    """Whether tracebacks are asked for."""
    return os.environ.get("KLEVAL_DEBUG", "") not in ("", "0")


def emit(record: str, **fields: Any) -> None:
    """One JSON line on stdout, named by its record."""
    _lines.last = record
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
