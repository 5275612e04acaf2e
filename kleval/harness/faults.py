"""Failures of a session: counted, told once per kind, and what helps against them. A task whose own code fails ends the command."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.harness.asking import End
from kleval.harness.preparing import Asked
from kleval.types import Failure
from kleval.work import Session
from kleval.work import events as ev

MOST_FAULTS = 3  # of a task without any score
PASSING = {"rate_limit", "timeout", "server", "judge", "internal"}  # what may be otherwise when it is asked again


@dataclass(slots=True)
class Faults:
    """kinds: how often each failure was. errors: of tasks that could not make their samples, as run.json has them."""

    kinds: Counter[str] = field(default_factory=Counter)
    errors: list[dict[str, Any]] = field(default_factory=list)
    _of_code: Counter[str] = field(default_factory=Counter)
    _scored: set[str] = field(default_factory=set)
    _told: set[tuple[str, str]] = field(default_factory=set)

    def see(self, asked: Asked, end: End, session: Session) -> None:
        """How a sample ended. Stops the session where a task's own code fails and never gave a score."""
        task = asked.task.id
        if not isinstance(end, Failure):
            self._scored.add(task)
            return
        self.kinds[end.kind] += 1
        message = end.message.removeprefix(f"{task}: ")
        self._tell(
            (end.kind, task if end.traceback else ""), asked.label, f"{end.kind}: {message}", end.traceback, session
        )
        if end.traceback:
            self._of_code[task] += 1
            if self._of_code[task] == MOST_FAULTS and task not in self._scored:
                session.stop(f"ended early: {task} fails in its own code ({message})")

    def unmade(self, place: dict[str, Any], label: str, message: str, traceback: str, session: Session) -> None:
        """A task could not make its samples at a place (model, task, ctx)."""
        self.errors.append({**place, "message": message})
        self._tell((message, place["task"]), label, message, traceback, session)

    def whys(self) -> list[str]:
        """Why answers are missing, where their samples could not be made."""
        one = self.errors[0] if self.errors else None
        return [f"{one['task']} could not make its samples at {one['ctx']} ({one['message']})"] if one else []

    def advice(self, missing: bool, out: Path | None, files: str = "") -> tuple[str, bool]:
        """What helps, as the end of a sentence; and whether running the same command again does. files: options of `kleval score` that
        name the user's own."""
        if self._of_code:
            return (
                f": mend it, then `kleval score {out}{files}` scores the answers that are there without asking again",
                False,
            )
        if self.errors:
            return ": mend it and run the same command again", True
        if missing or PASSING.intersection(self.kinds):
            return ": run the same command again to ask for them again", True
        return "", False

    def _tell(self, key: tuple[str, str], label: str, message: str, traceback: str, session: Session) -> None:
        if key not in self._told:
            self._told.add(key)
            session.emit(ev.Failed(label, message, traceback))
