"""Palindrome, MQAR and Stack in words: what is asked is what a solver finds in the prompt."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.registry import load_task
from kleval.tasks.synthetic.task import SyntheticTask
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, ContextTooSmall, Sample, UsageError

NANO = load_tokenizer("nano-2")
NAMES = ("palindrome", "mqar", "stack")


def task(name: str) -> SyntheticTask:
    loaded = load_task(f"synthetic/{name}", "builtin", None, None)
    assert isinstance(loaded, SyntheticTask)
    return loaded


def made(name: str, ctx: int, n: int = 1, seed: int = 42) -> list[Sample]:
    return [one for one in task(name).samples(NANO, ctx, n, seed) if isinstance(one, Sample)]


def solved(name: str, prompt: str) -> list[str]:
    """From the prompt's text alone."""
    if name == "palindrome":
        return prompt.rpartition("\n")[2].split()[::-1]
    lines, question = prompt.rpartition("\n")[0].splitlines(), prompt.rpartition("\n")[2]
    asked = re.findall(r"\d+", question)
    if name == "mqar":
        values = dict(line.split(": ") for line in lines if re.fullmatch(r"\d+: \d+", line))
        return [values[key] for key in asked]
    held: dict[str, list[str]] = {}
    for verb, stack, letter in (line.split() for line in lines if re.fullmatch(r"(push|pop) \d+ [a-z]", line)):
        if verb == "push":
            held.setdefault(stack, []).append(letter)
        else:
            assert held[stack].pop() == letter
    return [held[stack].pop() for stack in asked]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(ctx=st.integers(256, 3000), seed=st.integers(0, 1000))
def test_the_references_follow_from_the_prompt_and_fit_with_it(name, ctx, seed):
    for sample in made(name, ctx, 2, seed):
        assert list(sample.references) == solved(name, str(sample.prompt))
        assert sample.prompt_tokens == NANO.count(NANO.render(sample.prompt, sample.answer_prefix))
        assert sample.prompt_tokens + sample.max_new_tokens <= ctx
        assert NANO.count(f" {' '.join(sample.references)}") <= sample.max_new_tokens


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_those_before_it(name):
    assert made(name, 512, 3)[2] == made(name, 512, 4)[2]


@pytest.mark.parametrize("name", NAMES)
def test_longer_contexts_hold_more(name):
    short, long = (made(name, ctx)[0].meta["items"] for ctx in (512, 4096))
    assert long > 4 * short


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [" {}.", "{}", "{}\n\nThat was all 7."])
def test_scores_count_places(name, form):
    one, (sample,) = task(name), made(name, 512)
    right = list(sample.references)
    assert one.score(sample, Completion(form.format(", ".join(right)), 0, 0)).metrics == {"accuracy": 1.0, "exact": 1.0}
    half = [*right[: len(right) // 2], *("zz" for _ in right[len(right) // 2 :])]
    metrics = one.score(sample, Completion(form.format(" ".join(half)), 0, 0)).metrics
    assert metrics == {"accuracy": (len(right) // 2) / len(right), "exact": 0.0}
    assert one.score(sample, Completion("", 0, 0)).metrics["accuracy"] == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_too_little_room_says_how_much_it_takes(name):
    with pytest.raises(ContextTooSmall) as told:
        made(name, 40)
    assert made(name, told.value.minimum_tokens + 60)


def test_there_is_no_official_edition():
    with pytest.raises(UsageError, match="has no official edition"):
        load_task("synthetic/mqar", "official", None, None)
