"""Replicas of a model that answer as one backend: a pool of workers, each with the model open on a device of its own.

Tasks, scores, judges, limits and the run directory stay in the driver; requests go out and outcomes come back, so that rows are those
of one process. The requests of a window are cut into jobs of one engine's batch, longest first, those with a common beginning side by
side. Several windows are under way at once (`interleaved`): nobody waits for the last answer of a window.

A request that killed its workers, each time alone but the first, is a failure that says how they ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from kleval.backends.prefixes import plan_prefixes
from kleval.harness.asking import Answer, run_safely
from kleval.harness.manifest import engine_settings
from kleval.harness.plan import model_facts
from kleval.types import Backend, Failure, FailureKind, Outcome, Request, Tokenizer
from kleval.work.pool import Launcher, Lost, Part, Pool, Work

SHARED_TOKENS = 32  # a shorter beginning is no reason to stay together
ROWS = 16  # of a job where the engine does not say how many it answers together
OpenOn = Callable[[str, str], Backend]  # a model's name, a device; can be pickled
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opened:
    """What a backend says of itself, as a worker tells it."""

    name: str
    model: str
    tokenizer: Tokenizer
    max_ctx: int | None
    about: Mapping[str, Any]
    continues_answers: bool
    paid: bool

    def describe(self) -> dict[str, Any]:
        return dict(self.about)


class _Answering:
    """kleval.work.worker.Engine of a backend: payloads are requests, results outcomes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.facts = Opened(
            backend.name,
            backend.model,
            backend.tokenizer,
            backend.max_ctx,
            backend.describe(),
            getattr(backend, "continues_answers", True),
            getattr(backend, "paid", False),
        )

    def work(self, payloads: Sequence[Request]) -> tuple[Sequence[Outcome], Mapping[str, int]]:
        before, found = self._counts(), dict(answer for answer in run_safely(self._backend, payloads) if answer)
        counts = {name: n - before.get(name, 0) for name, n in self._counts().items()}
        return [found[position] for position in range(len(payloads))], counts

    def close(self) -> None:
        self._backend.close()

    def _counts(self) -> dict[str, int]:
        return dict(getattr(self._backend, "stats", None) or {})


@dataclass(frozen=True, slots=True)
class _Make:
    open: OpenOn
    model: str

    def __call__(self, device: str) -> _Answering:
        return _Answering(self.open(self.model, device))


