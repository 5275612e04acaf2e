from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving import Behaviour, serve

from kleval.backends.registry import open_backend
from kleval.backends.server_counts import PromptCounts, Shorter, text_of
from kleval.tasks.registry import expand, load_task
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, Failure, Request, Sample


def kinds(pairs: list[tuple[int, int]]) -> list[str]:
    counts = PromptCounts()
    return [
        got.kind if isinstance(got, Failure) else "said" if got else "whole"
        for got in (counts.judge(*pair) for pair in pairs)
    ]


def test_the_same_count_for_prompts_of_other_lengths_is_a_cut() -> None:
    assert kinds([(1000, 1300), (5000, 4096), (8000, 4096)]) == ["whole", "whole", "context_overflow"]


def test_half_of_the_usual_share_is_a_cut_and_a_little_less_is_said() -> None:
    usual = [(1000, 1300), (1100, 1430), (1200, 1560)]
    assert kinds([*usual, (4000, 2048)])[-1] == "context_overflow"
    assert kinds([*usual, (4000, 4000)])[-1] == "said"
    assert kinds([*usual, (4000, 5200)])[-1] == "whole"


def test_a_count_of_zero_says_nothing() -> None:
    assert kinds([(1000, 0), (8000, 0)]) == ["whole", "whole"]


@given(
    st.floats(0.5, 2.5),
    st.integers(0, 60),
    st.lists(st.tuples(st.sampled_from([1024, 2048, 4096, 8192]), st.floats(0.95, 1.0)), min_size=1, max_size=40),
)
def test_prompts_that_were_read_whole_are_never_called_cut(
    ratio: float, template: int, made: list[tuple[int, float]]
) -> None:
    pairs = [(int(length * filled), int(length * filled * ratio) + template) for length, filled in made]
    assert set(kinds(pairs)) <= {"whole"}


SERVERS: dict[str, Callable[[str], int]] = {
    "bytes": lambda text: len(text.encode()),
    "four characters": lambda text: len(text) // 4,
    "single digits": lambda text: len(re.findall(r"\d|[A-Za-z]{1,6}|[^\sA-Za-z\d]", text)),
    "three digits": lambda text: len(re.findall(r"\d{1,3}|[A-Za-z]+|[^\sA-Za-z\d]", text)),
}


@cache
def ruler_prompts() -> tuple[tuple[int, str], ...]:
    """Tokens and text of RULER's samples at three lengths, as `words` measures them."""
    found = []
    for ctx in (768, 1024, 2048):
        for name in expand(["ruler"]):
            for made in load_task(name).samples(load_tokenizer("words"), ctx, 2, 7):
                if isinstance(made, Sample):
                    found.append((made.prompt_tokens, text_of(made.prompt) + made.answer_prefix))
    return tuple(found)


@pytest.mark.parametrize("server", SERVERS)
@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 60))
def test_no_sample_of_ruler_is_called_cut_whatever_the_servers_tokens_are(
    server: str, order: random.Random, template: int
) -> None:
    prompts, counts = list(ruler_prompts()), PromptCounts()
    order.shuffle(prompts)
    for estimate, text in prompts:
        assert not isinstance(counts.judge(estimate, SERVERS[server](text) + template, text), Failure)


@pytest.mark.parametrize("server", SERVERS)
def test_the_same_prompts_at_a_server_that_cuts_are_called_cut(server: str) -> None:
    counts, called = PromptCounts(), 0
    limit = SERVERS[server](" ".join(["word"] * 512))
    for estimate, text in ruler_prompts():
        counted = SERVERS[server](text)
        failed = isinstance(counts.judge(estimate, min(counted, limit), text), Failure)
        assert not (failed and counted <= limit)
        called += failed
    assert called >= 10


def long_prompt(at: float) -> str:
    words = ["grass is green"] * 1000
    words[int(at * 1000)] = "the number is 8423957"
    return " ".join(words)


@pytest.mark.parametrize(
    ("at", "said", "counts", "proven"),
    [
        (0.1, "8423957", True, False),
        (0.4, "8423957", True, True),
        (0.9, "8423957", False, False),
        (0.4, "8423958", False, False),
        (0.4, "green", False, False),
    ],
)
def test_an_answer_proves_what_was_read_by_a_number_that_a_cut_prompt_lacks(
    at: float, said: str, counts: bool, proven: bool
) -> None:
    known = PromptCounts()
    request = Request("generate", long_prompt(at), max_new_tokens=8)
    assert known.refutes(request, Completion(said, 3000, 4), 3000, 1500) is counts
    assert known.proven is proven


def told(limit: int, estimates: list[int]) -> dict[int, str]:
    """How each answer of one call ends at a server that reads `limit` tokens of a prompt, each token one of this side's."""
    counts = PromptCounts()
    shorter, found = Shorter(counts, estimates), {}
    for key, estimate in enumerate(estimates):
        request = Request("generate", "grass is green " * (estimate // 3), max_new_tokens=8)
        counted = min(estimate, limit)
        failure = counts.judge(estimate, counted, request.prompt)
        outcome = failure if isinstance(failure, Failure) else Completion("green", counted, 1)
        found |= dict(shorter.take(key, request, estimate, outcome))
    found |= dict(shorter.rest())
    return {key: got.kind if isinstance(got, Failure) else "whole" for key, got in found.items()}


def test_the_shorter_of_two_prompts_with_the_same_count_was_cut_too() -> None:
    assert told(900, [600, 1200, 2400]) == {0: "whole", 1: "context_overflow", 2: "context_overflow"}


def test_where_longer_prompts_count_more_none_waits_to_the_end_in_vain() -> None:
    assert told(9000, [600, 1200, 2400, 2300]) == dict.fromkeys(range(4), "whole")


def test_a_doubted_answer_is_no_other_requests() -> None:
    """At a gateway that counts 700 tokens of every prompt. The question is asked twice, and answered otherwise the second time."""
    question = Request("generate", "Paris " + "lorem " * 1000, max_new_tokens=50)
    longer = Request("generate", "London " + "lorem " * 2000, max_new_tokens=50)
    needle = Request("generate", f"needle {'lorem ' * 700}1234567 {'lorem ' * 1300}", max_new_tokens=50)
    said = {"P": ["Paris", "Berlin"], "L": ["London"], "n": ["The number is 1234567."]}

    def plan(prompt: str) -> list[tuple[str, bytes]]:
        usage = {"prompt_tokens": 700, "completion_tokens": 3}
        answers = [{"text": text, "finish_reason": "stop"} for text in said[prompt[0]]] if "lorem" in prompt else []
        return [("raw", json.dumps({"model": "tiny", "choices": [one], "usage": usage}).encode()) for one in answers]

    with serve(Behaviour(software="other", plan=plan)) as url:
        backend = open_backend("tiny", base_url=url, tokenizer="words")
        first, second = (dict(backend.run([question, other])) for other in (longer, needle))
    assert {type(got) for got in first.values()} == {Failure}
    assert [getattr(second[at], "text", second[at]) for at in (0, 1)] == ["Berlin", "The number is 1234567."]
