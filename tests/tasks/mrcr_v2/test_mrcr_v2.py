"""MRCR v2: forms of text as Google's generator (eval_hub @ 67b7fd2) wrote them into golden.json, and its checks of a sample."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.mrcr import v2
from kleval.tasks.mrcr.v2 import MrcrV2Task
from kleval.tasks.registry import load_task
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, Sample, UsageError

NANO = load_tokenizer("nano-2")
GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text("utf-8"))
TURN = re.compile(r"User: (Write .*)\n\nAssistant: ((?:.|\n)*?)\n\n(?=User: |=)")
LAST = r"Prepend (\w{12}) to the (\w+) (.+) in a (\w+) style\. Do not include any other text in your response\.\n\nAssistant:"


def task(n: int = 4) -> MrcrV2Task:
    loaded = load_task(f"mrcr_v2/{n}needle")
    assert isinstance(loaded, MrcrV2Task)
    return loaded


def text_of(sample: Sample) -> str:
    return sample.prompt if isinstance(sample.prompt, str) else sample.prompt[0]["content"]


def made(n: int, ctx: int, many: int = 1, seed: int = 42) -> list[Sample]:
    return [one for one in task(n).samples(NANO, ctx, many, seed) if isinstance(one, Sample)]


def turns(text: str) -> list[tuple[str, str]]:
    return TURN.findall(text.partition("======== EXAMPLE 3 ========")[2])


def solved(text: str) -> tuple[str, list[str]]:
    """The answer, and all texts of the request that is asked for."""
    last = re.search(f"User: {LAST}$", text)
    assert last
    mark, nth, what, style = last.groups()
    same = [written for asked, written in turns(text) if asked == f"Write a {what} in {style} style."]
    return mark + same[v2.NTH.index(nth)], same


def test_examples_stand_as_google_s_generator_writes_them():
    texts = re.findall(r"Assistant: (.*)\n", GOLDEN["examples"])
    first, second = re.findall(r"Prepend (\w{12}) to", GOLDEN["examples"])
    one, other, same = ("tweet", "fractals", "regal"), ("poem", "lions", "regal"), ("poem", "lions", "regal")
    shown = v2.framed(((one, other), texts[:2], first, 0), ((same, same), texts[3:5], second, 1))
    assert shown == GOLDEN["examples"]


def test_turns_stand_as_google_s_generator_writes_them():
    key, mark = ("riddle", "ducks", "formal"), GOLDEN["answer"][:12]
    text = GOLDEN["turn"].partition("Assistant: ")[2].removesuffix("\n\n")
    made_of = ("", v2.request(key), (text,), (0.5,), 0, mark, GOLDEN["last"].partition("\n")[0][6:], iter(()))
    (message,) = v2.Transcript(*made_of, examples="").messages(())
    assert message["content"] == GOLDEN["turn"] + GOLDEN["last"]
    archaic = v2.question(mark, 1, ("riddle", "ducks", "archaic"))
    assert GOLDEN["last"] == f"User: {archaic}\n\nAssistant:"


@settings(max_examples=5, deadline=None)
@given(n=st.sampled_from((2, 4, 8)), ctx=st.integers(3000, 6000), seed=st.integers(0, 1000))
def test_the_answer_follows_from_the_prompt_and_fits_with_it(n, ctx, seed):
    (sample,) = made(n, ctx, 1, seed)
    answer, same = solved(text_of(sample))
    assert answer == sample.references[0]
    assert len(same) == len(set(same)) == n
    assert sample.prompt_tokens + sample.max_new_tokens <= ctx
    assert NANO.count(answer) <= sample.max_new_tokens
    assert sample.meta["total_messages"] == 2 * len(turns(text_of(sample))) + 1


def test_other_requests_come_as_often_as_the_one_that_is_asked_for():
    (sample,) = made(4, 16_384)
    counts = Counter(asked for asked, _ in turns(text_of(sample)))
    assert max(counts.values()) == 4
    assert sum(count == 4 for count in counts.values()) > 2


def test_the_examples_are_answered_right():
    text = text_of(made(2, 4096)[0])
    for number, wanted in ((1, 0), (2, 1)):
        shown = text.partition(f"EXAMPLE {number} ========\n\n")[2].partition("\n\n======== END")[0]
        texts = re.findall(r"Assistant: ((?:.|\n)*?)(?=\n\nUser: |$)", shown)
        mark = re.search(r"Prepend (\w{12})", shown)
        assert mark
        assert texts[2] == mark[1] + texts[wanted]


def test_a_sample_does_not_depend_on_those_before_it():
    assert list(task(2).samples_at(NANO, 3000, [2], 42) or ()) == [made(2, 3000, 3)[2]]


def test_scores_are_google_s():
    one, (sample,) = task(2), made(2, 3000)
    assert one.protocol == "google-v2"
    assert one.score(sample, Completion(f" Sure: {sample.references[0]} ", 0, 0)).metrics == {
        "match": 1.0,
        "prefix": 1.0,
    }
    assert one.score(sample, Completion(sample.references[0][12:], 0, 0)).metrics["match"] == 0.0


def test_there_is_no_official_edition():
    with pytest.raises(UsageError, match="has no official edition"):
        load_task("mrcr_v2/2needle", "official")