class Replicas:
    """kleval.types.Backend of several workers, but that `run` gives None where no answer has come: whoever asks turns to something
    else, or calls `wait`."""

    def __init__(
        self, launcher: Launcher, open_on: OpenOn, model: str, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Opens the first; the others are opened when something is asked. say: told until `say_to` names another. UsageError as
        open_on's."""
        self.model = model
        self._pool = Pool(launcher, _Make(open_on, model), _differs)
        self.say_to(say)
        try:
            opened: Opened = self._pool.open()
        except BaseException:
            self._pool.close()
            raise
        self.name, self.model, self.tokenizer, self.max_ctx = (
            opened.name,
            opened.model,
            opened.tokenizer,
            opened.max_ctx,
        )
        self.continues_answers, self.paid, self.describe = opened.continues_answers, opened.paid, opened.describe
        self._rows = int(opened.about.get("max_batch") or ROWS)

    @property
    def hungry(self) -> bool:
        return self._pool.hungry

    def wait(self) -> None:
        self._pool.wait()

    def say_to(self, say: Callable[[str], None]) -> None:
        """Who is told of workers that end, and of those that are waited for."""
        self._pool.say = lambda text: say(f"{self.model}: {text}")

    def run(self, requests: Sequence[Request]) -> Iterator[Answer]:
        inbox: deque[tuple[int, Outcome | Lost]] = deque()
        self._pool.add(self._jobs(requests, inbox))
        left = len(requests)
        while left:
            if not inbox:
                yield None
                continue
            position, outcome = inbox.popleft()
            left -= 1
            yield position, _failed(outcome) if isinstance(outcome, Lost) else outcome

    def _jobs(self, requests: Sequence[Request], inbox: deque[tuple[int, Outcome | Lost]]) -> Iterator[Work]:
        """Requests that one worker answers together: as many as the engine does, or fewer where there are fewer than that for each."""
        rows = max(1, min(self._rows, -(-len(requests) // max(1, self._pool.size))))
        alike: list[Request] = []
        for family, members in enumerate(_families(requests)):
            for at in range(0, len(members), rows):
                positions = members[at : at + rows]
                alike = [requests[position] for position in positions]
                parts = [Part(position, request, inbox) for position, request in zip(positions, alike, strict=True)]
                yield Work(parts, max(map(_length, alike)), (id(inbox), family))

    def counted(self) -> dict[str, int]:
        """What a backend in this process has as `stats`."""
        return dict(self._pool.counts)

    def record(self) -> dict[str, Any]:
        return self._pool.record()

    def close(self) -> None:
        self._pool.close()


def replicas(
    launcher: Launcher, open_on: OpenOn, model: str, say: Callable[[str], None] = lambda text: None
) -> Backend:
    """A model opened as replicas."""
    return cast(Backend, Replicas(launcher, open_on, model, say))


def interleaved(begun: Iterator[Iterator[T | None]], backend: Backend, one_at_a_time: bool = False) -> Iterator[T]:
    """What windows of requests come to, as it comes. begun: windows, each asked for when the one before is over, of replicas when they
    have too little to do (unless one_at_a_time). None in a window: nothing has come yet."""
    several = backend if isinstance(backend, Replicas) else None
    active: deque[Iterator[T | None]] = deque()
    more = True
    try:
        while more or active:
            while more and (not active or (several is not None and several.hungry and not one_at_a_time)):
                window = next(begun, None)
                more = window is not None
                if window is not None:
                    active.append(window)
                    yield from _until_none(window, active)
            for window in tuple(active):
                yield from _until_none(window, active)
            if active and several is not None:
                several.wait()
    finally:
        for window in active:
            window.close()  # type: ignore[attr-defined]


def _until_none(window: Iterator[T | None], active: deque[Iterator[T | None]]) -> Iterator[T]:
    for one in window:
        if one is None:
            return
        yield one
    active.remove(window)


def _families(requests: Sequence[Request]) -> list[list[int]]:
    """Positions of requests with a common beginning, those with more in common side by side; then each of the others' lengths. The
    family with the longest request first."""
    ids = [request.token_ids or () for request in requests]
    found: list[list[int]] = []
    for root in plan_prefixes(ids, SHARED_TOKENS):
        members: list[int] = []
        stack = [root]
        while stack:
            node = stack.pop()
            members += node.members
            stack += reversed(node.children)
        found.append(members)
    known = {position for members in found for position in members}
    if alone := [position for position in range(len(ids)) if position not in known]:
        found.append(sorted(alone, key=lambda position: -_length(requests[position])))
    return sorted(found, key=lambda members: -max(_length(requests[position]) for position in members))


def _length(request: Request) -> int:
    return len(request.token_ids or ()) + request.max_new_tokens


def _failed(lost: Lost) -> Failure:
    kind: FailureKind = "out_of_memory" if lost.out_of_memory else "internal"
    return Failure(kind, f"{lost.n} workers ended while they answered it; the last one {lost.why}")


def _differs(first: Opened, other: Opened) -> str:
    """Why another worker's answers would not be the first one's."""
    one, two = (engine_settings("model", model_facts("", cast(Backend, opened), None)) for opened in (first, other))
    names = [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)]
    told = [
        f"{name.removeprefix('model.')} {two.get(name)!r} in the place of {one.get(name)!r}" for name in sorted(names)
    ]
    return f"it has {', '.join(told)[:300]}" if told else ""
