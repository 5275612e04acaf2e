"""The native backend: what a request answers depends on the request alone, and what cannot be answered says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kleval.backends.native import NativeBackend, open_native
from kleval.backends.native_memory import Memory
from kleval.backends.spec import BackendSpec
from kleval.types import Backend, Completion, Failure, Outcome, Request, UsageError

TEXTS = ["A short one.", "Something a little longer than that, with a comma.", "x" * 700, "ünïcödé ✓ " * 20, "Hi"]


def generate(text: str, n: int = 12, **kwargs: Any) -> Request:
    return Request("generate", text, max_new_tokens=n, **kwargs)


def ask(backend: Backend, requests: Sequence[Request]) -> list[Outcome]:
    answers = list(backend.run(requests))
    assert sorted(position for position, _ in answers) == list(range(len(requests)))
    return [outcome for _, outcome in sorted(answers, key=lambda answer: answer[0])]


def answer(backend: Backend, request: Request) -> Completion:
    (outcome,) = ask(backend, [request])
    assert isinstance(outcome, Completion)
    return outcome


def what(outcome: Outcome) -> Any:
    assert isinstance(outcome, Completion)
    return outcome.text, outcome.token_ids, outcome.finish_reason, outcome.prompt_tokens


def test_it_is_a_backend(backend: NativeBackend) -> None:
    as_protocol: Backend = backend
    described = as_protocol.describe()
    assert len(described["weights_sha256"]) == 64
    assert described["config"]["architecture"] == "kimi-linear"


def test_greedy_is_the_models_argmax(backend: NativeBackend) -> None:
    """Against one forward pass without a cache per token."""
    completion = answer(backend, generate(TEXTS[1], 8))
    ids = backend.tokenizer.encode(TEXTS[1])
    expected = []
    for _ in range(8):
        hidden = backend._decoder.hidden(torch.tensor([ids]))
        ids = [*ids, int(backend._decoder.logits(hidden[0, -1]).argmax())]
        expected.append(ids[-1])
    assert list(completion.token_ids) == expected
    assert completion.finish_reason == "length"
    assert completion.text == backend.tokenizer.decode(expected)
    assert completion.seconds > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_neighbours_do_not_change_an_answer(backend: NativeBackend, temperature: float) -> None:
    requests = [generate(t, 5 + 7 * i, temperature=temperature, seed=i) for i, t in enumerate(TEXTS)]
    alone = [what(answer(backend, request)) for request in requests]
    assert [what(o) for o in ask(backend, requests)] == alone
    backwards = ask(backend, [*reversed(requests), *requests])
    assert [what(o) for o in backwards] == [*reversed(alone), *alone]


def test_chunk_size_and_batch_size_do_not_change_an_answer(model_folder: Path) -> None:
    requests = [generate(t) for t in TEXTS]
    expected = [what(o) for o in ask(open_native(BackendSpec(model=str(model_folder))), requests)]
    small = open_native(BackendSpec(model=str(model_folder), batch=2))
    small.prefill_tokens = 48
    assert [what(o) for o in ask(small, requests)] == expected


def test_token_ids_are_used_as_they_are(backend: NativeBackend) -> None:
    ids = tuple(backend.tokenizer.encode("Another text"))
    by_ids = answer(backend, Request("generate", "ignored", max_new_tokens=6, token_ids=ids))
    assert what(by_ids) == what(answer(backend, generate("Another text", 6)))


def test_the_answer_prefix_comes_last(backend: NativeBackend) -> None:
    split = answer(backend, Request("generate", "Question? ", answer_prefix="Answer:", max_new_tokens=6))
    assert what(split) == what(answer(backend, generate("Question? Answer:", 6)))


def test_a_seed_decides_a_sample(backend: NativeBackend) -> None:
    texts = [answer(backend, generate("Once", 20, temperature=1.5, seed=seed)).token_ids for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_a_tiny_top_p_is_greedy(backend: NativeBackend) -> None:
    greedy = answer(backend, generate("Once", 20))
    sampled = answer(backend, generate("Once", 20, temperature=1.0, top_p=1e-9, seed=4))
    assert sampled.token_ids == greedy.token_ids


def test_samples_follow_the_models_distribution(backend: NativeBackend) -> None:
    ids = torch.tensor([backend.tokenizer.encode("Once")])
    expected = backend._decoder.logits(backend._decoder.hidden(ids)[0, -1]).softmax(-1)
    n = 600
    outcomes = ask(backend, [generate("Once", 1, temperature=1.0, seed=s) for s in range(n)])
    counts = torch.zeros_like(expected)
    for outcome in outcomes:
        assert isinstance(outcome, Completion)
        counts[outcome.token_ids[0]] += 1
    assert float((counts / n - expected).abs().max()) < 0.08  # about four standard errors


def test_a_stop_string_ends_the_text_before_it(backend: NativeBackend) -> None:
    full = answer(backend, generate(TEXTS[3], 40))
    stop = full.text[9:11]
    stopped = answer(backend, generate(TEXTS[3], 40, stop=("never there, never", stop)))
    assert stopped.finish_reason == "stop"
    assert stopped.text == full.text[: full.text.index(stop)]
    assert stopped.output_tokens == len(stopped.token_ids) < 40


def test_end_of_sequence_ends_and_is_not_text(make_model: Callable[..., Path], tmp_path: Path) -> None:
    backend = open_native(BackendSpec(model=str(make_model(tmp_path / "m"))))
    first = answer(backend, generate("Hello", 10))
    eos_id = first.token_ids[3]
    backend._ends = frozenset((eos_id,))
    ended = answer(backend, generate("Hello", 10))
    at = first.token_ids.index(eos_id)
    assert ended.finish_reason == "eos"
    assert ended.token_ids == first.token_ids[: at + 1]
    assert ended.text == backend.tokenizer.decode(first.token_ids[:at])


def test_log_probabilities_are_the_models(backend: NativeBackend) -> None:
    pairs = [("The sky is", " blue"), (TEXTS[2], "yes, and a longer continuation " * 20), ("a", "b")]
    outcomes = ask(backend, [Request("loglikelihood", p, continuation=c) for p, c in pairs])
    for (prompt, continuation), outcome in zip(pairs, outcomes, strict=True):
        assert isinstance(outcome, Completion)
        before, after = backend.tokenizer.encode(prompt), backend.tokenizer.encode(continuation)
        hidden = backend._decoder.hidden(torch.tensor([[*before, *after]]))[0, len(before) - 1 : -1]
        logprobs = backend._decoder.logits(hidden).log_softmax(-1)
        expected = float(logprobs[range(len(after)), after].sum())
        assert outcome.logprob_sum == pytest.approx(expected, abs=1e-3, rel=1e-5)
        assert outcome.greedy == (logprobs.argmax(-1).tolist() == after)


def test_half_of_a_likelihoods_ids_is_refused(backend: NativeBackend) -> None:
    (got,) = ask(backend, [Request("loglikelihood", "a", continuation="b", token_ids=(1, 2))])
    assert isinstance(got, Failure)
    assert (got.kind, got.message.partition(":")[0]) == ("bad_request", "token_ids without continuation_ids")


def test_kinds_may_share_a_batch(backend: NativeBackend) -> None:
    requests = [Request("loglikelihood", t, continuation=" and so on") for t in TEXTS] + [generate(t) for t in TEXTS]
    for request, outcome in zip(requests, ask(backend, requests), strict=True):
        alone = answer(backend, request)
        assert isinstance(outcome, Completion)
        assert (outcome.text, outcome.token_ids, outcome.greedy) == (alone.text, alone.token_ids, alone.greedy)
        if alone.logprob_sum is not None:
            assert outcome.logprob_sum == pytest.approx(alone.logprob_sum, abs=1e-3)


def test_the_argmax_is_greedy_and_another_token_is_not(backend: NativeBackend) -> None:
    tokenizer = backend.tokenizer
    for i in range(100):
        first = answer(backend, generate(f"Tell me {i}", 1)).token_ids
        best = tokenizer.decode(first)
        if tuple(tokenizer.encode(best)) == first:  # one byte of a longer character is no text of its own
            break
    other = "a" if best != "a" else "b"
    outcomes = ask(backend, [Request("loglikelihood", f"Tell me {i}", continuation=c) for c in (best, other)])
    assert [isinstance(o, Completion) and o.greedy for o in outcomes] == [True, False]


def test_too_long_is_a_failure_and_the_others_are_answered(make_model: Callable[..., Path], tmp_path: Path) -> None:
    backend = open_native(BackendSpec(model=str(make_model(tmp_path / "m", max_ctx=100))))
    outcomes = ask(backend, [generate("x" * 95, 10), generate("x" * 90, 10), generate("fine", 3)])
    assert isinstance(outcomes[0], Failure)
    assert outcomes[0].kind == "context_overflow"
    assert "95 prompt + 10 new" in outcomes[0].message
    assert isinstance(outcomes[1], Completion)
    assert isinstance(outcomes[2], Completion)


@pytest.mark.parametrize(
    "request_",
    [
        generate(""),
        generate("text", 0),
        Request("loglikelihood", "text"),
        Request("generate", "text", max_new_tokens=3, token_ids=(1, 9999)),
    ],
)
def test_what_makes_no_sense_is_a_bad_request(backend: NativeBackend, request_: Request) -> None:
    (outcome,) = ask(backend, [request_])
    assert isinstance(outcome, Failure)
    assert outcome.kind == "bad_request"


def test_a_state_above_the_budget_fails_and_smaller_ones_run(model_folder: Path) -> None:
    probe = open_native(BackendSpec(model=str(model_folder)))
    requests = [generate("x" * 3000, 5), generate("small", 5), generate("also small", 5)]
    expected = [what(o) for o in ask(probe, requests)]
    budget = Memory(probe.config, probe._device, probe._dtype, 1024, None).working_bytes(8, 8) + 3 * 10**5
    limited = open_native(BackendSpec(model=str(model_folder), memory_budget=budget))
    outcomes = ask(limited, requests)
    assert isinstance(outcomes[0], Failure)
    assert outcomes[0].kind == "out_of_memory"
    assert "--memory-budget" in outcomes[0].message
    assert [what(o) for o in outcomes[1:]] == expected[1:]


def test_running_out_of_memory_halves_the_batch(backend: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation that fails with more than two rows, in the middle of decoding: same answers, none twice."""
    requests = [generate(f"Request {i}", 4 + 3 * i, temperature=1.0, seed=i) for i in range(6)]
    expected = [what(o) for o in ask(backend, requests)]
    original = backend._decoder.hidden
    tried: list[int] = []

    def hidden(ids: torch.Tensor, cache: Any, lengths: Any = None) -> torch.Tensor:
        tried.append(len(ids))
        if len(ids) > 2 and int(cache.lengths.max()) > 14:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return original(ids, cache, lengths)

    monkeypatch.setattr(backend._decoder, "hidden", hidden)
    assert [what(o) for o in ask(backend, requests)] == expected
    assert max(tried) == 6


