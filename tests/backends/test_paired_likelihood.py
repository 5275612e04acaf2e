"""Paired likelihood through an engine: the gain is what the model's own logits say, and nothing where the context says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from harness_fakes import RunSpec, rows
from misbehaving import Behaviour, logprob, serve, write_byte_tokenizer

from kleval.backends.native import NativeBackend, open_native
from kleval.backends.openai import OpenAIBackend, open_openai
from kleval.backends.spec import BackendSpec
from kleval.harness import run
from kleval.store import Row, RunStore
from kleval.tasks.likelihood import Likelihood
from kleval.types import Failure, Outcome, Request, Sample, Tokenizer, UsageError

CONTEXT = "The number for blue is 4711. "
REFERENCES = ("4711.", "some much longer reference, of many bytes.")


class Facts:
    """One sample. alone: its question without the context."""

    id, version, metric, edition, protocol = "own/facts", "1", "exact", "own", "own-1"
    data_revision, data_digest = "generated", ""

    def __init__(self, alone: str = "Which?", references: tuple[str, ...] = REFERENCES) -> None:
        self.alone, self.references = alone, references

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample]:
        prompt = f"{CONTEXT}Which?"
        yield Sample("i0", self.id, ctx, 0, prompt, self.references, 64, tokenizer.count(prompt))

    def step(self, sample: Sample, outcomes: object) -> list[Request]:
        raise AssertionError

    def question_alone(self, sample: Sample) -> str:
        return self.alone


def asked(out: Path, task: object, backend: object, ctx: int = 128, **more: object) -> Row:
    spec = RunSpec(models=("m",), tasks=("own/facts",), ctxs=(ctx,), limit=1, out=out, **more)  # type: ignore[arg-type]
    run(spec, lambda name: backend, lambda name: Likelihood(task))  # type: ignore[arg-type, return-value]
    (row,) = rows(out)
    return row


def opened(folder: Path, **more: bool) -> NativeBackend:
    return open_native(BackendSpec(model=str(folder), **more))  # type: ignore[arg-type]


def by_hand(backend: NativeBackend, prompt: str, text: str) -> float:
    """Sum of the log-probabilities of a text's bytes, by one plain pass in float64."""
    ids, n = backend.tokenizer.encode(prompt + text), len(text.encode())
    hidden = backend._decoder.hidden(torch.tensor([ids]))[0]
    each = backend._decoder.logits(hidden).double().log_softmax(-1)
    return float(sum(each[-1 - n + i, ids[-n + i]] for i in range(n)))


def test_the_gain_is_the_difference_computed_by_hand(tmp_path: Path, model_folder: Path) -> None:
    row = asked(tmp_path / "run", Facts(), opened(model_folder))
    backend = opened(model_folder)
    with torch.inference_mode():
        sums = [
            [by_hand(backend, prompt, f" {text}") for text in REFERENCES] for prompt in (CONTEXT + "Which?", "Which?")
        ]
    tokens = sum(len(text) + 1 for text in REFERENCES)
    assert (row.extracted["tokens"], row.metric) == (tokens, "gain")
    assert row.extracted["logprob_context"] == pytest.approx(sum(sums[0]), abs=1e-4)
    assert row.score == pytest.approx((sum(sums[0]) - sum(sums[1])) / tokens, abs=1e-5)
    assert row.score != 0


def test_a_question_alone_that_is_the_prompt_gains_nothing(tmp_path: Path, model_folder: Path) -> None:
    row = asked(tmp_path / "run", Facts(alone=f"{CONTEXT}Which?"), opened(model_folder))
    assert row.score == pytest.approx(0.0, abs=1e-6)


