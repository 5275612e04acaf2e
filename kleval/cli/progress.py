"""Live progress on stderr, drawn from events of work: answers, tokens per second, token-weighted time to go.

On a terminal one line is redrawn with rich; elsewhere a plain line is written every few seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kleval.cli.console import note
from kleval.text import duration, format_length

if TYPE_CHECKING:
    from kleval.work.events import Progress

PLAIN_EVERY_SECONDS = 5.0


def line(at: Progress) -> str:
    """`12/390 answers, 4,100 tokens/s, 3m10s to go, 1 failed`."""
    parts = [f"{at.n_done}/{at.n_total} answers"]
    if at.work_per_second is not None:
        parts.append(f"{at.work_per_second:,.0f} tokens/s")
    if at.n_done < at.n_total and at.eta_seconds is not None:
        parts.append(f"{duration(at.eta_seconds)} to go")
    if at.n_failed:
        parts.append(f"{at.n_failed} failed")
    return ", ".join(parts)


class ProgressView:
    """Shows Progress events. Use as a context manager; silent when quiet."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._drawn = time.monotonic()
        self._bar: Any = None
        self._row: Any = None

    def __enter__(self) -> ProgressView:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.fields[label]}", markup=False), BarColumn(), TextColumn("{task.fields[line]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._row = self._bar.add_task("", total=None, label="", line="starting")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, at: Progress) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._row, total=at.work_total, completed=at.work_done, label=at.label, line=line(at))
        elif not self._quiet and (at.n_done >= at.n_total or now - self._drawn >= PLAIN_EVERY_SECONDS):
            self._drawn = now
            note(f"{line(at)}  ({at.label})")

    def say(self, text: str) -> None:
        """A line that stays, above the bar if there is one."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            note(text)


class Making:
    """Rows that are being made, on a terminal only: elsewhere the rows themselves are what is seen."""

    def __init__(self, cells: Sequence[object], n: int) -> None:
        self._total, self._done = len(cells) * n, 0
        self._bar: Any = None

    def __enter__(self) -> Making:
        if sys.stderr.isatty() and self._total > 1:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            label = TextColumn("{task.fields[label]}", markup=False)
            columns = (label, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._row = self._bar.add_task("", total=self._total, label="making samples")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def row(self, task: str, ctx: int) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._row, completed=self._done, label=f"{task} at {format_length(ctx)}")
