"""Pool of workers: replicas of one engine (a model, a profiler) in other processes, and the jobs that are handed out to them.

A job is a list of payloads that one worker works on together, with one result for each. Jobs go out longest first; a worker that is
free gets a job whose beginning it knows (`family`) before another of about the same length. Back-pressure: a worker has one job under
way and, while many wait, one more. Results come back into the inboxes of whoever asked, in any order.

A worker that dies loses nothing: what it was working on is handed out again, payload by payload, so that one that kills its workers
is found; after MOST_DEATHS of them its result is `Lost`. What else it had been given goes to others as it is. A place whose worker died
gets a new one, and places that appear while the pool works (nodes that join) get theirs. How workers are started is a Launcher's:
kleval.work.processes on this machine, kleval.work.ray_actors on a Ray cluster. Only the process that holds the pool writes anything.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from kleval.text import plural
from kleval.types import UsageError
from kleval.work.worker import Dead, Make, Reply

MOST_DEATHS = 3  # of workers over one payload
MOST_UNOPENED = 3  # deaths of a place's workers before they were open
LOOK_SECONDS = 1.0  # between two looks for new places
TELL_SECONDS = 10.0  # until it is said that there is no worker yet
LOOKED_AT = 16  # waiting jobs, for one of a family


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker can be. name: for people. device: that it uses there. threads: of a CPU, 0: as torch chooses."""

    id: Hashable
    name: str
    device: str
    threads: int = 0


class Link(Protocol):
    """The way to one worker and back."""

    def send(self, payloads: Sequence[Any]) -> None: ...

    def receive(self) -> Reply:
        """The next reply; the first says that it is open. Dead: it is gone."""
        ...

    def close(self, idle: bool) -> None:
        """End the worker; one that is not idle at once."""
        ...


