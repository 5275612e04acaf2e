"""Specification of a verification: the engine, the reference, how long, how sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.backends.spec import BackendSpec
from kleval.types import UsageError
from kleval.work import Spec

LONGEST = 9216  # tokens, unless --ctx says otherwise: past the last likely boundary


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySpec(Spec):
    """engine: what is verified. reference: what it is compared with. ctx: the longest prompt, as far as the engine takes it.

    laws: names, empty for all. time_budget: seconds for all of them. alpha: the probability that a right engine is called broken.
    """

    engine: BackendSpec
    reference: BackendSpec | None = None
    ctx: int = LONGEST
    laws: tuple[str, ...] = ()
    time_budget: float = 300.0
    alpha: float = 0.001
    seed: int = 42
    out: Path | None = None
    dry_run: bool = False
    command: str = ""
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        Spec.check(self)
        if self.ctx < 32:
            raise UsageError(f"--ctx {self.ctx} is too short to try a law: at least 32")
        if not self.time_budget > 0:
            raise UsageError("--time-budget is a time above 0, like 5m")
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"--alpha is a probability below 0.5, not {self.alpha:g}")

    def record(self) -> dict[str, Any]:
        values = Spec.record(self)
        for name in ("engine", "reference"):
            spec = values[name]
            values[name] = spec and {**spec.settings(), "model": spec.model, "engine_args": spec.shown_engine_args()}
        return values
