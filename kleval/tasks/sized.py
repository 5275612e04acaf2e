"""Base of the tasks whose editions make questions, each sized to ctx: a task adds scores, its editions make the questions.

What a card says in words stands in `card.toml` of the family's folder. Its top level holds for all tasks, `tasks.NAME` for one;
in each, `builtin`, `official` and `protocols.NAME` hold for an edition or a protocol. What is more particular takes the place of
the rest; `deviations` add up, and `metric_also` stands behind `metric`. `{name}` in a text is a value that the task gives.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from kleval.tasks import packaged
from kleval.tasks.data import MissingData
from kleval.tasks.draws import Draws, own_draws
from kleval.tasks.registry import check_protocol
from kleval.types import ContextTooSmall, Prompt, Sample, Tokenizer, Unfit, UsageError


@dataclass(frozen=True, slots=True)
class Question:
    """tokens: of the rendered prompt, answer prefix included. meta: JSON values."""

    index: int
    prompt: Prompt = field(repr=False)
    references: tuple[str, ...] = field(repr=False)
    tokens: int
    budget: int
    meta: Mapping[str, Any] = field(repr=False)


class Data(Protocol):
    """What an edition says of its data."""

    revision: str
    digest: str


class Edition(Data, Protocol):
    """Where questions come from."""

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


class BuiltinData:
    """Questions that kleval makes, each from random draws of its own."""

    def __init__(self, task_id: str, task_version: str, revision: str, digest: str) -> None:
        self._task_id, self._task_version = task_id, task_version
        self.revision, self.digest = revision, digest

    def _draws(self, ctx: int, seed: int, index: object) -> Draws:
        """index: of a question, or the name of what is drawn beside the questions."""
        return own_draws(self._task_id, self._task_version, "builtin", ctx, seed, index)

    def _too_small(self, ctx: int, minimum: int) -> ContextTooSmall:
        return ContextTooSmall(f"{self._task_id} (builtin) does not fit into ctx {ctx}: it needs {minimum}", minimum)


def digest_of(*parts: object) -> str:
    """sha256 over what a builtin edition is made of: versions of its generators, lists of words."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


E = TypeVar("E", bound=Data)


class OfData(Generic[E]):
    """A task whose edition is looked for when it is first needed: its card can be shown before its data are here."""

    _open: Callable[[], E]

    @cached_property
    def _made(self) -> E:
        return self._open()

    @property
    def data_revision(self) -> str:
        return self._made.revision

    @property
    def data_digest(self) -> str:
        return self._made.digest

    def data_facts(self) -> dict[str, Any]:
        """What a card says of the data."""
        try:
            revision, digest = self.data_revision, self.data_digest
        except MissingData as error:
            revision, digest = f"not here: `kleval data fetch {error.family}` gets it", "none"
        return {"revision": revision, "data_revision": revision, "data_digest": digest}


class SizedTask(OfData[Edition], ABC):
    """known: its protocols in that edition, the default first. own_protocols: those that its sample ids need not name. values: what
    the card's texts leave open. answer_prefix: what answers are made to begin with."""

    version: str
    own_protocols: tuple[str, ...] = ()
    metric: str
    answer_prefix = ""
    official_budget: int | str  # as the card says it

    def __init__(
        self, task_id: str, edition: str, protocol: str | None, known: Sequence[str], values: Mapping[str, object]
    ) -> None:
        self.id, self.edition = task_id, edition
        self.protocol = check_protocol(task_id, protocol, known)
        self._values = values
        self.description = self._words("description")
        self.deviations = tuple(text.format_map(values) for text in self._listed("deviations"))

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample | Unfit]:
        if ctx < 1 or n < 0:
            raise UsageError(f"{self.id}: ctx must be at least 1 and the number of samples at least 0")
        made = 0
        questions = self._made.questions(tokenizer, ctx, seed) if n else iter(())
        for question in questions:
            if isinstance(question, Unfit):
                yield question
                continue
            yield self._sample(question, ctx, seed)
            made += 1
            if made == n:
                return

    def sample_id(self, index: int, ctx: int, seed: int) -> str:
        own = "" if self.protocol in self.own_protocols else f"-{self.protocol}"
        return f"{self.id}@{self.edition}-{self.version}{own}/{ctx}/s{seed}/i{index}"

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from; JSON values."""
        official = self.edition == "official"
        source = self._words("source")
        return {
            "id": self.id,
            "version": self.version,
            "edition": self.edition,
            "protocol": self.protocol,
            "description": self.description,
            "source": source if official else f"made by kleval in the shape of {source}",
            **self.data_facts(),
            "prompt_sha256": hashlib.sha256(self._template().encode()).hexdigest(),
            "metric": self._words("metric") + self._words("metric_also"),
            "max_new_tokens": self.official_budget if official else self._words("max_new_tokens"),
            "limits": self._words("limits"),
            **self._facts(),
            "deviations": list(self.deviations),
            "defects": self._listed("defects"),
            "unknown": self._words("unknown"),
        }

    def _facts(self) -> Mapping[str, Any]:
        """What the card says beside what all cards say."""
        return {}

    @abstractmethod
    def _template(self) -> str:
        """The prompt with its places unfilled, which its hash is over."""

    def _layers(self) -> list[Mapping[str, Any]]:
        """The parts of the card that hold for this task, the most particular last."""
        family, _, name = self.id.partition("/")
        whole = packaged.load(f"{family}/card.toml")
        parts = [whole, whole.get("tasks", {}).get(name, {})]
        found = [layer for part in parts for layer in (part, part.get(self.edition, {}))]
        return found + [part.get("protocols", {}).get(self.protocol, {}) for part in parts]

    def _words(self, key: str) -> str:
        found = next((layer[key] for layer in reversed(self._layers()) if key in layer), _DEFAULTS.get(key, ""))
        return str(found).format_map(self._values)

    def _listed(self, key: str) -> list[str]:
        return [text for layer in self._layers() for text in layer.get(key, ())]

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
            answer_prefix=self.answer_prefix,
            meta=question.meta,
        )


_DEFAULTS = {"max_new_tokens": "longest reference x 1.5 + 16"}
