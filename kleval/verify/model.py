"""Small random checkpoint in the published layout, for an engine that is to serve it and a reference that reads the same files.

Decays, gates and keys are of the size that trained models have (kleval.models.random draws them as fla-core's layers are initialised),
which a checkpoint of plain normal weights has not; the tokenizer has a token for each byte.
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


def write_model(folder: Path, seed: int = 0, max_ctx: int = 16384, dtype: torch.dtype = torch.float32) -> Path:
    """Four layers of Kimi Linear (3 KDA, 1 NoPE MLA), 64 channels. UsageError when the folder holds weights already."""
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
    )
    decoder = random_decoder(config, dtype=dtype, seed=seed)
    decoder.lm_head.weight.mul_(SHARPER)
    save(decoder, folder)
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*alphabet, "<|eos|>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    write_text(folder / "tokenizer.json", tokenizer.to_str())
    write_text(folder / "tokenizer_config.json", json.dumps({"eos_token": "<|eos|>"}))
    return folder
