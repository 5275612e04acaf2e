"""Words for people on stderr, results on stdout. rich is imported when something is drawn with it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click

from kleval.cli.terminal import says_everything


def note(text: str = "") -> None:
    """One line for a person."""
    click.echo(text, err=True)


def debugging() -> bool:
    """Whether tracebacks are asked for."""
    return os.environ.get("KLEVAL_DEBUG", "") not in ("", "0")


def emit(record: str, **fields: Any) -> None:
    """One JSON line on stdout, named by its record."""
    escaped = not says_everything(sys.stdout)
    click.echo(json.dumps({"record": record, **fields}, ensure_ascii=escaped, default=str))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], file: TextIO | None = None) -> None:
    """A borderless table on stdout, numbers to the right. Plain text: never cut to the terminal's width."""
    cells = [[str(cell) for cell in row] for row in rows]
    columns = [[name, *(row[i] for row in cells)] for i, name in enumerate(header)]
    widths = [max(map(len, column)) for column in columns]
    right = [len(column) > 1 and all(map(_numeric, column[1:])) for column in columns]
    for line in [list(header), ["-" * width for width in widths], *cells]:
        parts = [
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(line, widths, right, strict=True)
        ]
        click.echo("  ".join(parts).rstrip(), file=file or sys.stdout)


def _numeric(text: str) -> bool:
    return text in ("", "-", "–") or text[0].isdigit()
