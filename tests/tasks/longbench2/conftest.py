"""Invented rows in the shape of LongBench v2, and a tokenizer of one id per character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kleval.types import Prompt, Tokenizer


class Characters:
    """template: whether messages are rendered between marks, as a chat template does."""

    def __init__(self, template: bool = False) -> None:
        self.name, self.digest = "characters", "characters"
        self.chat_template_digest = "marks" if template else ""

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def count(self, text: str) -> int:
        return len(text)

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        text = prompt if isinstance(prompt, str) else "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in prompt)
        return text + answer_prefix


@pytest.fixture(scope="session")
def characters() -> Tokenizer:
    return Characters()


@pytest.fixture(scope="session")
def chatting() -> Tokenizer:
    return Characters(template=True)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        {
            "_id": f"row-{i}",
            "domain": "Single-Document QA",
            "sub_domain": "Logbook",
            "difficulty": ("easy", "hard")[i % 2],
            "length": ("short", "medium", "long")[i % 3],
            "question": f" Which valve was closed on day {i}? ",
            **{f"choice_{letter}": f"The {word} valve" for letter, word in zip("ABCD", words, strict=True)},
            "answer": "ABCD"[i % 4],
            "context": f"Day {i}. " + "It rained on the reservoir. " * 40 * (i + 1),
        }
        for i, words in enumerate([("tin", "brass", "copper", "lead")] * 4)
    ]
