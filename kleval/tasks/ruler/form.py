"""Form in which a draft is asked: prompt and answer prefix under a protocol, and the tokens that they take.

The answer prefix sits after any assistant header and is continued by the model (official `input + answer_prefix`). For
a tokenizer with a chat template the input is the user's message; the official script formats its own template strings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from kleval.tasks.base import as_prompt
from kleval.tasks.draws import Draws
from kleval.tasks.ruler.spec import IN_PROMPT, LM_EVAL, Draft
from kleval.tasks.sized import Question
from kleval.tokenization import count_given
from kleval.types import Prompt, Tokenizer

Drafter = Callable[[Draws, int, int], Draft]  # random state, size, index
Measure = Callable[[Draft], int]  # tokens of rendered input + answer prefix


class Fitted(NamedTuple):
    """A question and the tokens of its rendered input + answer prefix."""

    draft: Draft
    tokens: int


class DoesNotFit(Exception):
    """The smallest question does not fit. needed_tokens: of the shortest seen; None if none could be drawn."""

    def __init__(self, needed_tokens: int | None = None) -> None:
        super().__init__(needed_tokens)
        self.needed_tokens = needed_tokens


@dataclass(frozen=True, slots=True)
class Form:
    tokenizer: Tokenizer
    protocol: str
    edition: str

    def asked(self, draft: Draft) -> tuple[Prompt, str]:
        """Prompt and answer prefix. lm-eval joins the two by a blank or empty line, but not across an assistant header."""
        if self.protocol == IN_PROMPT:
            return as_prompt(self.tokenizer, draft.input + draft.prefix), ""
        chat = self.protocol == LM_EVAL and self.tokenizer.chat_template_digest
        return as_prompt(self.tokenizer, draft.input), draft.prefix.lstrip() if chat else draft.prefix

    def measure(self, draft: Draft) -> int:
        prompt, prefix = self.asked(draft)
        if self.edition == "official":  # the scripts count without special tokens
            return count_given(self.tokenizer, prompt, prefix)
        return self.tokenizer.count(self.tokenizer.render(prompt, prefix)) + self._repeated(draft)

    def question(self, index: int, fitted: Fitted, budget: int) -> Question:
        draft, repeated = fitted.draft, self._repeated(fitted.draft)
        prompt, prefix = self.asked(draft)
        return Question(
            index, prompt, draft.answers, fitted.tokens - repeated, budget + repeated, draft.meta, answer_prefix=prefix
        )

    def _repeated(self, draft: Draft) -> int:
        """Tokens that a model takes to say the beginning itself, for which a builtin budget has room."""
        return self.tokenizer.count(draft.prefix) if self.protocol == IN_PROMPT and self.edition == "builtin" else 0
