"""A decode step with few launches: `Decoder.hidden` for one token per row, through the Triton kernels of `ops`; and a linear
layer's prompt with few passes over memory.

At batch 1 and 48b-a3b a layer's bytes take about 50 microseconds, and each launch of a small kernel 2 or more of its own. Here a
linear layer takes 8 launches instead of some 35 (norm with the residual sum, one product for all that reads the input, convolution,
two low-rank products, delta rule with its gates, gated norm, output product), a sparse MLP of few tokens 5: norm, router, choice,
and one launch per projection for routed and shared experts. MLA layers are called as they are, and so is what a kernel does not fit.

The same function up to rounding, and less of that: gates and norms are not rounded to the activations' dtype in between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kleval.models.cache import HybridCache, RecurrentState
from kleval.models.decoder import Decoder
from kleval.models.layers import MLP, Block, SparseMoE
from kleval.models.linear_attention import LinearAttention
from kleval.ops.available import usable
from kleval.ops.gdn import chunk_gdn
from kleval.ops.grouped import FEW_TOKENS, grouped_experts
from kleval.ops.kda import chunk_kda
from kleval.ops.moe import route


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
            more = _linear_attention(block.self_attn, normed, state)
        else:
            more = block.self_attn(normed.unsqueeze(1), state, positions).squeeze(1).contiguous()
        normed = add_norm(x, more, block.post_attention_layernorm.weight, decoder.config.rms_norm_eps)
        more = _sparse(block.block_sparse_moe, normed) if block.sparse else _dense(block.mlp, normed)
    hidden = add_norm(x, more, decoder.model.norm.weight, decoder.config.rms_norm_eps)
    cache.advance(1)
    return hidden


def _linear_attention(layer: LinearAttention, x: Tensor, state: RecurrentState) -> Tensor:
    """x [B, hidden] -> [B, hidden]; the state is updated in place."""
    from kleval.ops import kda_triton, linear_triton

    inputs = layer.inputs()
    if inputs is None or not state.recurrent.is_contiguous():
        y: Tensor = layer(x.unsqueeze(1), state, None, None).squeeze(1)
        return y.contiguous()
    qkv, f, low, b = F.linear(x, inputs.weight).split_with_sizes(inputs.sizes, -1)
    q, k, v = linear_triton.conv_step(qkv, inputs.taps.squeeze(1), state.conv).chunk(3, dim=-1)
    if not layer.per_head:
        f = F.linear(f, layer.f_b_proj.weight)
    rates, bias = layer.A_log.view(-1), layer.dt_bias
    o = kda_triton.raw_step(q, k, v, f, b, rates, bias, state.recurrent, per_channel=not layer.per_head)
    gate = F.linear(low, layer.g_b_proj.weight)
    return F.linear(linear_triton.gated_norm_step(o, layer.o_norm.weight, gate, layer.eps), layer.o_proj.weight)


def linear_prefill(
    layer: LinearAttention, x: Tensor, state: RecurrentState, valid: Tensor | None, lengths: Tensor | None
) -> Tensor | None:
    """`LinearAttention.forward` for several tokens, without gradient: what is between products and delta rule in two kernels.

    None where the parameters want a gradient: then nothing has happened.
    """
    from kleval.ops import linear_triton

    inputs = layer.inputs()
    if inputs is None:
        return None
    batch, tokens, _ = x.shape
    qkv, f, low, b = F.linear(x, inputs.weight).split_with_sizes(inputs.sizes, -1)
    q, k, v = linear_triton.prepare(qkv, inputs.taps.squeeze(1), state.conv, layer.heads)
    g, beta = layer._decay(f, inputs), torch.sigmoid(b.to(state.recurrent.dtype))
    if valid is not None:
        g = g.masked_fill(~valid.view(batch, tokens, *[1] * (g.dim() - 2)), 0.0)
        beta = beta.masked_fill(~valid.unsqueeze(-1), 0.0)
    o, final = (chunk_gdn if layer.per_head else chunk_kda)(q, k, v, g, beta, state.recurrent)
    state.set(final, _tail_after(qkv, state.conv, lengths))
    gate = F.linear(low, layer.g_b_proj.weight).flatten(0, 1)
    y = linear_triton.gated_norm_step(o.flatten(0, 1).contiguous(), layer.o_norm.weight, gate, layer.eps)
    return F.linear(y, layer.o_proj.weight).view(batch, tokens, -1)


def _tail_after(x: Tensor, tail: Tensor, lengths: Tensor | None) -> Tensor:
    """The last W - 1 inputs after x [B, T, D] with tail [B, D, W - 1] before it; lengths [B]: tokens of x that are real."""
    width, tokens = tail.shape[-1], x.shape[1]
    before = tail.transpose(1, 2).to(x.dtype)
    if lengths is None:
        last = x[:, -width:] if tokens >= width else torch.cat([before, x], 1)[:, -width:]
        return last.transpose(1, 2)
    at = lengths[:, None] + torch.arange(
        -width, 0, device=x.device
    )  # [B, W - 1] positions in x, negative ones in the tail
    channels = x.shape[2]

    def pick(source: Tensor, index: Tensor) -> Tensor:
        return source.gather(1, index.clamp(0, source.shape[1] - 1)[..., None].expand(-1, -1, channels))

    return torch.where((at < 0)[..., None], pick(before, at + width), pick(x, at)).transpose(1, 2)


def _dense(mlp: MLP, x: Tensor) -> Tensor:
    y: Tensor = mlp(x)
    return y.contiguous()


def _sparse(moe: SparseMoE, x: Tensor) -> Tensor:
    """x [N, hidden] -> [N, hidden]: routed experts and the shared one."""
    gate, bias, experts, shared = moe.gate.weight, moe.gate.e_score_correction_bias, moe.experts, moe.shared_experts
    few = len(x) <= FEW_TOKENS
    if few and usable("router", x.device):
        from kleval.ops.moe_triton import decode_route

        weights, chosen = decode_route(x, gate, bias, moe.top_k, moe.scaling)
    else:
        weights, chosen = route(x, gate, bias, moe.top_k, moe.scaling)
    if few and shared is not None and usable("experts_decode", x.device):
        from kleval.ops import moe_triton

        alike = shared.down_proj.weight.shape == experts.down_proj.shape[1:]
        if alike and moe_triton.fits(x, experts.gate_up_proj):
            three = (shared.gate_proj.weight, shared.up_proj.weight, shared.down_proj.weight)
            return moe_triton.decode_experts(x, weights, chosen, experts.gate_up_proj, experts.down_proj, three)
    y = grouped_experts(x, weights, chosen, experts.gate_up_proj, experts.down_proj)
    return y if shared is None else torch.add(y, shared(x))
