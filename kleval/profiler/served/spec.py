"""Spec of a served profile: a command as data, checked before the model is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.backends.spec import BackendSpec
from kleval.profiler.served.slo import parse_slo
from kleval.types import UsageError
from kleval.work import Spec

DECODE_TOKENS = 32
REPEATS = 3
MOST_PER_SECOND = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSpec(Spec):
    """engine: the model, and how its server or engine is reached (backend is one that can be timed).

    ctxs: prompt lengths in tokens. concurrencies: how many requests are sent together. decode_tokens: asked of each request. reuse:
    shares of a prompt that were sent before. rates: requests per second that come by themselves; steady: how many are held under
    way; best_rate: find the highest rate that holds the slo (its text, see kleval.profiler.served.slo). requests: counted in a
    round of these; None: as many as the load takes (kleval.profiler.served.load.counted_requests).
    repeats: rounds per length and load, after one that is not counted. seed: of the prompts, and of when requests come.
    append: measure all again as a further session, where the first is complete. out: the run directory; None for a dry run.
    name, tags: what people call it and tell it by. command: for the record.
    """

    engine: BackendSpec
    ctxs: tuple[int, ...]
    concurrencies: tuple[int, ...] = (1,)
    reuse: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    steady: tuple[int, ...] = ()
    best_rate: bool = False
    slo: str = ""
    requests: int | None = None
    decode_tokens: int = DECODE_TOKENS
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
        if not self.ctxs or not (self.concurrencies or self.is_more):
            raise UsageError("no context length or no concurrency given: name at least one")
        if min((*self.ctxs, *self.concurrencies, *self.steady)) < 1:
            raise UsageError("context lengths and concurrencies are at least 1")
        self._check_load()
        if self.decode_tokens < 2:
            raise UsageError(
                f"--decode-tokens is at least 2 (a time between tokens needs two), not {self.decode_tokens}"
            )
        if self.repeats < 1:
            raise UsageError(f"--repeats is at least 1, not {self.repeats}")
        Spec.check(self)

    @property
    def has_load(self) -> bool:
        return bool(self.rates or self.steady or self.best_rate)

    @property
    def is_more(self) -> bool:
        """Whether anything is measured besides requests that are sent together."""
        return self.has_load or bool(self.reuse)

    def _check_load(self) -> None:
        if not all(0 <= share <= 1 for share in self.reuse):
            raise UsageError("--reuse is the share of a prompt that was sent before, from 0 to 1: --reuse 0,0.5,1")
        if not all(0 < rate <= MOST_PER_SECOND for rate in self.rates):
            raise UsageError(f"--rate is requests per second, above 0 and at most {MOST_PER_SECOND:,}")
        if self.best_rate and not self.slo:
            raise UsageError("--best-rate needs what must hold: add --slo ttft=2s,tpot=50ms")
        if not self.has_load and (self.slo or self.requests is not None):
            said = "--slo" if self.slo else "--requests"
            raise UsageError(f"{said} is for requests under load: add --rate, --steady or --best-rate")
        if self.requests is not None and self.requests < 2:
            raise UsageError(f"--requests is at least 2, not {self.requests}")
        if self.slo:
            parse_slo(self.slo)

    def record(self) -> dict[str, Any]:
        """JSON values; of a server's address only what is safe to write."""
        engine, values = self.engine, Spec.record(self)
        del values["engine"]
        return {**values, "model": engine.model, "backend": engine.backend, "base_url": safe_url(engine)}


def safe_url(engine: BackendSpec) -> str | None:
    """The server's address without user, password and query."""
    if engine.base_url is None:
        return None
    from kleval.backends.server_address import parse_address

    return parse_address(engine.base_url, engine.api_key_env).url
