"""The layers of the decoder: KDA/GDN and MLA mixers, dense and sparse MLPs, one block around them.

Parameter names are the published ones (`self_attn.q_proj.weight`, `self_attn.A_log` stored [1, 1, H, 1], ...), as vLLM reads them.
Deviations: routed experts are stacked (`block_sparse_moe.experts.gate_up_proj` [E, 2 I, h], `.down_proj` [E, h, I]) instead of
one pair of matrices per expert; GDN has no published checkpoint here: it is KDA with `f_proj` (hidden -> H) in place of the two
f matrices, `A_log` and `dt_bias` of shape [H].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kleval.models.attention import LatentAttention
from kleval.models.cache import LatentState, RecurrentState
from kleval.models.config import ModelConfig
from kleval.models.modules import RMSNorm, linear
from kleval.ops.gdn import chunk_gdn
from kleval.ops.kda import chunk_kda
from kleval.ops.moe import route, sparse_experts, swiglu
from kleval.ops.norm import gated_rms_norm, l2_norm
from kleval.ops.short_conv import short_conv


class LinearAttention(nn.Module):
    """KDA, or GDN when per_head: projections, short convolutions, gates, the delta rule, gated norm, output projection."""

    def __init__(self, config: ModelConfig, per_head: bool) -> None:
        super().__init__()
        hidden, heads, dim = config.hidden_size, config.kda_num_heads, config.kda_head_dim
        inner, width = heads * dim, config.short_conv_kernel_size
        self.heads, self.dim, self.per_head, self.eps = heads, dim, per_head, config.rms_norm_eps
        self.q_proj, self.k_proj, self.v_proj = (linear(hidden, inner) for _ in range(3))
        self.q_conv1d, self.k_conv1d, self.v_conv1d = (
            nn.Conv1d(inner, inner, width, groups=inner, bias=False) for _ in range(3)
        )
        if per_head:
            self.f_proj = linear(hidden, heads)
        else:
            self.f_a_proj, self.f_b_proj = linear(hidden, dim), linear(dim, inner)
        self.A_log = nn.Parameter(torch.zeros(heads) if per_head else torch.zeros(1, 1, heads, 1))
        self.dt_bias = nn.Parameter(torch.zeros(heads if per_head else inner))
        self.b_proj = linear(hidden, heads)
        self.g_a_proj, self.g_b_proj = linear(hidden, dim), linear(dim, inner)
        self.o_norm = RMSNorm(dim, config.rms_norm_eps)
        self.o_proj = linear(inner, hidden)

    def forward(self, x: Tensor, state: RecurrentState | None, valid: Tensor | None, lengths: Tensor | None) -> Tensor:
        """x [B, T, hidden] -> [B, T, hidden]; valid [B, T] marks real tokens, lengths [B] counts them; state is advanced."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        qkv = F.linear(x, torch.cat([p.weight for p in projections]))
        taps = torch.cat([c.weight for c in (self.q_conv1d, self.k_conv1d, self.v_conv1d)])
        qkv, tail = short_conv(qkv, taps, None if state is None else state.conv, lengths)
        q, k, v = (y.unflatten(-1, (self.heads, self.dim)) for y in qkv.chunk(3, dim=-1))
        g, beta = self.decay(x), torch.sigmoid(self.b_proj(x).to(self._wide(x)))
        if valid is not None:
            g = g.masked_fill(~valid.view(*valid.shape, *[1] * (g.dim() - 2)), 0.0)
            beta = beta.masked_fill(~valid.unsqueeze(-1), 0.0)
        rule = chunk_gdn if self.per_head else chunk_kda
        o, final = rule(l2_norm(q), l2_norm(k), v, g, beta, None if state is None else state.recurrent)
        if state is not None:
            state.recurrent, state.conv = final, tail
        gate = self.g_b_proj(self.g_a_proj(x)).unflatten(-1, (self.heads, self.dim))
        return self.o_proj(gated_rms_norm(o, self.o_norm.weight, gate, self.eps).flatten(-2))

    def decay(self, x: Tensor) -> Tensor:
        """Log-decay g = -exp(A_log) softplus(f(x) + dt_bias), float32: [B, T, H, D] for KDA, [B, T, H] for GDN."""
        wide = self._wide(x)
        if self.per_head:
            return -self.A_log.to(wide).exp() * F.softplus(self.f_proj(x).to(wide) + self.dt_bias.to(wide))
        rate = F.softplus(self.f_b_proj(self.f_a_proj(x)).to(wide) + self.dt_bias.to(wide))
        return -self.A_log.to(wide).exp() * rate.unflatten(-1, (self.heads, self.dim))

    @staticmethod
    def _wide(x: Tensor) -> torch.dtype:
        return torch.float64 if x.dtype == torch.float64 else torch.float32


class MLP(nn.Module):
    """Dense SwiGLU."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = linear(hidden, inner), linear(hidden, inner)
        self.down_proj = linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return swiglu(x, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)


class Router(nn.Module):
    def __init__(self, hidden: int, experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts, hidden))
        self.e_score_correction_bias = nn.Parameter(torch.zeros(experts))


class Experts(nn.Module):
    def __init__(self, hidden: int, inner: int, experts: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(experts, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.zeros(experts, hidden, inner))


class SparseMoE(nn.Module):
    """Routed experts plus one shared MLP of num_shared_experts times their width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.moe_intermediate_size
        self.top_k, self.scaling = config.num_experts_per_token, config.routed_scaling_factor
        self.gate = Router(hidden, config.num_experts)
        self.experts = Experts(hidden, inner, config.num_experts)
        self.shared_experts = MLP(hidden, inner * config.num_shared_experts) if config.num_shared_experts else None

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        weights, experts = route(flat, self.gate.weight, self.gate.e_score_correction_bias, self.top_k, self.scaling)
        y = sparse_experts(flat, weights, experts, self.experts.gate_up_proj, self.experts.down_proj).view_as(x)
        return y if self.shared_experts is None else y + self.shared_experts(x)


class Block(nn.Module):
    """x + mixer(norm x), then x + mlp(norm x)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        mixer = config.layer_mixers[layer]
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn: nn.Module = (
            LatentAttention(config) if mixer == "mla" else LinearAttention(config, per_head=mixer == "gdn")
        )
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.sparse = config.is_moe(layer)
        if self.sparse:
            self.block_sparse_moe = SparseMoE(config)
        else:
            self.mlp = MLP(config.hidden_size, config.intermediate_size)

    def forward(
        self,
        x: Tensor,
        state: LatentState | RecurrentState | None,
        positions: Tensor,
        valid: Tensor | None,
        lengths: Tensor | None,
    ) -> Tensor:
        normed = self.input_layernorm(x)
        if isinstance(self.self_attn, LatentAttention):
            x = x + self.self_attn(normed, state, positions)
        else:
            x = x + self.self_attn(normed, state, valid, lengths)
        mlp = self.block_sparse_moe if self.sparse else self.mlp
        return x + mlp(self.post_attention_layernorm(x))
