"""Law: the cases that an engine must pass, what it must be able to do for them, and the usual cause where it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kleval.verify.engine import Engine
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Trial

NEEDS_SCORES = "the engine gives no log-probabilities of a prompt's tokens"
NEEDS_TOLD = "the engine gives no log-probabilities"
NEEDS_IDS = "the engine does not say which tokens it wrote"


@dataclass(frozen=True, slots=True)
class Law:
    """name: in commands and records. cases: most telling first. needs: why it cannot be tried on this engine, "" where it can.
    cause: what usually breaks it, of the trial that broke it first."""

    name: str
    title: str
    cases: Callable[[Engine, Plan], Sequence[Case]]
    cause: Callable[[Trial], str]
    needs: Callable[[Engine, Plan], str] = lambda engine, plan: ""

    def why_not(self, engine: Engine, plan: Plan) -> str:
        """Why it cannot be tried on this engine, or with prompts as short as these; "" where it can."""
        missing = self.needs(engine, plan)
        if missing or self.cases(engine, plan):
            return missing
        return f"prompts of up to {plan.longest} tokens are too short for it: give a longer --ctx"
