"""Live progress on stderr, drawn from events of work: records, their pace, work-weighted time to go.

On a terminal one line is redrawn with rich; elsewhere a plain line is written every few seconds.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kleval.cli.console import note
from kleval.work.progress import told

if TYPE_CHECKING:
    from kleval.work.events import Progress

PLAIN_EVERY_SECONDS = 5.0
DRAWN_EVERY_SECONDS = 0.1


class ProgressView:
    """Shows Progress events. Use as a context manager; silent but for warnings when quiet. unit, rate: as of `told`."""

    def __init__(self, unit: str, rate: str = "", quiet: bool = False) -> None:
        self._unit, self._rate, self._quiet = unit, rate, quiet
        self._drawn = time.monotonic()
        self._bar: Any = None
        self._row: Any = None

    def __enter__(self) -> ProgressView:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.fields[label]}", markup=False), BarColumn(), TextColumn("{task.fields[line]}"))
            # A thread that redraws would take a core from what is being timed: drawn only when something is said.
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
            self._row = self._bar.add_task("", total=None, label="", line="starting")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, at: Progress) -> None:
        every = PLAIN_EVERY_SECONDS if self._bar is None else DRAWN_EVERY_SECONDS
        if self._quiet or (at.n_done < at.n_total and time.monotonic() - self._drawn < every):
            return
        self._drawn = time.monotonic()
        said = told(at, self._unit, self._rate)
        if self._bar is None:
            note(f"{said}  ({at.label})")
        else:
            work = {"total": at.work_total, "completed": at.work_done}
            self._bar.update(self._row, **work, label=at.label, line=said, refresh=True)

    def say(self, text: str) -> None:
        """A line that stays, above the bar if there is one."""
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A line that stays and is said when quiet too."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            note(text)
