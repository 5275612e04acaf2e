"""RULER up to 2M tokens: what is counted to make a sample grows with the length and no faster."""

from __future__ import annotations

import tracemalloc

import pytest

from kleval.lengths import parse_length
from kleval.tasks.registry import load_task
from kleval.tokenization import load_tokenizer
from kleval.types import Prompt, Sample, Tokenizer

WORDS = load_tokenizer("words")
TWO_MILLION = 2_097_152
MADE = [
    ("builtin", name)
    for name in ("niah_single_1", "niah_single_2", "niah_multikey_3", "vt", "cwe", "fwe", "qa_1", "qa_2")
]
MADE += [("official", name) for name in ("niah_single_1", "niah_multikey_2", "vt", "fwe")]


class Counting:
    """The tokenizer `words`, and how many characters it was given to count."""

    def __init__(self) -> None:
        self.chars = 0

    def __getattr__(self, name: str) -> object:
        return getattr(WORDS, name)

    def count(self, text: str) -> int:
        self.chars += len(text)
        return WORDS.count(text)

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        return WORDS.render(prompt, answer_prefix)


def first(edition: str, name: str, tokenizer: Tokenizer, ctx: int) -> Sample:
    (sample,) = load_task(f"ruler/{name}", edition).samples(tokenizer, ctx, 1, 42)
    assert isinstance(sample, Sample)
    return sample


def test_two_million_tokens_are_a_length():
    assert parse_length("2m") == TWO_MILLION


@pytest.mark.parametrize(("edition", "name"), MADE)
def test_work_grows_with_the_length(edition, name):
    counted = []
    for ctx in (8192, 32_768):
        tokenizer = Counting()
        first(edition, name, tokenizer, ctx)  # type: ignore[arg-type]
        counted.append(tokenizer.chars / ctx)
    assert counted[1] < 1.8 * counted[0]  # a search has a probe more for each doubling


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edition", "name"), [("builtin", "niah_single_1"), ("builtin", "niah_single_2"), ("official", "niah_single_1")]
)
def test_a_needle_in_two_million_tokens(edition, name):
    tracemalloc.start()
    sample = first(edition, name, WORDS, TWO_MILLION)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sample.prompt_tokens == WORDS.count(WORDS.render(sample.prompt, sample.answer_prefix))
    assert 0.999 * TWO_MILLION < sample.prompt_tokens + sample.max_new_tokens <= TWO_MILLION
    assert str(sample.prompt).count(sample.references[0]) == 1
    assert peak_bytes < 1 << 30
