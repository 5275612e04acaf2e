"""Decode step with few launches: `Decoder.hidden` for one token per row, through the Triton kernels of `ops`.

At batch 1 and 48b-a3b a layer's bytes take about 50 microseconds, and each launch of a small kernel 2 or more of its own. Here a
linear layer takes 8 launches instead of some 35 (norm with the residual sum, one product for all that reads the input, convolution,
two low-rank products, delta rule with its gates, gated norm, output product), a sparse MLP of few tokens 5: norm, router, choice,
and one launch per projection for routed and shared experts. MLA layers are called as they are, and so is what a kernel does not fit.

The same function up to rounding, and less of that: gates and norms are not rounded to the activations' dtype in between.
"""

from __future__ import annotations

from torch import Tensor

from kleval.models.cache import HybridCache, RecurrentState
from kleval.models.decoder import Decoder
from kleval.models.layers import Block, kernel_moe
from kleval.models.linear_attention import LinearAttention, kernel_step
from kleval.ops.available import usable


def fusable(decoder: Decoder) -> bool:
    """Whether this decoder's device has the kernels."""
    return usable("step", decoder.model.embed_tokens.weight.device)


def fused_hidden(decoder: Decoder, ids: Tensor, cache: HybridCache) -> Tensor:
    """ids [B], one new token per row -> [B, hidden] after the final norm; the cache is advanced. No gradient.

    Nothing in it waits for the device or depends on what is there: it may be captured.
    """
    from kleval.ops.linear_triton import add_norm

    cache.begin(1)
    x = decoder.model.embed_tokens(ids) * decoder.config.embedding_multiplier
    positions = cache.lengths[:, None]
    more: Tensor | None = None
    for block, state in zip(decoder.model.layers, cache.layers, strict=True):
        assert isinstance(block, Block)
        normed = add_norm(x, more, block.input_layernorm.weight, decoder.config.rms_norm_eps)
        if isinstance(block.self_attn, LinearAttention):
            assert isinstance(state, RecurrentState)
            more = kernel_step(block.self_attn, normed, state)
        else:
            more = block.self_attn(normed.unsqueeze(1), state, positions).squeeze(1).contiguous()
        normed = add_norm(x, more, block.post_attention_layernorm.weight, decoder.config.rms_norm_eps)
        more = kernel_moe(block.block_sparse_moe, normed) if block.sparse else block.mlp(normed).contiguous()
    hidden = add_norm(x, more, decoder.model.norm.weight, decoder.config.rms_norm_eps)
    cache.advance(1)
    return hidden
