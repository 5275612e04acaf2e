"""The hf backend when memory runs out, or its budget is small: batches shrink, answers stay, and what never fits fails alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hf_tiny import ask, check_same, opened, prompts, scores

from kleval.backends.generation import Job
from kleval.backends.hf_engine import HFEngine
from kleval.backends.hf_model import HFModel
from kleval.backends.native_parts import own_part
from kleval.types import Failure


def _job(n: int) -> Job:
    return Job(0, prompts(n)[0], prompts(n)[0].token_ids or ())


def test_running_out_of_memory_halves_the_batch(hf_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened(hf_folder("llama"))
    requests = prompts(40, 40, 40, 40, 39)
    expected = ask(backend, requests)
    seen: list[int] = []
    forward = type(backend._adapter).forward

    def small(self: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, ids, *rest)

    monkeypatch.setattr(type(backend._adapter), "forward", small)
    check_same(ask(backend, requests), expected)
    assert max(seen) == 5


def test_memory_that_runs_out_beside_a_shared_state_changes_no_answer(
    hf_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = prompts(80)[0].token_ids or ()
    requests = [
        replace(r, token_ids=head + (r.token_ids or ())) for r in [*prompts(40, 40, 9), *scores((4, 3), (4, 2))]
    ]
    requests += [replace(requests[0], token_ids=head)] * 2
    expected = ask(opened(hf_folder("llama"), share_prefixes=False), requests)
    forward = HFModel.forward
    for fails in range(1, 12):
        calls = iter(range(100))

        def small(self: Any, *given: Any, fails: int = fails, calls: Any = calls) -> torch.Tensor:
            if next(calls) in (fails, fails + 1):
                raise torch.OutOfMemoryError("out of memory")
            return forward(self, *given)

        backend = opened(hf_folder("llama"))
        with monkeypatch.context() as patched:
            patched.setattr(HFModel, "forward", small)
            check_same(ask(backend, requests), expected)
        assert next(calls) > fails


def test_a_budget_with_no_room_beside_a_shared_state_serves_each_alone(hf_folder: Any) -> None:
    head = prompts(1500)[0].token_ids or ()
    requests = [replace(r, token_ids=head + (r.token_ids or ())) for r in prompts(9, 5)]
    enough = opened(hf_folder("llama"), memory_budget=1 << 30)
    expected = ask(enough, requests)
    assert enough.stats["prefilled_tokens"] < 2 * len(head)
    engine, part = HFEngine(enough._adapter, 512, None), own_part(_job(1509))
    one = engine.state_bytes(part) + engine.working_bytes(part)
    tight = opened(hf_folder("llama"), memory_budget=one + 50_000)
    check_same(ask(tight, requests), expected)
    assert tight.stats["prefilled_tokens"] == tight.stats["prompt_tokens"]


def test_a_request_that_never_fits_is_a_failure_and_the_others_go_on(
    hf_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened(hf_folder("llama"))
    forward = type(backend._adapter).forward

    def small(self: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if ids.shape[1] > 50:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, ids, *rest)

    monkeypatch.setattr(type(backend._adapter), "forward", small)
    outcomes = ask(backend, prompts(40, 60, 30))
    assert [isinstance(o, Failure) and o.kind for o in outcomes] == [False, "out_of_memory", False]


def test_a_budget_too_small_for_a_request_says_what_to_do(hf_folder: Any) -> None:
    (outcome,) = ask(opened(hf_folder("llama"), memory_budget=1000), prompts(40))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "out_of_memory"
    assert "--memory-budget" in outcome.message


def test_the_working_memory_estimate_grows_with_the_chunk(hf_folder: Any) -> None:
    backend = opened(hf_folder("llama"))
    engine = HFEngine(backend._adapter, 64, None)
    small, large = (engine.working_bytes(own_part(_job(n))) for n in (40, 60))
    assert large > small


def test_attention_that_holds_its_scores_takes_a_long_prompt_in_shorter_chunks(
    hf_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [*prompts(200, 190, 90), *scores((180, 9))]
    backend = opened(hf_folder("llama"))
    expected = ask(backend, requests)
    backend._adapter.model.set_attn_implementation("eager")
    monkeypatch.setattr("kleval.backends.hf_engine._EAGER_BYTES", 4 * 2 * 200 * 20)
    widths: list[int] = []
    forward = HFModel.forward

    def counted(self: Any, ids: Any, *given: Any) -> Any:
        widths.append(ids.shape[1])
        return forward(self, ids, *given)

    monkeypatch.setattr(HFModel, "forward", counted)
    check_same(ask(backend, requests), expected)
    assert 16 < max(widths) <= 44  # two heads: 20 tokens at 200, more at 90
