"""Named sizes of a model, and the four architectures at each.

`48b-a3b` is the published shape (moonshotai/Kimi-Linear-48B-A3B-*, config.json at revision e1df551a): 27 layers, MLA in the last and
in every fourth. `1b` and `0.1b` are kleval's, with its proportions: the same heads (128; 128 + 64 for MLA's queries), 3:1, a dense
first layer, then experts of which an eighth is chosen (8 of 64, as in the paper's scaling study) and one is shared; tied
embeddings of a smaller vocabulary, scaled by sqrt(hidden) as in `nano`. NAMED are shapes of their own.
`nano` is the size that ships with weights: 4 dense layers.

At each size the architectures differ in mixers and positions alone; the paper gives no head configuration for its GDN-H and does
not say how its MLA baseline encodes positions.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from kleval.models.config import ARCHITECTURES, ModelConfig
from kleval.types import UsageError


def preset(
    architecture: str,
    size: str,
    vocab_size: int | None = None,
    eos_token_id: int | None = None,
    mla_use_nope: bool | None = None,
    rope_theta: float | None = None,
) -> ModelConfig:
    """The configuration of an architecture at one of SIZES, vocabulary and positions overridable.

    UsageError for names that are neither.
    """
    if architecture not in ARCHITECTURES:
        near = difflib.get_close_matches(architecture, ARCHITECTURES, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(ARCHITECTURES)}"
        raise UsageError(f"unknown architecture {architecture!r}: {hint}")
    if size not in SIZES:
        raise UsageError(f"unknown model size {size!r}: choose one of {', '.join(SIZES)}")
    config = SIZES[size]
    linear = "gdn" if architecture == "gdn-h" else "mla" if architecture == "mla" else "kda"
    nope = architecture in ("kimi-linear", "gdn-h") if mla_use_nope is None else mla_use_nope
    return replace(
        config,
        architecture=architecture,
        layer_mixers=tuple(linear if mixer == "kda" else mixer for mixer in config.layer_mixers),
        mla_use_nope=nope,
        rope_theta=config.rope_theta if rope_theta is None else rope_theta,
        vocab_size=config.vocab_size if vocab_size is None else vocab_size,
        eos_token_id=config.eos_token_id if eos_token_id is None else eos_token_id,
        bos_token_id=config.bos_token_id if vocab_size is None else None,
        pad_token_id=config.pad_token_id if vocab_size is None else None,
    )


_NANO = ModelConfig(
    architecture="kimi-linear",
    vocab_size=1536,
    hidden_size=128,
    layer_mixers=("kda", "kda", "kda", "mla"),
    kda_num_heads=2,
    kda_head_dim=64,
    num_attention_heads=4,
    qk_nope_head_dim=32,
    qk_rope_head_dim=32,
    v_head_dim=32,
    kv_lora_rank=96,
    mla_use_nope=True,
    intermediate_size=256,
    embedding_multiplier=128**0.5,
)

_0_1B = ModelConfig(
    architecture="kimi-linear",
    vocab_size=32768,
    hidden_size=512,
    layer_mixers=("kda", "kda", "kda", "mla") * 2,
    kda_num_heads=8,
    kda_head_dim=128,
    num_attention_heads=8,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    kv_lora_rank=256,
    mla_use_nope=True,
    intermediate_size=2048,
    num_experts=32,
    num_experts_per_token=4,
    num_shared_experts=1,
    moe_intermediate_size=192,
    routed_scaling_factor=2.446,
    first_k_dense_replace=1,
    embedding_multiplier=512**0.5,
)

_1B = replace(
    _0_1B,
    vocab_size=65536,
    hidden_size=1024,
    layer_mixers=("kda", "kda", "kda", "mla") * 4,
    kda_num_heads=16,
    num_attention_heads=16,
    kv_lora_rank=512,
    intermediate_size=4096,
    num_experts=64,
    num_experts_per_token=8,
    moe_intermediate_size=256,
    embedding_multiplier=32.0,
)

_FULL_ATTENTION_48B = (4, 8, 12, 16, 20, 24, 27)  # counted from 1, as published
_48B_A3B = replace(
    _1B,
    vocab_size=163840,
    hidden_size=2304,
    layer_mixers=tuple("mla" if layer in _FULL_ATTENTION_48B else "kda" for layer in range(1, 28)),
    kda_num_heads=32,
    num_attention_heads=32,
    intermediate_size=9216,
    num_experts=256,
    moe_intermediate_size=1024,
    tie_word_embeddings=False,
    embedding_multiplier=1.0,
    bos_token_id=163584,
    eos_token_id=163586,
    pad_token_id=163839,
)

# Kimi K3's layers at a sixteenth of its width (moonshotai/Kimi-K3, config.json; see published_configs): 96 heads of 128 over 7168
# become 6 over 448, 896 experts of 3072 become 56 of 192, three KDA layers to one MLA layer. Its KDA whole; what the decoder does not
# implement of the rest is named in K3_LEFT_OUT and left out.
K3_TINY = replace(
    _0_1B,
    hidden_size=448,
    kda_num_heads=6,
    num_attention_heads=6,
    intermediate_size=2112,
    num_experts=56,
    num_experts_per_token=1,
    num_shared_experts=2,
    routed_scaling_factor=1.0,
    kda_gate_lower_bound=-5.0,
    kda_full_rank_gate=True,
    embedding_multiplier=448**0.5,
)
K3_LEFT_OUT = (
    "q_lora_rank, mla_use_output_gate, routed_expert_hidden_size (latent experts), attn_res_block_size (attention residuals) and "
    "hidden_act situ"
)
NAMED: dict[str, ModelConfig] = {"kimi-k3@tiny": K3_TINY}

SIZES: dict[str, ModelConfig] = {"nano": _NANO, "0.1b": _0_1B, "1b": _1B, "48b-a3b": _48B_A3B}
