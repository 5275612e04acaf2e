"""A pool with workers that are plain objects: what is handed out, to whom, and what becomes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from kleval.types import UsageError
from kleval.work.pool import Lost, Part, Place, Pool, Work
from kleval.work.worker import Dead


class Link:
    def __init__(self, place: Place, deadly: set[Any]) -> None:
        self.place, self.deadly = place, deadly
        self.replies: deque[Any] = deque([("open", place.device)])
        self.sent: list[list[Any]] = []
        self.dead = self.closed = False

    def send(self, payloads: Sequence[Any]) -> None:
        self.sent.append(list(payloads))
        self.dead = self.dead or bool(self.deadly.intersection(payloads))
        self.replies.append(Dead("died") if self.dead else ("done", ([-n for n in payloads], {"n": len(payloads)})))

    def receive(self) -> Any:
        reply = self.replies.popleft()
        if isinstance(reply, Dead):
            raise reply
        return reply

    def close(self, idle: bool) -> None:
        self.closed = True


class Launcher:
    """One reply at a time, so that what is in flight can be looked at."""

    kind = "fake"

    def __init__(self, *devices: str, deadly: Sequence[Any] = ()) -> None:
        self.devices, self.deadly = list(devices), set(deadly)
        self.links: list[Link] = []

    def places(self) -> list[Place]:
        return [Place(at, f"{device} of {at}", device) for at, device in enumerate(self.devices)]

    def start(self, place: Place, make: Any) -> Link:
        self.links.append(Link(place, self.deadly))
        return self.links[-1]

    def wait(self, links: Sequence[Link], seconds: float) -> list[Link]:
        return [link for link in links if link.replies][-1:]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 2.0
        return self.now


def pool_of(*devices: str, **more: Any) -> tuple[Pool, Launcher, list[str]]:
    launcher, told = Launcher(*devices, **more), []
    pool = Pool(launcher, lambda device: None, lambda a, b: "" if a == b else "another", told.append, Clock())  # type: ignore[arg-type,return-value]
    return pool, launcher, told


def finish(pool: Pool, inbox: deque[Any], n: int) -> dict[Any, Any]:
    for _ in range(200):
        if len(inbox) == n:
            break
        pool.wait(0.0)
    return dict(inbox)


def jobs(inbox: deque[Any], *lists: Sequence[int], family: Any = None) -> list[Work]:
    return [Work([Part(n, n, inbox) for n in one], float(max(one)), family) for one in lists]


def test_the_longest_goes_first_and_no_worker_has_more_than_two() -> None:
    pool, launcher, _ = pool_of("a", "a")
    inbox: deque[Any] = deque()
    assert pool.open() == "a"
    pool.add(jobs(inbox, *([n] for n in range(1, 21))))
    most = 0
    while len(inbox) < 20:
        pool.wait(0.0)
        most = max(most, *(sum(reply[0] == "done" for reply in link.replies) for link in launcher.links))
    assert most <= 2
    assert dict(inbox) == {n: -n for n in range(1, 21)}
    assert launcher.links[0].sent[0] == [20]
    assert pool.counts == {"n": 20}


def test_what_kills_three_workers_is_lost_and_nothing_else() -> None:
    pool, launcher, told = pool_of("a", "a", deadly=[3])
    inbox: deque[Any] = deque()
    pool.open()
    pool.add(jobs(inbox, [1, 2, 3, 4], [5, 6], [7], [8], [9], [10]))
    found = finish(pool, inbox, 10)
    assert found == {n: -n for n in range(1, 11) if n != 3} | {3: Lost("died", 3)}
    assert pool.deaths == 3
    assert len(told) == 3
    assert sum(link.closed for link in launcher.links) == 3


def test_a_place_that_appears_gets_a_worker() -> None:
    pool, launcher, _ = pool_of("a")
    inbox: deque[Any] = deque()
    pool.open()
    pool.add(jobs(inbox, *([n] for n in range(1, 41))))
    pool.wait(0.0)
    launcher.devices.append("a")
    assert len(finish(pool, inbox, 40)) == 40
    assert launcher.links[1].sent


def test_one_of_the_family_goes_before_one_of_the_same_length() -> None:
    pool, launcher, _ = pool_of("a")
    inbox: deque[Any] = deque()
    pool.open()
    pool.add([*jobs(inbox, [10], family="x"), *jobs(inbox, [9], family="y"), *jobs(inbox, [8], [1], family="x")])
    finish(pool, inbox, 4)
    assert launcher.links[0].sent == [[10], [8], [9], [1]]


def test_a_worker_that_opened_something_else_is_not_asked_and_told_of() -> None:
    pool, launcher, told = pool_of("a", "b")
    inbox: deque[Any] = deque()
    pool.open()
    pool.add(jobs(inbox, *([n] for n in range(1, 9))))
    assert len(finish(pool, inbox, 8)) == 8
    assert not launcher.links[1].sent
    assert told == ["b of 1 is left out: another"]


def test_without_a_place_for_a_worker_the_command_ends_with_a_line() -> None:
    pool, _, _ = pool_of()
    with pytest.raises(UsageError, match="no worker is left: there is no place for one"):
        pool.open()


class Slow(Launcher):
    """The first place never opens."""

    def start(self, place: Place, make: Any) -> Link:
        link = super().start(place, make)
        if place.id == 0:
            link.replies.clear()
        return link


def test_a_place_that_does_not_open_keeps_nobody_waiting() -> None:
    launcher = Slow("a", "a")
    pool = Pool(launcher, lambda device: None, clock=Clock())  # type: ignore[arg-type,return-value]
    assert pool.open() == "a"
    assert [link.place.id for link in launcher.links] == [0, 1]


@pytest.mark.parametrize(("blameless", "result"), [(True, -1), (False, Lost("is gone", 3))])
def test_what_dies_with_its_machine_is_no_death_of_a_request(blameless: bool, result: Any) -> None:
    pool, launcher, _ = pool_of("a")
    inbox: deque[Any] = deque()
    pool.open()
    start = launcher.start

    def leaving(place: Place, make: Any) -> Link:
        link = start(place, make)
        if len(launcher.links) <= 5:
            link.send = lambda payloads: link.replies.append(Dead("is gone", blameless=blameless))  # type: ignore[method-assign]
        return link

    launcher.start = leaving  # type: ignore[method-assign]
    launcher.links[0].send = lambda payloads: launcher.links[0].replies.append(Dead("is gone", blameless=blameless))  # type: ignore[method-assign]
    pool.add(jobs(inbox, [1]))
    assert finish(pool, inbox, 1) == {1: result}


def test_a_worker_that_fails_to_open_is_tried_again() -> None:
    pool, launcher, told = pool_of("a", "a")
    pool.open()
    start = launcher.start

    def failing(place: Place, make: Any) -> Link:
        link = start(place, make)
        if len([one for one in launcher.links if one.place.id == place.id]) < 3:
            link.replies = deque([("failed", "Traceback (most recent call last):\nRuntimeError: device is full")])
        return link

    launcher.start = failing  # type: ignore[method-assign]
    inbox: deque[Any] = deque()
    pool.add(jobs(inbox, *([n] for n in range(1, 9))))
    finish(pool, inbox, 8)
    assert any(one.startswith("the worker on a of 1 could not open: RuntimeError: device is full") for one in told)
    assert not any("Traceback" in one for one in told)
    assert {link.place.id for link in launcher.links if link.sent} == {0, 1}
