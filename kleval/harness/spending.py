"""Spending guard: what a run's requests came to, and a backend that stops asking before a limit is passed.

Counted are the requests that were handed to a backend, judges' included, and the tokens of their answers: as the server counts them
where it does, answers that came to nothing included. Requests that a server refused for coming too fast are its backend's own affair
and cost nothing. A request goes out only if the limits hold with the most that it can cost: its whole prompt at the full price and
its whole generation budget. What is in flight together is bounded together. What is spent is up to date with every answer, and a run's
earlier sessions count (`earlier`), those that were killed too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from kleval.harness.asking import Answer, run_safely
from kleval.store import Row
from kleval.text import plural
from kleval.types import Backend, Completion, Failure, Request

COUNTED = ("requests", "judge_requests", "prompt_tokens", "output_tokens", "cached_tokens", "cost")
CHARS_PER_TOKEN = 2  # at least so many where the model's tokenizer is not here


@dataclass(frozen=True, slots=True)
class Price:
    """Of a million tokens that are read, written, and read from a server's cache, in any currency."""

    read: float
    written: float
    cached: float

    @classmethod
    def of(cls, given: Sequence[float] | None) -> Price | None:
        """(read, written) or (read, written, cached): without the last, what is cached costs as much as what is not."""
        if given is None:
            return None
        read, written, *cached = given
        return cls(read, written, cached[0] if cached else read)

    def cost(self, read: float, written: float, cached: float = 0) -> float:
        return ((read - cached) * self.read + cached * self.cached + written * self.written) / 1e6


@dataclass(slots=True)
class Spending:
    """What a run may spend and has spent, in all of its sessions. before: by earlier ones (`earlier`).

    reached: the limit that kept a request from being asked, in words; empty while none did.
    """

    max_cost: float | None = None
    max_requests: int | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    reached: str = ""

    def total(self, name: str) -> float:
        return self.before.get(name, 0) + self.spent[name]

    def record(self) -> dict[str, float]:
        """Of this session."""
        return dict(self.spent)

    def admits(self, requests: Sequence[Request], price: Price | None, exact: bool = True) -> int:
        """How many of the requests, from the first, may be asked together; `reached` is set when it is none. exact: as of `most`."""
        n = len(requests)
        if self.max_requests is not None:
            n = min(n, max(0, self.max_requests - int(self.total("requests"))))
            if not n:
                self.reached = f"--max-requests {self.max_requests}"
        if self.max_cost is not None and price is not None:
            left = self.max_cost - self.total("cost")
            for place, request in enumerate(requests[:n]):
                left -= most(request, price, exact)
                if left < 0:
                    n = place
                    break
            if not n and not self.reached:
                self.reached = f"--max-cost {self.max_cost:g}"
        return n

    def message(self) -> str:
        requests, cost = plural(int(self.total("requests")), "request"), self.total("cost")
        what = f"{requests} and {cost:.4g}" if self.max_cost is not None else requests
        return (
            f"stopped at {self.reached}: {what} spent, and the next request could pass it; what was answered is kept, a higher limit "
            "goes on from there"
        )


def most(request: Request, price: Price, exact: bool) -> float:
    """The most that a request can cost. exact: its token ids are those that the model reads."""
    read = len(request.token_ids or ()) + len(request.continuation_ids or ())
    if not exact:
        text = request.prompt if isinstance(request.prompt, str) else "".join(m["content"] for m in request.prompt)
        read = max(read, math.ceil(len(text) / CHARS_PER_TOKEN))
    return price.cost(read, max(1, request.max_new_tokens))


def metered(backend: Backend, spending: Spending, price: Price | None, judging: bool = False) -> Backend:
    """The backend, its requests counted and asked only as far as the spending admits; the others are Failure(not_asked)."""
    return cast(Backend, _Metered(backend, spending, price, judging))


