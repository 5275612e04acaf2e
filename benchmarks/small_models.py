"""Small random models in folders, for the benchmarks that ask several engines: made in a second or two."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

VOCAB, MAX_TOKENS = 1536, 4096  # of the nano models' tokenizer; prompt and answer
APART = {"embed_tokens.weight": 30.0, "embeddings.weight": 30.0, "lm_head.weight": 12.0}


def llama(**changes: Any) -> Any:
    """changes: other fields of LlamaConfig."""
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = {
        "vocab_size": VOCAB,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return LlamaForCausalLM(LlamaConfig(**(fields | changes)))


def make_llama(folder: Path) -> None:
    llama().save_pretrained(folder)


def factor(name: str) -> float:
    """What a random weight of that name is multiplied by, so that logits are as far apart as a trained model's."""
    return next((factor for end, factor in APART.items() if name.endswith(end)), 1.0)


def move_apart(model: Any) -> None:
    for name, parameter in model.named_parameters():
        parameter.data *= factor(name)


def make_kimi(folder: Path, **changes: Any) -> None:
    """Three KDA layers and an MLA layer; changes: other fields of ModelConfig."""
    from kleval.models.checkpoint import save
    from kleval.models.config import ModelConfig
    from kleval.models.decoder import Decoder

    fields = {
        "architecture": "kimi-linear",
        "vocab_size": VOCAB,
        "hidden_size": 128,
        "layer_mixers": ("kda", "kda", "kda", "mla"),
        "kda_num_heads": 4,
        "kda_head_dim": 32,
        "num_attention_heads": 4,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "kv_lora_rank": 64,
        "mla_use_nope": True,
        "intermediate_size": 256,
        "num_experts": 0,
        "num_experts_per_token": 0,
        "num_shared_experts": 0,
        "moe_intermediate_size": 64,
        "routed_scaling_factor": 2.446,
        "first_k_dense_replace": 1,
        "tie_word_embeddings": False,
        "max_position_embeddings": MAX_TOKENS,
        "eos_token_id": VOCAB - 1,
    }
    decoder = Decoder(ModelConfig(**(fields | changes))).requires_grad_(False)
    decoder.init_weights(0)
    save(decoder, folder)


def make_kimi_moe(folder: Path, **changes: Any) -> None:
    """The same with two of eight experts and a shared one."""
    make_kimi(folder, num_experts=8, num_experts_per_token=2, num_shared_experts=1, **changes)


def make_mla(folder: Path) -> None:
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    config = DeepseekV3Config(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=256,
        moe_intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=64,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=32,
        v_head_dim=32,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=None,
        eos_token_id=None,
    )
    DeepseekV3ForCausalLM(config).save_pretrained(folder)
    # transformers does not write them, vLLM does not know the router's bias without them.
    amend(folder, topk_method="noaux_tc", scoring_func="sigmoid")


def make_gdn(folder: Path) -> None:
    import torch
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    config = Qwen3NextConfig(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=256,
        moe_intermediate_size=64,
        shared_expert_intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=None,
        eos_token_id=None,
    )
    Qwen3NextForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def amend(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}, indent=1), encoding="utf-8")


def add_tokenizer(folder: Path) -> None:
    """The nano models' tokenizer, into a model's folder."""
    from kleval import models

    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(models.__file__).parent / "nano" / name, folder)
