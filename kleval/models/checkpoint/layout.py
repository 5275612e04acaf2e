"""Layout of a model folder for transformers: the config.json of a decoder, and the weights that differ in it.

transformers' Kimi Linear is KDA and NoPE MLA, with a head of its own (it ties nothing). Tied embeddings are written twice, and
a factor on the embeddings is multiplied into them, which changes no logit. RoPE and GDN it has no words for.
"""

from __future__ import annotations

from typing import Any

from kleval.models.checkpoint.config_json import ARCHITECTURE, MODEL_TYPE
from kleval.models.config import ModelConfig


def cannot_hold(config: ModelConfig) -> str | None:
    """Why transformers' Kimi Linear cannot be this model; None when it can."""
    if "gdn" in config.layer_mixers:
        return "it has no GDN layers"
    if "mla" in config.layer_mixers and not config.mla_use_nope:
        return "its MLA layers do not rotate (NoPE)"
    if config.kda_gate_lower_bound is not None or config.kda_full_rank_gate:
        return "its KDA has neither a gate with a lower bound nor one of full rank"
    if config.num_experts and not config.num_shared_experts and config.first_k_dense_replace < config.num_hidden_layers:
        return "its expert layers always have a shared expert"
    return None


def transformers_config(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """config.json as transformers reads it, and as vLLM and llama.cpp need it besides (linear_attn_config, first_k_dense_replace)."""
    layers = config.num_hidden_layers
    dense = config.first_k_dense_replace if config.num_experts else layers
    experts = config.num_experts or 1
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "dtype": dtype,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": layers,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": False,
        "model_max_length": config.max_position_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_attention_heads,
        "q_lora_rank": None,
        "kv_lora_rank": config.kv_lora_rank,
        "qk_nope_head_dim": config.qk_nope_head_dim,
        "qk_rope_head_dim": config.qk_rope_head_dim,
        "v_head_dim": config.v_head_dim,
        "mla_use_nope": True,
        "rope_theta": config.rope_theta,
        "linear_attn_config": {
            "kda_layers": list(config.kda_layers),
            "full_attn_layers": list(config.full_attn_layers),
            "head_dim": config.kda_head_dim,
            "num_heads": config.kda_num_heads,
            "short_conv_kernel_size": config.short_conv_kernel_size,
        },
        "layer_types": ["linear_attention" if mixer == "kda" else "full_attention" for mixer in config.layer_mixers],
        "linear_head_dim": config.kda_head_dim,
        "linear_num_heads": config.kda_num_heads,
        "linear_conv_kernel_dim": config.short_conv_kernel_size,
        "first_k_dense_replace": dense,
        "mlp_layer_types": ["dense" if layer < dense else "sparse" for layer in range(layers)],
        "moe_layer_freq": 1,
        "num_experts": experts,
        "num_experts_per_token": config.num_experts_per_token or 1,
        "num_shared_experts": config.num_shared_experts,
        "moe_intermediate_size": config.moe_intermediate_size or 1,
        "moe_router_activation_func": "sigmoid",
        "moe_renormalize": True,
        "routed_scaling_factor": config.routed_scaling_factor,
        "use_grouped_topk": True,
        "num_expert_group": 1,
        "topk_group": 1,
        "num_nextn_predict_layers": 0,
    }