class _Metered:
    def __init__(self, backend: Backend, spending: Spending, price: Price | None, judging: bool) -> None:
        self._backend, self._spending, self._price, self._judging = backend, spending, price, judging
        about = backend.describe()
        self._exact = not (judging or about.get("tokenizer_counts_only", False))
        self._together = int(about.get("concurrency") or 1)
        self._before = self._counts()
        self._n, self._read, self._written = 0, 0, 0
        self._booked: dict[str, float] = dict.fromkeys(COUNTED, 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def run(self, requests: Sequence[Request]) -> Iterator[Answer]:
        at = 0
        while at < len(requests):
            n = self._spending.admits(requests[at:], self._price, self._exact)
            if not n:
                break
            for answer in self._asked(requests[at : at + n]):
                yield None if answer is None else (at + answer[0], answer[1])
            at += n
        for position in range(at, len(requests)):
            yield position, Failure("not_asked", f"not asked: {self._spending.reached}")

    def _asked(self, requests: Sequence[Request]) -> Iterator[Answer]:
        waiting = dict.fromkeys(range(len(requests)))
        try:
            for answer in run_safely(self._backend, requests):
                if answer is None:
                    yield None
                    continue
                position, outcome = answer
                del waiting[position]
                self._n += 1
                if isinstance(outcome, Completion):
                    read, written = tokens(requests[position].kind, outcome.prompt_tokens, outcome.output_tokens)
                    self._read += read
                    self._written += written
                self._book()
                yield position, outcome
        finally:  # cut short, what was in flight has been sent and is read
            for position in list(waiting)[: self._together]:
                self._n += 1
                self._read += len(requests[position].token_ids or ())
            self._book()

    def _book(self) -> None:
        """Bring what is spent up to now, so that a killed process loses only what came after run.json was last written."""
        told = {name: n - self._before.get(name, 0) for name, n in self._counts().items()}
        read, written = self._read, self._written
        if "output_tokens" in told:  # those of answers that came to nothing too
            read, written = max(read, told["prompt_tokens"]), max(written, told["output_tokens"])
        cached = told.get("cached_tokens", 0)
        due = booking(self._n, read, written, cached, self._price, self._judging)
        for name, value in due.items():
            self._spending.spent[name] += value - self._booked[name]
        self._booked = due

    def _counts(self) -> dict[str, int]:
        return dict(getattr(self._backend, "stats", None) or {})


def tokens(kind: str, prompt: int, output: int) -> tuple[int, int]:
    """(read, written) of an answer: a likelihood's continuation was given, so it is read."""
    return (prompt + output, 0) if kind == "loglikelihood" else (prompt, output)


def booking(
    n: int, read: int, written: int, cached: int, price: Price | None, judging: bool = False
) -> dict[str, float]:
    """The COUNTED of n requests together."""
    cost = 0.0 if price is None else price.cost(read, written, cached)
    return dict(zip(COUNTED, (n, n if judging else 0, read, written, cached, cost), strict=True))


def earlier(
    sessions: Sequence[Mapping[str, Any]], rows: Iterable[Row], price: Price | None, judge_price: Price | None
) -> tuple[dict[str, float], dict[str, float]]:
    """(spent by a run's earlier sessions, what of that is in no session's record).

    The second is of the last session, where it was killed: what the rows came to that it filed after it last wrote run.json. Of several
    that were in flight when it was killed nothing is known.
    """
    lost: dict[str, float] = dict.fromkeys(COUNTED, 0)
    last = sessions[-1] if sessions else {}
    if sessions and last.get("finished") is None and "shard" not in last:
        since = last.get("seen") or last.get("started", "")
        for row in rows:
            if row.finished >= since:
                for name, value in _row(row, price, judge_price).items():
                    lost[name] += value
    kept = [record for session in sessions for record in (session.get("spent", {}), session.get("carried", {}))]
    return {name: lost[name] + sum(record.get(name, 0) for record in kept) for name in COUNTED}, lost


def _row(row: Row, price: Price | None, judge_price: Price | None) -> dict[str, float]:
    total: dict[str, float] = dict.fromkeys(COUNTED, 0)
    for record in row.outcomes:
        judging = record["kind"] == "judge"
        read, written = tokens(record["kind"], record.get("prompt_tokens", 0), record.get("output_tokens", 0))
        paid = (judge_price or price) if judging else price
        for name, value in booking(record.get("attempts", 1), read, written, 0, paid, judging).items():
            total[name] += value
    return total
