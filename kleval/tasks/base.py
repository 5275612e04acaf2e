"""The one-call form that most tasks share: ask once, score the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from kleval.types import Completion, Prompt, Request, Sample, Score, Tokenizer


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
