"""Models whose rotary frequencies depend on the length of a call: what is asked is what transformers computes of each text alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_tiny import ask, check_same, opened, prompts, scores, transformers

from kleval.backends.given import open_given
from kleval.backends.hf_rope import rope_by_length
from kleval.tokenization import read_tokenizer
from kleval.tokenization.given import Numbers
from kleval.types import Completion, Request

END = 256  # of the byte tokenizer
FIRST, LONGEST = 64, 512  # the lengths that the models were trained at first, and that they take
SMALL = {
    "vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
LONG_ROPE = {"short_factor": [1.0] * 8, "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0]}
REQUESTS = [*prompts(40, 90, 57, 63, 3), *scores((50, 4), (61, 1), (60, 30), (20, 9))]


def config_of(kind: str) -> Any:
    if kind == "phi3":
        scaling = LONG_ROPE | {"type": "longrope"}
        lengths = {"max_position_embeddings": LONGEST, "original_max_position_embeddings": FIRST}
        return transformers.Phi3Config(**SMALL, **lengths, rope_scaling=scaling)
    if kind == "llama longrope":
        scaling = LONG_ROPE | {"rope_type": "longrope", "original_max_position_embeddings": FIRST, "factor": 8.0}
        return transformers.LlamaConfig(**SMALL, max_position_embeddings=LONGEST, rope_scaling=scaling)
    scaling = {"rope_type": "dynamic", "factor": 8.0}
    return transformers.LlamaConfig(**SMALL, max_position_embeddings=FIRST, rope_scaling=scaling)


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_of(kind)).eval()
    for name, weight in model.named_parameters():
        weight.data *= 30 if "embed" in name else 10 if "proj" in name else 1  # so that positions tell
    return model


@pytest.fixture
def backend(tmp_path: Path, make_model: Callable[..., Path]) -> Callable[..., Any]:
    """In batches, in chunks of 16 tokens, with shared beginnings: where the model bears it."""

    def made(kind: str) -> Any:
        folder = make_model(tmp_path / "model")
        if kind == "dynamic":  # whose config says no length beyond the one that it was trained at
            return open_given(model_of(kind), read_tokenizer(folder, "bytes"), max_ctx=LONGEST)
        (folder / "model.safetensors").unlink()
        model_of(kind).save_pretrained(folder)
        return opened(folder, 16)

    return made


def generated(kind: str, request: Request, longest: int) -> list[int]:
    ids = torch.tensor([request.token_ids])
    model = model_of(kind)
    with torch.inference_mode():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=longest, do_sample=False)
    tokens: list[int] = found[0, ids.shape[1] :].tolist()
    return tokens[: tokens.index(END) + 1] if END in tokens else tokens


def whole(kind: str, ids: Sequence[int]) -> torch.Tensor:
    """Logits of a text by one plain pass of a model that has seen none before [T, V]."""
    with torch.inference_mode():
        return model_of(kind)(input_ids=torch.tensor([ids])).logits[0].double()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["phi3", "dynamic"])
def test_an_answer_is_that_of_generate(backend: Callable[..., Any], kind: str) -> None:
    asked = [replace(request, max_new_tokens=40) for request in prompts(40, 90, 57, 63, 3, 64, 65)]
    for request, found in zip(asked, ask(backend(kind), asked), strict=True):
        assert isinstance(found, Completion)
        assert list(found.token_ids) == generated(kind, request, 40)


@pytest.mark.parametrize("kind", ["phi3", "llama longrope"])
def test_each_token_of_an_answer_is_the_likeliest_of_the_whole_text_before_it(
    backend: Callable[..., Any], kind: str
) -> None:
    (request,) = prompts(55)
    (found,) = ask(backend(kind), [replace(request, max_new_tokens=20)])
    assert isinstance(found, Completion)
    text = list(request.token_ids or ())
    for token in found.token_ids:
        assert token == int(whole(kind, text)[-1].argmax())
        text.append(token)


@pytest.mark.parametrize("kind", ["phi3", "llama longrope", "dynamic"])
def test_a_likelihood_is_that_of_one_plain_pass_and_neighbours_change_nothing(
    backend: Callable[..., Any], kind: str
) -> None:
    head = prompts(80)[0].token_ids or ()
    shared = [
        replace(request, token_ids=head + (request.token_ids or ())) for request in scores((4, 3), (4, 2), (9, 5))
    ]
    requests = [*REQUESTS, *shared]
    asks = backend(kind)
    together = ask(asks, requests)
    check_same(together, [ask(asks, [request])[0] for request in requests])
    for request, found in zip(requests, together, strict=True):
        if request.kind == "generate":
            continue
        assert isinstance(found, Completion)
        ids, n = [*(request.token_ids or ()), *(request.continuation_ids or ())], len(request.continuation_ids or ())
        # As lm-eval feeds it: the last token, behind which nothing is asked, would count in the length.
        plain = whole(kind, ids[:-1]).log_softmax(-1)[-n:].gather(1, torch.tensor(ids[-n:])[:, None]).sum()
        assert found.logprob_sum == pytest.approx(float(plain), abs=1e-4)


@pytest.mark.parametrize("kind", ["phi3", "llama longrope", "dynamic"])
def test_what_is_run_whole_and_alone_is_told(backend: Callable[..., Any], kind: str) -> None:
    said = backend(kind).describe()
    assert (said["max_batch"], said["prefill_chunk"], said["share_prefixes"]) == (1, None, False)
    assert said["whole_and_alone"].startswith("dynamic:" if kind == "dynamic" else "longrope:")


@pytest.mark.parametrize(
    ("scaling", "found"),
    [
        (None, ("", 0)),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, ("", 0)),
        ({"rope_type": "dynamic", "factor": 4.0}, ("dynamic", LONGEST)),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64}, ("longrope", 64)),
        ({"full": {"rope_type": "default"}, "far": {"rope_type": "dynamic", "factor": 2.0}}, ("dynamic", LONGEST)),
    ],
)
def test_scalings_by_length_are_known(scaling: Any, found: tuple[str, int]) -> None:
    config = transformers.LlamaConfig(**SMALL, max_position_embeddings=LONGEST)
    config.rope_parameters = scaling
    assert rope_by_length(config) == found


def test_dynamic_frequencies_that_no_text_reaches_leave_a_model_as_it_was(
    tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    model_of("dynamic").save_pretrained(folder)
    said = opened(folder).describe()
    assert said["max_batch"] > 1
    assert "whole_and_alone" not in said


def test_rows_are_not_padded_where_queries_are_scaled_by_their_place_in_the_batch() -> None:
    """Llama 4, whose scale changes at 8,192 tokens: the trials do not reach it."""
    torch.manual_seed(0)
    experts = {"num_local_experts": 2, "intermediate_size_mlp": 48, "head_dim": 16}
    scaled = {"attn_scale": 4.0, "floor_scale": FIRST, "no_rope_layers": [0, 0], "attention_chunk_size": FIRST}
    config = transformers.Llama4TextConfig(**SMALL, **experts, **scaled, max_position_embeddings=LONGEST)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, weight in model.named_parameters():
        weight.data *= 30 if "embed" in name else 10 if "proj" in name else 1
    backend = open_given(model, Numbers())
    requests = [*prompts(90, 80, 70), *scores((80, 9), (75, 9), (70, 5))]
    check_same(ask(backend, requests), [ask(backend, [request])[0] for request in requests])
    said = backend.describe()
    assert (said["batches"], said["padded_batches"]) == (True, False)


def test_gemma_3n_whose_layers_differ_in_width_is_asked() -> None:
    """Their widths are a list in its config, which the memory of a batch is estimated from."""
    torch.manual_seed(0)
    small = SMALL | {"intermediate_size": [48, 64], "head_dim": 16}
    own = {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 257,
        "laurel_rank": 4,
        "num_kv_shared_layers": 0,
    }
    kinds = {"layer_types": ["sliding_attention", "full_attention"], "activation_sparsity_pattern": [0.0, 0.0]}
    config = transformers.Gemma3nTextConfig(**small, **own, **kinds, sliding_window=FIRST)
    backend = open_given(transformers.AutoModelForCausalLM.from_config(config).eval(), Numbers())
    requests = prompts(90, 70)
    check_same(ask(backend, requests), [ask(backend, [request])[0] for request in requests])
