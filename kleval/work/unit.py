"""Unit of work: what one record of a run directory, or several of one kind, will be of; and the command that asks for it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from kleval.store import Point, Row
from kleval.types import Prompt, UsageError

Record = Row | Point


class Spec(Protocol):
    """A command as data: a frozen dataclass. out: the run directory; None for a dry run. command: the line, for the record."""

    @property
    def out(self) -> Path | None: ...
    @property
    def dry_run(self) -> bool: ...
    @property
    def command(self) -> str: ...
    def check(self) -> None:
        """UsageError for what cannot be done as asked. Each command adds to this."""
        if self.out is None and not self.dry_run:
            raise UsageError("no run directory given: add --out DIR")

    def record(self) -> dict[str, Any]:
        """Every field as a JSON value."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


class Done(Protocol):
    """What a record was made of. label: for people. weight: of the whole work, in any unit that is the same for all units of a job
    (tokens, expected seconds). prompt: kept beside the record; None where there is none."""

    @property
    def label(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def prompt(self) -> Prompt | None: ...


class Unit(Done, Protocol):
    """id: of its record, for a unit of one. group: units that follow each other and have the same are worked on together.

    n: records that it comes to, each of `weight`; n_done: how many of several are known to be there. optional: left out once the
    time is over (a further repeat).
    """

    @property
    def id(self) -> str: ...
    @property
    def group(self) -> Hashable: ...
    @property
    def n(self) -> int: ...
    @property
    def n_done(self) -> int: ...
    @property
    def optional(self) -> bool: ...
