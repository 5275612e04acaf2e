"""Tiny random transformers models, and requests to them; who imports this is skipped where transformers is not installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kleval.backends.hf import HFBackend, _torch_only, open_hf
from kleval.backends.spec import BackendSpec
from kleval.types import Completion, Outcome, Request

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[hf]'")
KINDS = ("llama", "kimi_linear", "qwen3_next", "mistral", "mamba")
PICTURES = ("glm5_next", "qwen3_5")  # models for text and pictures, published as …ForConditionalGeneration


def config_of(kind: str) -> Any:
    small = {
        "vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 2048, "bos_token_id": None, "eos_token_id": 256,
        "pad_token_id": 0, "tie_word_embeddings": False,
    }  # fmt: skip
    if kind == "llama":
        return transformers.LlamaConfig(**small)
    if kind == "mistral":
        return transformers.MistralConfig(**small, sliding_window=24)
    if kind == "qwen3_next":
        return transformers.Qwen3NextConfig(
            **small, layer_types=["linear_attention", "full_attention"], linear_key_head_dim=16, linear_value_head_dim=16,
            linear_num_key_heads=2, linear_num_value_heads=2, num_experts=4, num_experts_per_tok=2, head_dim=16,
            moe_intermediate_size=16, shared_expert_intermediate_size=16,
        )  # fmt: skip
    if kind == "mamba":
        return transformers.MambaConfig(
            vocab_size=257, hidden_size=32, state_size=8, num_hidden_layers=2, bos_token_id=None, eos_token_id=256, pad_token_id=0
        )  # fmt: skip
    small |= {"num_hidden_layers": 4, "linear_conv_kernel_dim": 4}
    if kind == "glm5_next":
        text = small | {
            "num_key_value_heads": 2, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 0,
            "v_head_dim": 16, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 16, "index_kpool": 4, "linear_head_dim": 16,
            "linear_num_heads": 2, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "hc_mult": 2,
        }  # fmt: skip
        tower = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
        return transformers.Glm5NextConfig(text_config=text, vision_config=tower)
    if kind == "qwen3_5":
        text = small | {
            "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
            "head_dim": 16,
        }  # fmt: skip
        tower = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
        return transformers.Qwen3_5Config(text_config=text, vision_config=tower)
    raise AssertionError(kind)


def write_hf_model(kind: str, place: Path, make_model: Callable[..., Path]) -> Path:
    """A folder with random weights and a byte tokenizer."""
    make_model(place)
    if kind == "kimi_linear":
        return as_transformers(place)
    (place / "model.safetensors").unlink()
    torch.manual_seed(0)
    with _torch_only(torch.device("cpu")):
        config = config_of(kind)
        auto = transformers.AutoModelForImageTextToText if kind in PICTURES else transformers.AutoModelForCausalLM
        model = auto.from_config(config)
    model.get_input_embeddings().weight.data *= 30
    model.save_pretrained(place)
    return place


def as_transformers(place: Path) -> Path:
    """kleval's folder with a config.json of the published kind."""
    from kleval.models.checkpoint import save
    from kleval.models.registry import load, resolve

    decoder, tokenizer = load(resolve(str(place)))
    target = place.parent / "transformers"
    save(decoder, target)
    tokenizer.save(target)
    for name in ("tokenizer_config.json",):
        (target / name).write_text((place / name).read_text("utf-8"), encoding="utf-8")
    return target


def prompts(*lengths: int) -> list[Request]:
    generator = torch.Generator().manual_seed(3)
    return [
        Request(
            "generate", "", max_new_tokens=6, token_ids=tuple(torch.randint(256, (n,), generator=generator).tolist())
        )
        for n in lengths
    ]


def scores(*pairs: tuple[int, int]) -> list[Request]:
    asked = prompts(*(a + b for a, b in pairs))
    return [
        replace(r, kind="loglikelihood", token_ids=r.token_ids[:a], continuation_ids=r.token_ids[a:])  # type: ignore[index]
        for r, (a, _) in zip(asked, pairs, strict=True)
    ]


def ask(backend: Any, requests: Sequence[Request]) -> list[Outcome]:
    return [outcome for _, outcome in sorted(backend.run(requests), key=lambda pair: pair[0])]


def opened(path: Path, prefill_tokens: int | None = None, **settings: Any) -> HFBackend:
    backend = open_hf(BackendSpec(model=str(path), device="cpu", **settings))
    backend.prefill_tokens = prefill_tokens or backend.prefill_tokens
    return backend


def check_same(one: Sequence[Outcome], other: Sequence[Outcome]) -> None:
    for a, b in zip(one, other, strict=True):
        assert isinstance(a, Completion)
        assert isinstance(b, Completion)
        assert (a.token_ids, a.finish_reason, a.text) == (b.token_ids, b.finish_reason, b.text)
        assert a.greedy == b.greedy
        if a.logprob_sum is not None:
            assert a.logprob_sum == pytest.approx(b.logprob_sum, abs=1e-3)
