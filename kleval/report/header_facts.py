"""Facts, notices and fact sheets: what the page's header is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["bad", "warn", "info"]


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of a fact sheet. full: the whole value where `value` is shortened. mark: set on what is shown at once."""

    name: str
    value: str
    full: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know before reading a number. tone orders and colours it."""

    tone: Tone
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """Facts of one directory, or of one machine. tiles: the few in large type. status, tone: how a directory ended."""

    title: str
    started: str = ""
    status: str = ""
    tone: str = ""
    tiles: tuple[Fact, ...] = ()
    facts: tuple[Fact, ...] = ()
