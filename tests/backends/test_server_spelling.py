from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.backends.server_address import Server
from kleval.backends.server_answers import Expected, likelihood
from kleval.backends.server_reply import Answer
from kleval.backends.server_spelling import spells
from kleval.backends.server_wire import Dialect
from kleval.types import Completion, Failure, Request


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([" To", "kyo"], " Tokyo"),
        ([r"bytes: \xe6\x9d".replace(": ", ":"), r"bytes:\xb1", "京"], "東京".replace("東", b"\xe6\x9d\xb1".decode())),
        (["<0xE6>", "<0x9D>", "<0xB1>"], b"\xe6\x9d\xb1".decode()),
        (["ĠMÃ¼n", "chen"], " München"),
        (["▁Mün", "chen"], " München"),
        (["a", "\ufffd", "\ufffd", "b"], "a東b"),
        (["a", "", "b"], "a東b"),
    ],
)
def test_every_spelling_of_a_text_is_known(tokens: list[str], text: str) -> None:
    assert spells(tokens, text)


@pytest.mark.parametrize(
    ("tokens", "text"), [(["Tok"], "Tokyo"), (["", ""], "東京"), (["\ufffd"], "東"), (["a", "", "c"], "a東b")]
)
def test_another_text_or_nothing_readable_is_not_taken_for_it(tokens: list[str], text: str) -> None:
    assert not spells(tokens, text)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_a_text_cut_anywhere_is_itself(tokens: list[str]) -> None:
    assert spells(tokens, "".join(tokens))


def of_llama_cpp_python(listed: list[str], values: list[float | None], generated: int, begins: int = 0) -> Any:
    """A likelihood of " blue", the last token of four, from its server's list."""
    choice = {"text": "", "finish_reason": "length"} | {
        "logprobs": {"tokens": listed, "token_logprobs": values, "top_logprobs": [{"x": -0.5}] * len(listed)}
    }
    answer = Answer()
    answer.feed({"choices": [choice], "usage": {"prompt_tokens": 4 + begins, "completion_tokens": generated}})
    words = {0: "<s>", 1: "The", 2: "sky", 3: "is"}
    dialect = Dialect("tiny", "llama-cpp-python", prompts="text")
    expected = Expected(
        Server("http://there/v1"),
        dialect,
        3,
        False,
        1.0,
        lambda name: True,
        lambda ids: " ".join(words[i] for i in ids),
    )
    ids = [1, 2, 3] if listed[0] == "The" else [0, 2, 3]
    return likelihood(answer, Request("loglikelihood", "", continuation=" blue"), ids, [4], expected, 0.0)


@pytest.mark.parametrize("generated", [0, 1])
def test_llama_cpp_pythons_list_leaves_out_begin_tokens_and_ends_with_the_generated_one(generated: int) -> None:
    got = of_llama_cpp_python(
        ["sky", "is", " blue", " blue"][: 3 + generated], [None, -1, -2, -9][: 3 + generated], generated
    )
    assert got.logprob_sum == -2.0


def test_a_begin_token_of_the_servers_own_is_one_too() -> None:
    assert of_llama_cpp_python(["The", "sky", "is", " blue", "!"], [None, -1, -1, -2, -9], 1, 1).logprob_sum == -2.0


@pytest.mark.parametrize("generated", [0, 1])
def test_without_a_begin_token_its_log_probabilities_are_those_of_the_next_place_and_refused(generated: int) -> None:
    got = of_llama_cpp_python(["The", "sky", "is", " blue"], [None, -1, -2, -9], generated)
    assert (got.kind, "--add-bos yes" in got.message) == ("bad_request", True)


def scored(tokens: list[str], ids: list[int], continuation: list[int], text: str) -> Any:
    """A likelihood out of an echo: -1 for each token of the prompt after the first, -2 for each of the continuation."""
    n, new = len(ids), len(continuation)
    values = [None, *[-1.0] * (n - 1), *[-2.0] * new]
    choice = {"text": "", "finish_reason": "length"} | {
        "logprobs": {"tokens": tokens, "token_logprobs": values, "top_logprobs": [None, *[{"x": -0.5}] * (n + new - 1)]}
    }
    answer = Answer()
    answer.feed({"choices": [choice], "usage": {"prompt_tokens": n + new, "completion_tokens": 1}})
    words = {1: "the city is", 2: " of "}
    expected = Expected(
        Server("http://there/v1"), Dialect("tiny", prompts="text"), n, False, 1.0, lambda name: True,
        lambda ids: "".join(words[i] for i in ids),
    )  # fmt: skip
    request = Request("loglikelihood", "the city is of ", continuation=text)
    return likelihood(answer, request, ids, continuation, expected, 0.0)


@pytest.mark.parametrize(
    "spelled",
    [["東", "京"], [r"bytes:\xe6\x9d\xb1", "京"], ["æĿ±", "äº¬"], ["\ufffd", "\ufffd"], ["", ""], ["東", "\ufffd"]],
)
def test_the_likelihood_of_a_continuation_beyond_ascii_in_every_spelling(spelled: list[str]) -> None:
    got = scored(["the city is", " of ", *spelled], [1, 2], [7, 8], "東京")
    assert isinstance(got, Completion)
    assert (got.logprob_sum, got.greedy) == (-4.0, False)


def test_unreadable_tokens_behind_another_prompt_are_not_taken_for_the_continuation() -> None:
    assert isinstance(scored(["the", " city", "", ""], [1, 2], [7, 8], "東京"), Failure)
