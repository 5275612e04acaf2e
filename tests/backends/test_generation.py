"""Tokens of several steps: each row takes its own up to its end, and what it was given beyond is nobody's."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kleval.backends.generation import FEW_STEPS, MANY_STEPS, TOO_LATE, Job, advance, completion, steps_at_once
from kleval.backends.native import open_native
from kleval.backends.spec import BackendSpec
from kleval.models.stepper import Steps
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, Request

TOKENIZER = load_tokenizer("nano-2")


def job(position: int = 0, n: int = 12, **kwargs: Any) -> Job:
    return Job(position, Request("generate", "", max_new_tokens=n, **kwargs), (1,))


def steps(*rows: str) -> Steps:
    """Of texts of as many tokens each: all but the last chosen, the last one in the logits."""
    ids = [TOKENIZER.encode(text) for text in rows]
    (length,) = {len(one) for one in ids}
    logits = torch.zeros(len(ids), TOKENIZER.vocab_size)
    for row, one in enumerate(ids):
        logits[row, one[-1]] = 1.0
    chosen = [[one[at] for one in ids] for at in range(length - 1)]
    return Steps(chosen, [float(at) for at in range(length - 1)], logits)


def test_a_row_that_stops_leaves_and_the_others_take_all() -> None:
    stopped, other = job(0, stop=("2",)), job(1)
    kept, done = advance([stopped, other], steps("a1 b2 c3", "d4 e5 f6"), TOKENIZER, (), 0.5)
    assert kept == [1]
    ((ended, outcome),) = done
    assert ended is stopped
    assert isinstance(outcome, Completion)
    assert (outcome.text, outcome.finish_reason) == ("a1 b", "stop")
    assert TOKENIZER.decode(outcome.token_ids) == "a1 b2"
    assert TOKENIZER.decode(other.new_ids) == "d4 e5 f6"
    assert other.arrivals[:-1] == [float(at) for at in range(len(other.new_ids) - 1)]
    assert other.arrivals[-1] == pytest.approx(time.perf_counter(), abs=60)
    assert stopped.seconds == other.seconds == 0.25


def test_a_deadline_counts_when_the_token_was_known() -> None:
    late, in_time = job(0), job(1)
    late.deadline, in_time.deadline = 1.5, math.inf
    kept, done = advance([late, in_time], steps("a1 b2", "c3 d4"), TOKENIZER, (), 0.0)
    assert (kept, done) == ([1], [(late, TOO_LATE)])


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, MANY_STEPS), ({"stop": ("x",)}, FEW_STEPS), ({"temperature": 0.5}, 1), ({"logprobs": 2}, 1)],
)
def test_rows_that_are_not_simply_greedy_are_looked_at_earlier(options: dict[str, Any], most: int) -> None:
    assert steps_at_once([job(n=100), job(n=100, **options)]) == most
    begun = job(n=100)
    begun.new_ids = [1] * 97
    assert steps_at_once([job(n=100, **options), begun]) == min(most, 3)


def test_an_answer_is_the_same_however_many_steps_go_together(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_native(BackendSpec(model=str(model_folder)))
    requests = [Request("generate", text, max_new_tokens=n) for text, n in (("one", 40), ("two, two", 3), ("III", 17))]
    requests += [Request("generate", "one", max_new_tokens=30, stop=("e", "ab"))]

    def answers() -> list[Any]:
        told = sorted(backend.run(requests), key=lambda answer: answer[0])
        return [(outcome.text, outcome.token_ids) for _, outcome in told if isinstance(outcome, Completion)]

    together = answers()
    assert len(together) == len(requests)
    for number in (1, 2, 5):
        monkeypatch.setattr("kleval.backends.serving.steps_at_once", lambda active, n=number: n)
        assert answers() == together


class Pieces:
    """Ids are places in a list of texts; the last ends an answer."""

    texts = ("42", "<end_of_turn>", "\n", "</", "s>", "<eos>")

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.texts[i] for i in ids)


@pytest.mark.parametrize(
    ("ids", "text", "told"),
    [
        ((0, 1, 2, 5), "42", True),
        ((0, 1, 5), "42", True),
        ((0, 3, 4, 5), "42</s>", False),
        ((1, 0, 5), "<end_of_turn>42", False),
    ],
)
def test_a_turns_end_before_the_answers_is_no_part_of_it(ids: tuple[int, ...], text: str, told: bool) -> None:
    """As Gemma 1.1 and base models write it; a text that only looks like one stays."""
    one = job()
    one.new_ids = list(ids)
    tokenizer: Any = Pieces()
    outcome = completion(one, "eos", tokenizer)
    assert isinstance(outcome, Completion)
    assert (outcome.text, bool(outcome.notes)) == (text, told)
