"""Model objects as backends: torch modules with and without a cache, transformers models, kleval's decoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kleval.backends.given import open_given
from kleval.tokenization.given import Numbers
from kleval.types import Completion, Failure, Request, UsageError

VOCAB = 256


class Bytes:
    """Any object that encodes and decodes."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


class Sums(nn.Module):
    """Logits of a decayed sum of embeddings: a recurrent model in two forms. cached: whether it gives its state."""

    def __init__(self, cached: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB, 16)
        self.head = nn.Linear(16, VOCAB)
        self.drop = nn.Dropout(0.5)
        self.cached, self.calls, self.tokens = cached, 0, 0

    def forward(self, ids: Tensor, cache: Any = None) -> Any:
        self.calls, self.tokens = self.calls + 1, self.tokens + ids.numel()
        state = cache["state"] if cache is not None else torch.zeros(len(ids), 16)
        found = []
        for at in range(ids.shape[1]):
            state = 0.7 * state + self.embed(ids[:, at])
            found.append(state)
        logits = self.drop(self.head(torch.stack(found, 1)))
        return (logits, {"state": state}) if self.cached else logits


def asked(*lengths: int, new: int = 4) -> list[Request]:
    generator = torch.Generator().manual_seed(1)
    ids = [tuple(torch.randint(VOCAB, (n,), generator=generator).tolist()) for n in lengths]
    return [Request("generate", "", max_new_tokens=new, token_ids=one) for one in ids]


def answers(backend: Any, requests: list[Request]) -> list[Any]:
    return [outcome for _, outcome in sorted(backend.run(requests), key=lambda pair: pair[0])]


def greedy(model: nn.Module, request: Request) -> tuple[int, ...]:
    """By the plainest loop there is."""
    ids = list(request.token_ids or ())
    for _ in range(request.max_new_tokens):
        logits = model(torch.tensor([ids]))
        ids.append(int((logits[0] if isinstance(logits, tuple) else logits)[0, -1].argmax()))
    return tuple(ids[-request.max_new_tokens :])


@pytest.mark.parametrize("cached", [True, False])
def test_a_module_answers_as_the_plainest_loop(cached: bool) -> None:
    model = Sums(cached)
    backend = open_given(model, Bytes())
    requests = asked(5, 60, 33, 60)
    found = answers(backend, requests)
    assert [one.token_ids for one in found] == [greedy(model, request) for request in requests]
    assert backend.describe()["batches"]


@pytest.mark.parametrize("cached", [True, False])
def test_a_continuation_is_scored(cached: bool) -> None:
    model = Sums(cached)
    backend = open_given(model, Bytes())
    (found,) = answers(backend, [Request("loglikelihood", "", token_ids=(1, 2, 3), continuation_ids=(4, 5))])
    logits = model(torch.tensor([[1, 2, 3, 4, 5]]))
    logits = (logits[0] if cached else logits)[0].double().log_softmax(-1)
    assert found.logprob_sum == pytest.approx((logits[2, 4] + logits[3, 5]).item(), abs=1e-5)


def test_without_a_cache_the_text_is_run_again_and_that_is_said() -> None:
    cached, plain = (open_given(Sums(one), Bytes()) for one in (True, False))
    models = [backend._adapter.model.module for backend in (cached, plain)]  # type: ignore[union-attr]
    for model in models:
        model.tokens = 0
    for backend in (cached, plain):
        answers(backend, asked(40))
    assert [model.tokens for model in models] == [43, 40 + 41 + 42 + 43]
    assert "runs the whole text through the model again" in plain.describe()["caveat"]
    assert "caveat" not in cached.describe()


def test_a_model_in_training_is_asked_in_evaluation_mode_and_put_back() -> None:
    model = Sums(cached=True).train()
    backend = open_given(model, Bytes())
    assert not model.training
    backend.close()
    assert model.training
    assert model.drop.training


def test_a_cache_that_is_not_by_rows_is_asked_one_request_at_a_time() -> None:
    class Layers(Sums):
        def forward(self, ids: Tensor, cache: Any = None) -> Any:
            before = None if cache is None else {"state": cache[0][0]}
            logits, state = super().forward(ids, before)
            return logits, [state["state"][None]]  # [layers, B, D]

    model = Layers(cached=True)
    backend = open_given(model, Bytes())
    assert not backend.describe()["batches"]
    requests = asked(20, 30)
    assert [one.token_ids for one in answers(backend, requests)] == [greedy(model, request) for request in requests]


def test_other_weights_are_another_model() -> None:
    first, same, other = (open_given(Sums(True), Bytes()) for _ in range(3))
    with torch.no_grad():
        other._adapter.model.module.head.bias[0] += 1  # type: ignore[union-attr]
    changed = open_given(other._adapter.model.module, Bytes())  # type: ignore[union-attr]
    assert first.describe() == same.describe()
    assert changed.describe()["weights_sha256"] != first.describe()["weights_sha256"]


class Forgets(Sums):
    def forward(self, ids: Tensor, cache: Any = None) -> Any:
        return super().forward(ids, None)


class LastOnly(Sums):
    def forward(self, ids: Tensor, cache: Any = None) -> Any:
        return super().forward(ids)[0][:, -1:]


class Raises(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        raise ValueError("no such\nthing")


class TooLarge(Bytes):
    def encode(self, text: str) -> list[int]:
        return [1000 + byte for byte in text.encode()]


@pytest.mark.parametrize(
    ("model", "tokenizer", "said"),
    [
        (Forgets(True), Bytes(), "a step from its cache gives other logits"),
        (LastOnly(True), Bytes(), r"logits of every position are needed, \[1, 4, vocabulary\]"),
        (Raises(), Bytes(), "raises ValueError: no such thing"),
        (Sums(True), None, "without a tokenizer"),
        (Sums(True), 3, "is no tokenizer"),
        (Sums(True), TooLarge(), "they do not belong together"),
    ],
)
def test_what_is_no_model_is_told_in_one_line(model: Any, tokenizer: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        open_given(model, tokenizer)
    assert "\n" not in str(error.value)


def test_requests_are_timed() -> None:
    from kleval.types import TimedRequest

    backend = open_given(Sums(True), Numbers(), name="mine")
    traces = backend.timed([TimedRequest(request) for request in asked(30, 30)])
    assert [(trace.output_tokens, trace.prompt_tokens, trace.failure) for trace in traces] == [(4, 30, None)] * 2
    assert traces[0].state_bytes == {"other": 16 * 4}


def test_a_transformers_model_and_its_tokenizer_object(make_model: Any, tmp_path: Any) -> None:
    pytest.importorskip("transformers")
    from hf_tiny import write_hf_model

    from kleval.backends.hf import open_hf
    from kleval.backends.spec import BackendSpec

    folder = write_hf_model("llama", tmp_path / "model", make_model)
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours, theirs = open_given(model, tokenizer), open_hf(BackendSpec(model=str(folder)))
    requests = asked(20, 50)
    assert [one.token_ids for one in answers(ours, requests)] == [one.token_ids for one in answers(theirs, requests)]
    assert ours.tokenizer.encode("a fox") == theirs.tokenizer.encode("a fox")
    assert ours.model == "model"


def test_kleval_s_own_decoder_is_asked_natively() -> None:
    from kleval.models.registry import load, resolve

    decoder, tokenizer = load(resolve("kimi-linear@nano"))
    backend = open_given(decoder, tokenizer, "mine")
    (found,) = answers(backend, asked(20, new=2))
    assert backend.name == "native"
    assert isinstance(found, Completion)
    assert not isinstance(found, Failure)
