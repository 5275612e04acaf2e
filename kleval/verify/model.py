"""Small random checkpoint in the published layout, for an engine that is to serve it and a reference that reads the same files.

Decays, gates and keys are of the size that trained models have (kleval.models.random draws them as fla-core's layers are initialised),
which a checkpoint of plain normal weights has not; the router has a bias, and no two experts, layers or matrices are alike. The
tokenizer has a token for each byte.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from kleval.files import write_text
from kleval.models.checkpoint import save
from kleval.models.random import random_decoder
from kleval.models.sizes import preset

LAYERS = ("kda", "kda", "kda", "mla")
SHARPER = 2.0  # than random logits, so that what is written is not the same everywhere


def write_model(folder: Path, seed: int = 0, max_ctx: int = 16384, experts: int = 0) -> Path:
    """Four layers of Kimi Linear (3 KDA, 1 NoPE MLA), 64 channels, in float32; experts: two of so many in all layers but the first.

    In bfloat16 rounding sends tokens to other experts: without experts it is smaller. UsageError when the folder holds weights already.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    config = replace(
        preset("kimi-linear", "nano", vocab_size=len(alphabet) + 1, eos_token_id=len(alphabet)),
        hidden_size=64,
        layer_mixers=LAYERS,
        kda_num_heads=4,
        kda_head_dim=16,
        num_attention_heads=4,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        kv_lora_rank=16,
        intermediate_size=96,
        tie_word_embeddings=False,
        max_position_embeddings=max_ctx,
        num_experts=experts,
        num_experts_per_token=min(2, experts),
        num_shared_experts=min(1, experts),
        moe_intermediate_size=32 if experts else 0,
        routed_scaling_factor=2.446 if experts else 1.0,
        first_k_dense_replace=1 if experts else 0,
    )
    decoder = random_decoder(config, dtype=torch.float32, seed=seed)
    decoder.lm_head.weight.mul_(SHARPER)
    for name, parameter in decoder.named_parameters():
        if name.endswith("e_score_correction_bias"):
            parameter.copy_(torch.linspace(-0.2, 0.2, experts))
    save(decoder, folder)
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*alphabet, "<|eos|>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    write_text(folder / "tokenizer.json", tokenizer.to_str())
    write_text(folder / "tokenizer_config.json", json.dumps({"eos_token": "<|eos|>"}))
    return folder