def test_a_single_request_that_does_not_fit_is_a_failure(
    backend: NativeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = backend._decoder.hidden

    def hidden(ids: torch.Tensor, cache: Any, lengths: Any = None) -> torch.Tensor:
        if ids.shape[1] > 100:
            raise MemoryError
        return original(ids, cache, lengths)

    monkeypatch.setattr(backend._decoder, "hidden", hidden)
    outcomes = ask(backend, [generate("x" * 300), generate("x" * 290), generate("short")])
    assert [isinstance(o, Failure) and o.kind for o in outcomes] == ["out_of_memory", "out_of_memory", False]


def test_other_errors_are_not_hidden(backend: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*args: Any) -> torch.Tensor:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(backend._decoder, "hidden", hidden)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(backend.run([generate("a")]))


def test_logits_that_are_not_finite_are_a_failure(make_model: Callable[..., Path], tmp_path: Path) -> None:
    backend = open_native(BackendSpec(model=str(make_model(tmp_path / "m"))))
    backend._decoder.model.norm.weight.fill_(float("nan"))
    (outcome,) = ask(backend, [generate("a")])
    assert isinstance(outcome, Failure)
    assert outcome.kind == "internal"


def test_answers_come_as_they_finish(backend: NativeBackend) -> None:
    order = [position for position, _ in backend.run([generate("first", 30), generate("second", 2)])]
    assert order == [1, 0]


def test_bfloat16_keeps_decay_rates_in_float32(model_folder: Path) -> None:
    backend = open_native(BackendSpec(model=str(model_folder), dtype="bfloat16"))
    dtypes = {name: p.dtype for name, p in backend._decoder.named_parameters()}
    assert dtypes["model.layers.0.self_attn.A_log"] == torch.float32
    assert dtypes["model.layers.0.self_attn.q_proj.weight"] == torch.bfloat16
    assert answer(backend, generate("Hello", 4)).output_tokens == 4


@pytest.mark.parametrize(
    ("option", "text"),
    [({"dtype": "int4"}, "float32, bfloat16"), ({"device": "gpu"}, "cuda:N"), ({"device": "cuda:99"}, "CUDA devices")],
)
def test_a_wrong_option_is_a_usage_error(model_folder: Path, option: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        open_native(BackendSpec(model=str(model_folder), **option))  # type: ignore[arg-type]
