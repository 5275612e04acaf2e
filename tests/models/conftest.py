"""Tiny random models of every architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from one_thread import one_thread

from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.models.sizes import preset

__all__ = ["one_thread"]


def tiny_config(architecture: str, moe: bool = False) -> ModelConfig:
    """Two linear layers around one MLA layer (three of MLA for mla), a few channels wide."""
    config = preset(architecture, "nano", vocab_size=50, eos_token_id=0)
    linear = config.layer_mixers[0]
    config = replace(
        config,
        hidden_size=16,
        layer_mixers=(linear, "mla", linear),
        kda_head_dim=8,
        num_attention_heads=2,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=6,
        kv_lora_rank=10,
        intermediate_size=24,
    )
    if not moe:
        return config
    return replace(
        config,
        num_experts=4,
        num_experts_per_token=2,
        num_shared_experts=1,
        moe_intermediate_size=12,
        routed_scaling_factor=2.446,
        first_k_dense_replace=1,
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="session")
def tiny_decoder() -> Callable[..., Decoder]:
    """make(architecture, moe=False, **changed fields of the config) -> a float64 decoder with random weights, without gradients."""

    def make(architecture: str, moe: bool = False, **changed: Any) -> Decoder:
        decoder = Decoder(replace(tiny_config(architecture, moe), **changed))
        decoder.init_weights(1)
        if moe:
            for name, parameter in decoder.named_parameters():
                if name.endswith("e_score_correction_bias"):
                    torch.nn.init.normal_(parameter.data)
        return decoder.double().eval().requires_grad_(False)

    return make
