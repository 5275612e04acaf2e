"""Spec of a served profile: a command as data, checked before the model is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.backends.spec import BackendSpec
from kleval.types import UsageError
from kleval.work import Spec

DECODE_TOKENS = 32
REPEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSpec(Spec):
    """engine: the model, and how its server or engine is reached (backend is one that can be timed).

    ctxs: prompt lengths in tokens. concurrencies: how many requests are sent together. decode_tokens: asked of each request.
    repeats: rounds per length and concurrency, after one that is not counted. seed: of the prompts.
    append: measure all again as a further session, where the first is complete. out: the run directory; None for a dry run.
    name, tags: what people call it and tell it by. command: for the record.
    """

    engine: BackendSpec
    ctxs: tuple[int, ...]
    concurrencies: tuple[int, ...] = (1,)
    decode_tokens: int = DECODE_TOKENS
    repeats: int = REPEATS
    seed: int = 42
    append: bool = False
    out: Path | None = None
    dry_run: bool = False
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    def check(self) -> None:
        """UsageError for what cannot be measured as asked."""
        engine = self.engine
        if engine.backend == "openai" and engine.base_url is None:
            raise UsageError("--backend openai asks a server: add its address, --base-url http://localhost:8000/v1")
        if not self.ctxs or not self.concurrencies:
            raise UsageError("no context length or no concurrency given: name at least one")
        if min(self.ctxs) < 1 or min(self.concurrencies) < 1:
            raise UsageError("context lengths and concurrencies are at least 1")
        if self.decode_tokens < 2:
            raise UsageError(
                f"--decode-tokens is at least 2 (a time between tokens needs two), not {self.decode_tokens}"
            )
        if self.repeats < 1:
            raise UsageError(f"--repeats is at least 1, not {self.repeats}")
        Spec.check(self)

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
