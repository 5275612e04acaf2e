"""Base of the tasks whose editions make questions, each sized to ctx: a task adds scores, its editions make the questions."""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from kleval.tasks.base import InOrder
from kleval.tasks.cards import Card, head
from kleval.tasks.counts import Counts
from kleval.tasks.draws import Draws, own_draws
from kleval.tasks.registry import check_protocol
from kleval.types import ContextTooSmall, Prompt, Sample, Tokenizer, Unfit


@dataclass(frozen=True, slots=True)
class Question:
    """tokens: of the rendered prompt, answer prefix included. meta: JSON values. answer_prefix: how the answer is made to begin."""

    index: int
    prompt: Prompt = field(repr=False)
    references: tuple[str, ...] = field(repr=False)
    tokens: int
    budget: int
    meta: Mapping[str, Any] = field(repr=False)
    answer_prefix: str = ""


class Edition(Protocol):
    """Where questions come from. revision, digest: of its data."""

    revision: str
    digest: str

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        """In order, with an Unfit for each that does not fit; until the data end, or without end."""
        ...


class OfficialData:
    """Questions out of files."""

    def __init__(self, task_id: str, revision: str, digest: str) -> None:
        self._task_id, self.revision, self.digest = task_id, revision, digest

    def _unfit(self, index: int, tokens: int, budget: int, ctx: int, about: str = "") -> Unfit:
        """about: said where the tokens were not counted to the end."""
        reason = f"{self._task_id} row {index} takes {about}{tokens} tokens and {budget} for the answer, ctx is {ctx}"
        return Unfit(index, reason, tokens + budget)


class BuiltinData(ABC):
    """Questions that kleval makes, each from random draws of its own, so that any can be made without the others."""

    def __init__(self, task_id: str, task_version: str, revision: str, digest: str) -> None:
        self._task_id, self._task_version = task_id, task_version
        self.revision, self.digest = revision, digest

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = range(sys.maxsize)
    ) -> Iterator[Question | Unfit]:
        """Those with the given indices."""
        yield from map(self._maker(tokenizer, ctx, seed), indices)

    @abstractmethod
    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        """What makes the question of an index. ContextTooSmall from either."""

    def _draws(self, ctx: int, seed: int, index: object) -> Draws:
        """index: of a question, or the name of what is drawn beside the questions."""
        return own_draws(self._task_id, self._task_version, "builtin", ctx, seed, index)

    def _too_small(self, ctx: int, minimum: int) -> ContextTooSmall:
        return ContextTooSmall(f"{self._task_id} (builtin) does not fit into ctx {ctx}: it needs {minimum}", minimum)


def digest_of(*parts: object) -> str:
    """sha256 over what a builtin edition is made of: versions of its generators, lists of words."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


class SizedTask(InOrder):
    """known: its protocols in that edition, the default first. own_protocols: those that its sample ids need not name. values: what
    the card's texts leave open. kinds: names of parts of the card that hold for it too. _open: finds the edition when it is first
    needed, so that the card can be shown before its data are here."""

    _open: Callable[[], Edition]
    version: str
    own_protocols: tuple[str, ...] = ()
    metric: str
    official_budget: int | str  # as the card says it

    def __init__(
        self,
        task_id: str,
        edition: str,
        protocol: str | None,
        known: Sequence[str],
        values: Mapping[str, object],
        kinds: Sequence[str] = (),
    ) -> None:
        self.id, self.edition = task_id, edition
        self.protocol = check_protocol(f"{task_id} ({edition})", protocol, known)
        family, _, name = task_id.partition("/")
        self._card = Card(family, (*kinds, name), edition, self.protocol, values)
        self.needs_judge = self._card.needs("judge")
        self.needs_continued_text = self._card.needs("continued text")
        self.description, self.deviations = self._card.text("description"), self._card.texts("deviations")

    @cached_property
    def _made(self) -> Edition:
        return self._open()

    @property
    def data_revision(self) -> str:
        return self._made.revision

    @property
    def data_digest(self) -> str:
        return self._made.digest

    def _samples(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        return self._of(self._made.questions(tokenizer, ctx, seed), ctx, seed)

    def samples_at(
        self, tokenizer: Tokenizer, ctx: int, indices: Iterable[int], seed: int
    ) -> Iterator[Sample | Unfit] | None:
        """The samples with those indices, without the others; None where the edition makes them all in order."""
        made = self._made
        return (
            self._of(made.questions(tokenizer, ctx, seed, indices), ctx, seed)
            if isinstance(made, BuiltinData)
            else None
        )

    def _of(self, questions: Iterator[Question | Unfit], ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        for question in questions:
            yield question if isinstance(question, Unfit) else self._sample(question, ctx, seed)

    def sample_id(self, index: int, ctx: int, seed: int) -> str:
        own = "" if self.protocol in self.own_protocols else f"-{self.protocol}"
        return f"{self.id}@{self.edition}-{self.version}{own}/{ctx}/s{seed}/i{index}"

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from; JSON values."""
        card, official = self._card, self.edition == "official"
        own_budget = card.text("max_new_tokens", "longest reference x 1.5 + 16")
        return {
            **head(self, card.text("source")),
            "prompt_sha256": hashlib.sha256(self._template().encode()).hexdigest(),
            "metric": card.text("metric") + card.text("metric_also"),
            "max_new_tokens": self.official_budget if official else own_budget,
            "limits": card.text("limits"),
            **self._facts(),
            "deviations": list(self.deviations),
            "defects": list(card.texts("defects")),
            "unknown": card.text("unknown"),
        }

    def counts(self) -> Counts | None:
        """What the official edition asks, known without its data; None where it is not, and of another edition."""
        return Counts.of(self._card.table("counts"), self.official_budget)

    def _facts(self) -> Mapping[str, Any]:
        """What the card says beside what all cards say."""
        return {}

    @abstractmethod
    def _template(self) -> str:
        """The prompt with its places unfilled, which its hash is over."""

    def _sample(self, question: Question, ctx: int, seed: int) -> Sample:
        return Sample(
            id=self.sample_id(question.index, ctx, seed),
            task=self.id,
            ctx=ctx,
            index=question.index,
            prompt=question.prompt,
            references=question.references,
            max_new_tokens=question.budget,
            prompt_tokens=question.tokens,
            answer_prefix=question.answer_prefix,
            meta=question.meta,
        )
