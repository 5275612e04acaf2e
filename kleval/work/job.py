"""Job: one resumable command, written as what it does with its units; kleval.work.loop does everything else. And its Session.

A **unit** is what one record of the run directory, or several of one kind, will be of: a point of a profile, a task at a length.
To write a Job, subclass it and give five methods; the loop calls them in this order, each once unless said otherwise:

    settings()         what must not change when the command runs again (kleval.store.settings). Called twice: before `open` it may
                       say only the part that is known without reaching anything, after it all. A directory that was written
                       under others is refused, by name and value, before `open` and again after it.
    open(old)          a context manager: reach what is worked on (device, server, models). old: the directory of an earlier session,
                       open for reading; None for a new one. Afterwards `models` and `environment` are set.
    units(say)         the plan: all units in the order of working, those that are done included. May be slow: `say(text)` tells
                       what takes so long. A KeyboardInterrupt in here ends the command without a directory.
    facts()            further fields of run.json as they are when a session begins (kleval.store.manifest): models, plan, seeds,
                       caveats, and under `session` what belongs to this session alone (a prompt seed).
    measure(group, session)   an iterator of (unit, record) over units that follow each other and have one `group`; what an earlier
                       session did is left out already. A record is a Row or a Point; a failure is a record with `failure`. It is
                       filed and told when it is yielded, so what comes behind a `yield` may rely on it (`session.done`). What must
                       go before a group (warm-up, caches) stands at its head. Only UsageError and KeyboardInterrupt may be
                       raised. The iterator is closed when the command ends early.
    verdict(session)   what the records come to: counts, whether and why they are not complete, fields of run.json (caveats). Called
                       at the end, however it came, and now and then before.

What measure may do with the session: `say` what takes a while, tell `progress` within a unit, `skip` a unit with its reason, `stop`
the command early with a message (a server that gives no answer any more), look at `done` and `elapsed_seconds`. A Job whose units
are points of a profile makes its records and its verdict by kleval.profiler.points.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from kleval.store import Point, RunStore
from kleval.work.events import Event, Phase, Skipped
from kleval.work.progress import Meter
from kleval.work.unit import Done, Record, Spec, Unit


@dataclass(frozen=True, slots=True)
class Verdict:
    """counts: `planned` and what became of them. problem: why the records are not complete, one line; "" when they are.
    fields: of run.json. again: whether running the same command again may mend it."""

    counts: Mapping[str, int]
    problem: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    again: bool = True


class Job(ABC):
    """What a command does. kind: of its directory, `run` or `profile`. command: its name there. done_word: for people.

    limit_seconds: once they are over, optional units are left out. max_errors: how many failed records are tolerated, a count or
    below 1 a share; more end the command; None: no number does. amend: settings may grow. in_seconds: weights are expected seconds.
    side_by_side: `measure` is given all open units at once, and asks `session.in_time` of each group before it begins it.
    told: the settings, by a job that knows none before it is open. models, environment: set by `open`. skips: what was asked for
    and will not be done, set by `units`.
    """

    kind = "profile"
    command = "profile"
    done_word = "measured"
    limit_seconds: float | None = None
    max_errors: float | None = None
    amend = False
    in_seconds = False
    side_by_side = False
    told: Mapping[str, Any] = MappingProxyType({})
    models: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any]
    skips: Sequence[Mapping[str, Any]] = ()

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def settings(self) -> Mapping[str, Any]:
        return self.told

    @abstractmethod
    def open(self, old: RunStore | None) -> AbstractContextManager[object]:
        """What is worked on, reached while the block runs: `models` and `environment` are set then."""

    @abstractmethod
    def units(self, say: Callable[[str], None]) -> Sequence[Unit]:
        """The plan, in the order of working, done units included."""

    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """Further fields of run.json."""

    @abstractmethod
    def measure(self, group: Sequence[Any], session: Session) -> Iterator[tuple[Done, Record]]:
        """Each unit of a group with its record; filed when it is yielded."""

    @abstractmethod
    def verdict(self, session: Session) -> Verdict:
        """What the records come to."""


class Session:
    """One time that a command runs, as its job sees it. done: by id, the points that are there. skips: what was asked for and is not
    done. left_out: units that there was no time for. stopped: why it ends early, else "". meter: corrected where more or less
    is made than was planned. emit: tells an event."""

    def __init__(self, job: Job, units: Sequence[Unit], store: RunStore, emit: Callable[[Event], None]) -> None:
        self.job, self.units, self.store, self.emit = job, tuple(units), store, emit
        self.done: dict[str, Point] = {point.id: point for point in store.points() if not point.failed}
        self.skips: list[dict[str, Any]] = [dict(skip) for skip in job.skips]
        self.left_out: list[Unit] = []
        self.stopped = ""
        self.meter = Meter(((unit, self.n_done(unit)) for unit in self.units), job.in_seconds)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """What takes a while."""
        self.emit(Phase(text))

    def progress(self, unit: Done, share: float = 0.0, more: str = "") -> None:
        """Tell what is being worked on. share: how much of it is done. more: beside its label."""
        self.emit(self.meter.progress(unit.label + more, min(share, 1.0) * unit.weight))

    def skip(self, record: Mapping[str, Any]) -> None:
        """Something that was asked for is not done, for its `reason`."""
        self.skips.append(dict(record))
        self.emit(Skipped(record))

    def stop(self, why: str) -> None:
        """End the command early, incomplete."""
        self.stopped = self.stopped or why

    def in_time(self, group: Sequence[Any]) -> list[Any]:
        """The group, or once the time is over what of it is not optional."""
        if self.job.limit_seconds is None or self.elapsed_seconds() < self.job.limit_seconds:
            return list(group)
        self.left_out += [unit for unit in group if unit.optional]
        return [unit for unit in group if not unit.optional]

    def elapsed_seconds(self) -> float:
        return time.monotonic() - self._began

    def n_done(self, unit: Unit) -> int:
        return unit.n if unit.id in self.done else unit.n_done
