"""The first blank of an answer, with tokenizers that take one from where a text begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from misbehaving import Behaviour, serve
from sentencepiece_like import write_sentencepiece_like

from kleval.backends.generation import Job, completion, finish_reason
from kleval.backends.registry import open_backend
from kleval.tokenization import HFTokenizer
from kleval.types import Completion, Request

PROMPT, ANSWER = "def f(x):\n", "    x = x\n    return x\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sentencepiece_like(tmp_path)


def written(folder: Path, prompt: str, answer: str) -> tuple[HFTokenizer, list[int], list[int]]:
    tokenizer = HFTokenizer.from_file(folder, "llama-like")
    head = tokenizer.encode(prompt)
    return tokenizer, head, tokenizer.encode(prompt + answer)[len(head) :]


def test_code_keeps_the_blanks_of_its_first_line(folder: Path) -> None:
    tokenizer, head, ids = written(folder, PROMPT, ANSWER)
    assert tokenizer.eos_id is not None
    job = Job(0, Request("generate", PROMPT, max_new_tokens=99), tuple(head), new_ids=[*ids, tokenizer.eos_id])
    got = completion(job, "eos", tokenizer)
    assert isinstance(got, Completion)
    assert got.text == ANSWER
    compile(PROMPT + got.text, "answer", "exec")


def test_a_stop_string_that_begins_with_the_first_blank_is_seen(folder: Path) -> None:
    tokenizer, head, ids = written(folder, "d", " a")
    job = Job(0, Request("generate", "d", max_new_tokens=99, stop=(" a",)), tuple(head), new_ids=ids)
    assert finish_reason(job, tokenizer, ()) == "stop"
    got = completion(job, "stop", tokenizer)
    assert isinstance(got, Completion)
    assert got.text == ""


def test_a_servers_answer_that_comes_with_token_ids_keeps_them_too(folder: Path) -> None:
    _, head, ids = written(folder, PROMPT, ANSWER)
    said = {"text": ANSWER, "finish_reason": "length", "token_ids": ids}
    used = {"prompt_tokens": len(head), "completion_tokens": len(ids)}
    fault = ("raw", json.dumps({"model": "tiny", "choices": [said], "usage": used}).encode())
    request = Request("generate", PROMPT, max_new_tokens=len(ids))
    plan = Behaviour(software="other", plan=lambda prompt: [fault] * 9 if "def" in prompt else ())
    with serve(plan) as url:
        [(_, got)] = open_backend("tiny", base_url=url, tokenizer=f"hf:{folder}").run([request])
    assert isinstance(got, Completion), got
    assert (got.text, got.token_ids) == (ANSWER, tuple(ids))
