"""The layers of the decoder: dense and sparse MLPs, one block around a mixer and one of them.

Parameter names are the published ones (`self_attn.q_proj.weight`, `self_attn.A_log` stored [1, 1, H, 1], ...), as vLLM reads them.
Deviation: routed experts are stacked (`block_sparse_moe.experts.gate_up_proj` [E, 2 I, h], `.down_proj` [E, h, I]) instead of
one pair of matrices per expert. The mixers are in `linear_attention` (KDA, GDN) and `attention` (MLA).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kleval.models.attention import LatentAttention
from kleval.models.cache import LatentState, RecurrentState
from kleval.models.config import ModelConfig
from kleval.models.derived import Derived
from kleval.models.linear_attention import LinearAttention
from kleval.models.modules import RMSNorm, linear
from kleval.ops.moe import route, sparse_experts, swiglu


class MLP(nn.Module):
    """Dense SwiGLU."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = linear(hidden, inner), linear(hidden, inner)
        self.down_proj = linear(inner, hidden)
        self._gate_up: Derived[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        gate_up = None if x.requires_grad else self.gate_up()
        if gate_up is None:
            return swiglu(x, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)
        gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
        return F.linear(F.silu(gate).mul_(up), self.down_proj.weight)

    def gate_up(self) -> Tensor | None:
        """Both matrices in one, [2 I, h]; None where they want a gradient."""
        if self._gate_up is None:
            names = ["gate_proj.weight", "up_proj.weight"]
            self._gate_up = Derived(self, names, lambda: torch.cat([self.gate_proj.weight, self.up_proj.weight]))
        return self._gate_up.get()


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
