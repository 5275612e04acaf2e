"""Lengths and times of a run's answers: quantiles over all answers of a model at a length, and of a whole run."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kleval.quantiles import percentile
from kleval.store import Row
from kleval.tables.scores import Entrant, Run


@dataclass(slots=True)
class Answered:
    """Of one model at one length. tokens: that each answer has, over its requests; seconds: that each took; prompt_tokens: in all."""

    tokens: array[int] = field(default_factory=lambda: array("q"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    prompt_tokens: int = 0

    def add(self, row: Row) -> None:
        """What failed has no length. The text of a likelihood was given: it is part of the prompt, and the answer has no tokens."""
        told = [o for o in row.outcomes if o.get("kind") != "judge" and o.get("output_tokens") is not None]
        if row.failed or not told:
            return
        given = sum(o["output_tokens"] for o in told if o.get("kind") == "loglikelihood")
        self.tokens.append(sum(o["output_tokens"] for o in told) - given)
        self.prompt_tokens += given + sum(o.get("prompt_tokens") or 0 for o in row.outcomes if o.get("kind") != "judge")
        if row.seconds:
            self.seconds.append(row.seconds)


class AnswerLengths:
    """Collects rows while they go by (`watch`), then gives what a model's answers at a length were."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, int], Answered] = {}

    def watch(self, run: Run) -> Callable[[Row], None]:
        """For `collect`: a function that is called with every row of the run."""

        def see(row: Row) -> None:
            self._found.setdefault((run.id, row.model, row.ctx), Answered()).add(row)

        return see

    def of(self, entrant: Entrant, ctx: int) -> Answered:
        return self._found.get((entrant.run.id, entrant.model, ctx), Answered())


def quantiles(values: Iterable[float], shares: Iterable[float]) -> list[float]:
    """One per share; empty for no values."""
    known = list(values)
    return [percentile(known, share) for share in shares] if known else []
