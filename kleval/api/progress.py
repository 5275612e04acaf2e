"""Progress of a call from Python: one line on stderr that is written over, in a terminal or a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from kleval.work import events as ev
from kleval.work.progress import told

EVERY_SECONDS = 0.2


def watched(
    on_event: Callable[[ev.Event], None] | None, progress: bool | None, unit: str, rate: str = ""
) -> Callable[[ev.Event], None]:
    """Whoever is to be told, and the line on stderr. progress: None shows it where somebody looks: a terminal, a notebook."""
    shown = Line(unit, rate) if (_looked_at() if progress is None else progress) else None

    def tell(event: ev.Event) -> None:
        if shown is not None:
            shown(event)
        if on_event is not None:
            on_event(event)

    return tell


def _looked_at() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Line:
    """The line. What went wrong stays above it. unit, rate: as of `told`."""

    def __init__(self, unit: str, rate: str) -> None:
        self._unit, self._rate = unit, rate
        self._drawn, self._width = 0.0, 0

    def __call__(self, event: ev.Event) -> None:
        match event:
            case ev.Phase():
                self._draw(event.text)
            case ev.Failed():
                self._draw(f"{event.label}: {event.message}")
                self._end()
            case ev.Progress() as at:
                if at.n_done >= at.n_total or time.monotonic() - self._drawn > EVERY_SECONDS:
                    self._draw(f"{told(at, self._unit, self._rate)}  ({at.label})")
            case ev.Finished():
                if event.result.message:
                    self._end()
                    self._draw(event.result.message)
                self._end()
            case _:
                pass

    def _draw(self, text: str) -> None:
        self._drawn = time.monotonic()
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)

    def _end(self) -> None:
        if self._width:
            sys.stderr.write("\n")
            sys.stderr.flush()
        self._width = 0
