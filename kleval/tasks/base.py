"""Forms that most tasks share: samples in the data's order, and one call (ask once, score the answer)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from kleval.types import Completion, Prompt, Request, Sample, Score, Tokenizer, Unfit, UsageError


class InOrder(ABC):
    """`samples` gives the first of `_samples` that fit. grows: whether prompts get longer with ctx; where they do not, one length asks
    all there is to ask."""

    id: str
    grows = True

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample | Unfit]:
        if ctx < 1 or n < 0:
            raise UsageError(f"{self.id}: ctx must be at least 1 and the number of samples at least 0")
        if not n:
            return
        made = 0
        for sample in self._samples(tokenizer, ctx, seed):
            yield sample
            made += isinstance(sample, Sample)
            if made == n:
                return

    @abstractmethod
    def _samples(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        """All of them, with an Unfit for each that does not fit; until the data end, or without end."""


class OneCall(ABC):
    """`step` asks the sample's prompt, then hands the answer to `score`."""

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        if outcomes:
            return self.score(sample, outcomes[0])
        return (
            Request(
                kind="generate",
                prompt=sample.prompt,
                answer_prefix=sample.answer_prefix,
                max_new_tokens=sample.max_new_tokens,
                stop=sample.stop,
            ),
        )

    @abstractmethod
    def score(self, sample: Sample, answer: Completion) -> Score: ...


def as_prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """`text` as the user's message where the tokenizer has a chat template, else as it is."""
    return ({"role": "user", "content": text},) if tokenizer.chat_template_digest else text
