"""Unit of work: what one record of a run directory, or several of one kind, will be of; and the command that asks for it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from kleval.store import Point, Row
from kleval.types import Prompt, UsageError

Record = Row | Point
MOST_LETTERS = 100  # of a name or a tag's value
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


class Spec(Protocol):
    """A command as data: a frozen dataclass. out: the run directory; None for a dry run. command: the line, for the record.

    name, tags: what people call its run and tell it by; verified: by model, what `kleval verify` said before. They change no result.
    """

    @property
    def out(self) -> Path | None: ...
    @property
    def dry_run(self) -> bool: ...
    @property
    def command(self) -> str: ...
    @property
    def name(self) -> str:
        return ""

    @property
    def tags(self) -> Mapping[str, str]:
        return {}

    @property
    def verified(self) -> Mapping[str, Any]:
        return {}

    def check(self) -> None:
        """UsageError for what cannot be done as asked. Each command adds to this."""
        if self.name and not _shown(self.name):
            raise UsageError(f"--name is one line of at most {MOST_LETTERS} characters, not {self.name!r:.120}")
        for key, value in self.tags.items():
            if not (_KEY.fullmatch(key) and _shown(value)):
                raise UsageError(f"{f'{key}={value}'!r:.120} is no tag: write KEY=VALUE, like --tag engine=0.33")
        if self.out is None and not self.dry_run:
            raise UsageError("no run directory given: add --out DIR")

    def record(self) -> dict[str, Any]:
        """Every field as a JSON value."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _shown(text: str) -> bool:
    """Whether it can stand in a line."""
    return text.isprintable() and 0 < len(text.strip()) <= MOST_LETTERS


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