def test_sharing_beginnings_changes_no_gain(tmp_path: Path, model_folder: Path) -> None:
    found = [
        asked(tmp_path / str(share), Facts(), opened(model_folder, share_prefixes=share)).score
        for share in (True, False)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_reference_that_does_not_fit_is_a_failure_and_not_cut(tmp_path: Path, model_folder: Path) -> None:
    row = asked(tmp_path / "run", Facts(references=("x" * 95,)), opened(model_folder))
    assert (row.score, (row.failure or {})["kind"]) == (None, "context_overflow")


class Faulty:
    """An engine that fails where only the question is asked."""

    def __init__(self, of: NativeBackend) -> None:
        self._of = of

    def __getattr__(self, name: str) -> object:
        return getattr(self._of, name)

    def run(self, requests: list[Request]) -> Iterator[tuple[int, Outcome]]:
        for position, request in enumerate(requests):
            if request.prompt == "Which?":
                yield position, Failure("server", "no device")
            else:
                yield position, next(self._of.run([request]))[1]


def test_a_request_that_fails_is_no_gain_of_0_and_is_asked_again(tmp_path: Path, model_folder: Path) -> None:
    row = asked(tmp_path / "run", Facts(), Faulty(opened(model_folder)), retries=0)
    assert (row.score, row.metrics, row.failed) == (None, {}, True)
    again = asked(tmp_path / "run", Facts(), opened(model_folder))
    whole = asked(tmp_path / "whole", Facts(), opened(model_folder))
    assert again.score is not None
    assert again.score == pytest.approx(whole.score, abs=1e-6)
    assert RunStore.open(tmp_path / "run").status == "complete"


@pytest.mark.parametrize("kind", ["llama", "kimi_linear"])
def test_transformers_gains_are_those_of_plain_passes(kind: str, tmp_path: Path, hf_folder: Any) -> None:
    hf_tiny = pytest.importorskip("hf_tiny")
    row = asked(tmp_path / "run", Facts(), hf_tiny.opened(hf_folder(kind), 16))
    backend = hf_tiny.opened(hf_folder(kind))

    def sums(prompt: str, text: str) -> float:
        ids, n = torch.tensor([backend.tokenizer.encode(prompt + text)]), len(text.encode())
        with torch.inference_mode():
            logits = backend._adapter.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].double()
        return float(logits.log_softmax(-1)[-1 - n : -1].gather(1, ids[0, -n:, None]).sum())

    known, bare = (sum(sums(prompt, f" {text}") for text in REFERENCES) for prompt in (CONTEXT + "Which?", "Which?"))
    assert row.score == pytest.approx((known - bare) / row.extracted["tokens"], abs=1e-5)
    assert row.score != 0


def served(url: str, folder: Path) -> OpenAIBackend:
    return open_openai(BackendSpec(model="tiny", base_url=url, tokenizer=f"hf:{write_byte_tokenizer(folder)}"))


@pytest.mark.parametrize("software", ["vllm", "other"])
def test_a_server_that_scores_prompts_gives_its_own_gain(software: str, tmp_path: Path) -> None:
    with serve(Behaviour(software=software)) as url:
        row = asked(tmp_path / "run", Facts(), served(url, tmp_path / "tokenizer"))

    def sums(prompt: str, text: str) -> float:
        ids, n = list((prompt + text).encode()), len(text.encode())
        return sum(logprob(ids[:at], ids[at])[0] for at in range(len(ids) - n, len(ids)))

    known, bare = (sum(sums(prompt, f" {text}") for text in REFERENCES) for prompt in (CONTEXT + "Which?", "Which?"))
    assert row.score == pytest.approx((known - bare) / row.extracted["tokens"])


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (Behaviour(software="llama.cpp", scores_prompts=False), "gives no log-probabilities of a prompt's tokens"),
        (Behaviour(software="vllm", refuses=("prompt_logprobs",)), "'prompt_logprobs' is not supported"),
        (Behaviour(has=frozenset({"/chat/completions", "/models"})), "the chat endpoint gives no likelihoods"),
    ],
    ids=["silent", "refused", "chat alone"],
)
def test_a_server_that_cannot_is_told_before_a_sample_is_asked(behaviour: Behaviour, why: str, tmp_path: Path) -> None:
    with serve(behaviour) as url, pytest.raises(UsageError, match=f"own/facts scores a given text.*{why}") as error:
        asked(tmp_path / "run", Facts(), served(url, tmp_path / "tokenizer"))
    assert "\n" not in str(error.value)
    assert not any(CONTEXT in str(body) for body in behaviour.bodies)
    assert not (tmp_path / "run").exists()
