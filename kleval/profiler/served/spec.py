"""Spec of a served profile: a command as data, checked before the model is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kleval.backends.spec import BackendSpec
from kleval.profiler.served.output import Output, parse_output
from kleval.profiler.served.slo import parse_slo
from kleval.store import RunStore
from kleval.types import Outcome, Request, Timed, UsageError
from kleval.work import Spec

DECODE_TOKENS = 32
Send = Callable[[Sequence[Request]], Sequence[Outcome]]
REPEATS = 3
MOST_PER_SECOND = 100_000


class Questions(Protocol):
    """Samples of tasks as the prompts of a load, and what scores their answers (kleval.harness.under_load has it)."""

    def open(self, backend: Timed) -> None:
        """Called once for each that is measured. UsageError for one whose timed answers cannot be scored, and for tasks that cannot
        be asked so or fit at none of the lengths."""
        ...

    def unfit(self, backend: Timed, ctx: int) -> str:
        """Why no task has a sample at a length; "" where one has."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """What must be the same for a profile to go on."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Further fields of run.json."""
        ...

    def ask(
        self, backend: Timed, place: tuple[str, int], n: int | None, send: Send, store: RunStore
    ) -> Sequence[float | None]:
        """Send n requests of a load at a length (None: one of each task), file what comes of them as rows, and tell their scores.
        ContextTooSmall where nothing fits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSpec(Spec):
    """engine: the model, and how its server or engine is reached (backend is one that can be timed).

    more: further servers, measured in turn. ctxs: prompt lengths in tokens. concurrencies: how many requests are sent together.
    decode_tokens: asked of each request, or what they are drawn from (kleval.profiler.served.output). tasks: whose samples are the
    prompts of requests under load, which `Questions` makes; ctxs are then lengths of prompt and answer. engine_log: the server's log,
    which says what it allocated. reuse: shares of a prompt
    that were sent before. rates: requests per second that come by themselves; steady: how many are held under way; best_rate: find
    the highest rate that holds the slo (its text, see kleval.profiler.served.slo). requests: counted in a round of these; None: as
    many as the load takes (kleval.profiler.served.load.counted_requests).
    repeats: rounds per length and load, after one that is not counted. seed: of the prompts, and of when requests come.
    append: measure all again as a further session, where the first is complete. out: the run directory; None for a dry run.
    name, tags: what people call it and tell it by. command: for the record.
    """

    engine: BackendSpec
    more: tuple[BackendSpec, ...] = ()
    ctxs: tuple[int, ...]
    concurrencies: tuple[int, ...] = (1,)
    reuse: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    steady: tuple[int, ...] = ()
    best_rate: bool = False
    slo: str = ""
    requests: int | None = None
    decode_tokens: int | str = DECODE_TOKENS
    tasks: tuple[str, ...] = ()
    engine_log: Path | None = None
    repeats: int = REPEATS
    seed: int = 42
    append: bool = False
    out: Path | None = None
    dry_run: bool = False
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    verified: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """UsageError for what cannot be measured as asked."""
        engine = self.engine
        if engine.backend == "openai" and engine.base_url is None:
            raise UsageError("--backend openai asks a server: add its address, --base-url http://localhost:8000/v1")
        self._check_load()
        if not self.ctxs or not (self.concurrencies or self.is_more):
            raise UsageError("no context length or no concurrency given: name at least one")
        if min((*self.ctxs, *self.concurrencies, *self.steady)) < 1:
            raise UsageError("context lengths and concurrencies are at least 1")
        parse_output(self.decode_tokens)
        if self.more and self.engine_log is not None:
            raise UsageError("--engine-log is of one server: measure several without it, or each by itself")
        if self.more and {one.backend for one in (engine, *self.more)} != {"openai"}:
            raise UsageError("only servers are measured side by side: give each its --base-url")
        if self.repeats < 1:
            raise UsageError(f"--repeats is at least 1, not {self.repeats}")
        Spec.check(self)

    @property
    def output(self) -> Output:
        return parse_output(self.decode_tokens)

    @property
    def has_load(self) -> bool:
        return bool(self.rates or self.steady or self.best_rate)

    @property
    def is_more(self) -> bool:
        """Whether anything is measured besides requests that are sent together."""
        return self.has_load or bool(self.reuse)

    def _check_load(self) -> None:
        if not self.has_load and (self.slo or self.tasks or self.requests is not None):
            said = "--slo" if self.slo else "--tasks" if self.tasks else "--requests"
            raise UsageError(f"{said} is for requests under load: add --rate, --steady or --best-rate")
        if not all(0 <= share <= 1 for share in self.reuse):
            raise UsageError("--reuse is the share of a prompt that was sent before, from 0 to 1: --reuse 0,0.5,1")
        if not all(0 < rate <= MOST_PER_SECOND for rate in self.rates):
            raise UsageError(f"--rate is requests per second, above 0 and at most {MOST_PER_SECOND:,}")
        if self.best_rate and not self.slo:
            raise UsageError("--best-rate needs what must hold: add --slo ttft=2s,tpot=50ms")
        if self.tasks and (self.concurrencies or self.reuse):
            said = "--reuse" if self.reuse else "--concurrency"
            raise UsageError(f"--tasks are the prompts of requests under load: leave out {said}")
        if self.requests is not None and self.requests < 2:
            raise UsageError(f"--requests is at least 2, not {self.requests}")
        if self.slo:
            parse_slo(self.slo)

    def record(self) -> dict[str, Any]:
        """JSON values; of a server's address only what is safe to write."""
        engine, values = self.engine, Spec.record(self)
        del values["engine"], values["more"]
        if self.more:
            values["servers"] = [safe_url(one) for one in (engine, *self.more)]
        return {**values, "model": engine.model, "backend": engine.backend, "base_url": safe_url(engine)}


def safe_url(engine: BackendSpec) -> str | None:
    """The server's address without user, password and query."""
    if engine.base_url is None:
        return None
    from kleval.backends.server_address import parse_address

    return parse_address(engine.base_url, engine.api_key_env).url
