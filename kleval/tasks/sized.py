"""Base of the tasks whose editions make questions, each sized to ctx: a task adds prompts and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from kleval.tasks.data import MissingData
from kleval.types import Sample, Tokenizer, Unfit, UsageError


class Data(Protocol):
    """What an edition says of its data."""

    revision: str
    digest: str


class Edition(Data, Protocol):
    """Where questions come from."""

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Any]:
        """Questions of the family's own class, and an Unfit for each that does not fit; until the data end, or without end."""
        ...


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
    """`samples`, `sample_id` and `facts` of a task; `own_protocols` are those that its sample ids need not name."""

    id: str
    version: str
    metric: str
    edition: str
    protocol: str
    description: str
    deviations: tuple[str, ...]
    own_protocols: tuple[str, ...]

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

    def facts(self, source: str, official_source: str | None = None) -> dict[str, Any]:
        """How a card begins. source: of the protocol; official_source: with the data of that edition, where they are another's."""
        official = self.edition == "official"
        return {
            "id": self.id,
            "version": self.version,
            "edition": self.edition,
            "protocol": self.protocol,
            "description": self.description,
            "source": official_source or source if official else f"made by kleval in the shape of {source}",
            **self.data_facts(),
        }

    @abstractmethod
    def _sample(self, question: Any, ctx: int, seed: int) -> Sample: ...