class Launcher(Protocol):
    """What starts workers. kind: `processes` or `ray`."""

    kind: str

    def places(self) -> Sequence[Place]:
        """Where workers can be, as things stand."""
        ...

    def start(self, place: Place, make: Make) -> Link: ...

    def wait(self, links: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Those of the links that have a reply, or are dead; none when the time is over."""
        ...


@dataclass(frozen=True, slots=True)
class Lost:
    """The result of a payload that killed its workers. why: the last one's end. n: of them. out_of_memory: what ended it said so."""

    why: str
    n: int
    out_of_memory: bool = False


@dataclass(slots=True, eq=False)
class Part:
    """One payload; its result is put into `inbox` as (key, result)."""

    key: Hashable
    payload: Any
    inbox: deque[tuple[Any, Any]]
    deaths: int = 0


@dataclass(slots=True, eq=False)
class Work:
    """A job. weight: how long it takes, in any unit. family: jobs with the same are better worked on by one worker."""

    parts: Sequence[Part]
    weight: float
    family: Hashable = None


@dataclass(slots=True, eq=False)
class _Worker:
    place: Place
    link: Link
    open: bool = False
    family: Hashable = None
    given: deque[Work] = field(default_factory=deque)


class Pool:
    """make: of the engine, in the worker. accept: whether what a worker opened is what the first one did, else why not.

    facts: of the first worker, there after `open`. counts: what the engines counted, summed. deaths: of workers so far.
    """

    def __init__(
        self,
        launcher: Launcher,
        make: Make,
        accept: Callable[[Any, Any], str] = lambda first, other: "",
        say: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.launcher, self.say = launcher, say
        self.facts: Any = None
        self.counts: Counter[str] = Counter()
        self.deaths = 0
        self._make, self._accept, self._clock = make, accept, clock
        self._workers: list[_Worker] = []
        self._waiting: list[tuple[float, int, Work]] = []
        self._number = count()
        self._n_places = 0
        self._unopened: Counter[Hashable] = Counter()
        self._given_up: dict[Hashable, str] = {}
        self._answered: set[str] = set()
        self._why = ""
        self._looked, self._workless = -LOOK_SECONDS, clock()

    def open(self) -> Any:
        """Start one worker, and one more whenever none has opened for a while, until one is open: its facts. UsageError where it
        refuses what it is to open."""
        most, began = 1, self._clock()
        while self.facts is None:
            if self._clock() - began > TELL_SECONDS:
                most, began = most + 1, self._clock()
            self._start(most)
            self._receive(1.0)
        return self.facts

    def add(self, jobs: Iterable[Work]) -> None:
        for job in jobs:
            insort(self._waiting, (-job.weight, next(self._number), job))

    @property
    def hungry(self) -> bool:
        """Whether more jobs are wanted: no more wait than there are workers."""
        return len(self._waiting) <= self.size

    @property
    def size(self) -> int:
        """Workers that are there or can be."""
        return max(len(self._workers), self._n_places)

    def wait(self, seconds: float = 1.0, most: int | None = None) -> None:
        """Hand out what workers have room for and wait until a result has come, or the time is over. most: workers to start."""
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._looked = self._clock()
            self._start(most)
        self._hand_out()
        self._receive(seconds)
        self._hand_out()

    def record(self) -> dict[str, Any]:
        """For the manifest: where it was worked."""
        at = sorted(self._answered)
        return {"executor": self.launcher.kind, "devices": at, "worker_deaths": self.deaths}

    def close(self) -> None:
        """End all workers; what waits is dropped."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.link.close(worker.open and not worker.given)

    def _start(self, most: int | None = None) -> None:
        """Workers at places that have none."""
        taken = {worker.place.id for worker in self._workers}
        places = [place for place in self.launcher.places() if place.id not in self._given_up]
        self._n_places = len(places)
        for place in places:
            if most is not None and len(self._workers) >= most:
                break
            if place.id not in taken:
                self._workers.append(_Worker(place, self.launcher.start(place, self._make)))
        if any(worker.open for worker in self._workers):
            self._workless = self._clock()
        elif self._clock() - self._workless > TELL_SECONDS:
            if not self._workers:
                raise UsageError(f"no worker is left: {self._why or 'there is no place for one'}")
            self._workless = self._clock()
            self.say(f"waiting   for {plural(len(self._workers), 'worker')} to open the model")

    def _hand_out(self) -> None:
        for rounds in (1, 2):
            for worker in self._workers:
                if worker.open and len(worker.given) < rounds and self._waiting:
                    if rounds == 2 and len(self._waiting) <= len(self._workers):
                        return  # what waits here goes to whoever is free first
                    job = self._next(worker.family)
                    worker.given.append(job)
                    worker.family = job.family
                    try:
                        worker.link.send([part.payload for part in job.parts])
                    except Dead as dead:
                        self._bury(worker, dead)
                        return

    def _next(self, family: Hashable) -> Work:
        """The longest that waits, or one of that family that is nearly as long."""
        best = self._waiting[0][2]
        for at, (_, _, job) in enumerate(self._waiting[:LOOKED_AT]):
            if job.family is not None and job.family == family and job.weight >= best.weight / 2:
                return self._waiting.pop(at)[2]
        return self._waiting.pop(0)[2]

    def _receive(self, seconds: float) -> None:
        links = {id(worker.link): worker for worker in self._workers}
        ready = self.launcher.wait([worker.link for worker in self._workers], seconds) if links else ()
        if not links:
            time.sleep(min(seconds, LOOK_SECONDS))
        for link in ready:
            worker = links[id(link)]
            try:
                kind, value = link.receive()
            except Dead as dead:
                self._bury(worker, dead)
                continue
            if kind == "refused" and (worker.open or self.facts is None):
                raise UsageError(value)
            if kind == "failed" and worker.open:
                raise RuntimeError(f"a worker on {worker.place.name} failed: {value}")
            if worker.open:
                self._deliver(worker, value[0], value[1])
            elif kind == "open" and not (why := self._opened(worker, value)):
                worker.open = True
                self._unopened[worker.place.id] = 0
            elif kind == "failed" and self.facts is not None:
                self._bury(worker, Dead(f"could not open: {str(value).strip().splitlines()[-1]}"))
            else:
                self._give_up(worker, value if kind != "open" else why)

    def _opened(self, worker: _Worker, facts: Any) -> str:
        """Why a worker that is open is not one of these."""
        if self.facts is None:
            self.facts = facts
            return ""
        return self._accept(self.facts, facts)

    def _deliver(self, worker: _Worker, results: Sequence[Any], counts: Mapping[str, int]) -> None:
        job = worker.given.popleft()
        self._answered.add(worker.place.name)
        self.counts.update(counts)
        for part, result in zip(job.parts, results, strict=True):
            part.inbox.append((part.key, result))

    def _bury(self, worker: _Worker, dead: Dead) -> None:
        """A worker is gone: its jobs go to others."""
        self._workers.remove(worker)
        worker.link.close(False)
        self.deaths += 1
        self._looked = -LOOK_SECONDS  # another one may start at once
        self._why = f"the worker on {worker.place.name} {dead}"
        if not worker.open:
            self._unopened[worker.place.id] += 1
            if self._unopened[worker.place.id] >= MOST_UNOPENED:
                self._given_up[worker.place.id] = str(dead)
        self.say(f"{self._why}; what it had goes to others")
        given = list(worker.given)
        for part in given[0].parts if given else ():
            part.deaths += not dead.blameless
            if part.deaths >= MOST_DEATHS:
                part.inbox.append((part.key, Lost(str(dead), part.deaths, dead.out_of_memory)))
            else:
                # Alone and at the end: whoever comes first shows that it is not the worker.
                insort(self._waiting, (0.0, next(self._number), Work([part], given[0].weight, given[0].family)))
        self.add(given[1:])

    def _give_up(self, worker: _Worker, why: str) -> None:
        """A place whose worker could not open what the others did."""
        self._workers.remove(worker)
        worker.link.close(False)
        self._given_up[worker.place.id] = self._why = f"{worker.place.name} is left out: {why}"
        self.say(self._why)
        if self.facts is None:
            raise RuntimeError(why)
