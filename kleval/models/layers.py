"""Layers of the decoder: dense and sparse MLPs, one block around a mixer and one of them.

Parameter names are the published ones (`self_attn.q_proj.weight`, `self_attn.A_log` stored [1, 1, H, 1], ...), as vLLM reads them.
Deviation: routed experts are stacked (`block_sparse_moe.experts.gate_up_proj` [E, 2 I, h], `.down_proj` [E, h, I]) instead of
one pair of matrices per expert. The mixers are in `linear_attention` (KDA, GDN) and `attention` (MLA).

One token per row has forms of its own: on a CPU as few operations on [B, ...] tensors as there can be, since each costs its call
whatever its size (`Block.steps`; with one row the chosen experts' matrices are used where they lie), on CUDA few launches
(`kernel_moe`). The same function as `forward` up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kleval.models.attention import LatentAttention, Step, latent_step
from kleval.models.cache import State
from kleval.models.config import ModelConfig
from kleval.models.linear_attention import LinearAttention, linear_step
from kleval.models.modules import RMSNorm, linear, row_norm
from kleval.models.packed_weights import Packed
from kleval.ops.available import usable
from kleval.ops.grouped import FEW_TOKENS, grouped_experts
from kleval.ops.moe import route, sparse_experts, swiglu

# What the residual stream [B, hidden] is with the MLP of its norm [B, hidden] added.
Add = Callable[[Tensor, Tensor], Tensor]


class MLP(nn.Module):
    """Dense SwiGLU."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = linear(hidden, inner), linear(hidden, inner)
        self.down_proj = linear(inner, hidden)
        self._gate_up: Packed[Tensor] | None = None

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
            self._gate_up = Packed(self, names, lambda: torch.cat([self.gate_proj.weight, self.up_proj.weight]))
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
        self._steps: Packed[tuple[Step, Step]] | None = None

    def forward(
        self,
        x: Tensor,
        state: State | None,
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

    def steps(self) -> tuple[Step, Step] | None:
        """The decode step on a CPU: mixer and MLP, residual sum included; None where the parameters want gradients."""
        if self._steps is None:
            names = [name for name, _ in self.named_parameters()]
            self._steps = Packed(self, names, lambda: (_mixer_step(self), _mlp_step(self)))
        return self._steps.get()


def _mixer_step(block: Block) -> Step:
    mixer, norm = block.self_attn, row_norm(block.input_layernorm)
    if isinstance(mixer, LatentAttention):
        return latent_step(mixer, norm)
    assert isinstance(mixer, LinearAttention)
    return linear_step(mixer, norm)


def _mlp_step(block: Block) -> Step:
    norm = row_norm(block.post_attention_layernorm)
    mlp = block.block_sparse_moe if block.sparse else block.mlp
    add = _experts_step(mlp) if isinstance(mlp, SparseMoE) else _dense_step(mlp)

    def step(x: Tensor, state: State, positions: Tensor) -> Tensor:
        return add(x, norm(x))

    return step


def _dense_step(mlp: MLP) -> Add:
    gate_up = mlp.gate_up()
    assert gate_up is not None
    first, last = gate_up.t(), mlp.down_proj.weight.detach().t()

    def add(x: Tensor, normed: Tensor) -> Tensor:
        gate, up = torch.mm(normed, first).chunk(2, 1)
        return torch.addmm(x, F.silu(gate).mul_(up), last)

    return add


def _experts_step(moe: SparseMoE) -> Add:
    gate, bias = moe.gate.weight.detach(), moe.gate.e_score_correction_bias.detach()
    wide = torch.float64 if gate.dtype == torch.float64 else torch.float32
    wide_gate, wide_bias = gate.to(wide).t(), bias.to(wide)
    gate_up, down = moe.experts.gate_up_proj.detach(), moe.experts.down_proj.detach()
    first, last = list(gate_up.transpose(1, 2).unbind()), list(down.transpose(1, 2).unbind())
    shared = None if moe.shared_experts is None else _dense_step(moe.shared_experts)
    always: list[int] = []
    if moe.shared_experts is not None and moe.shared_experts.down_proj.weight.shape == down.shape[1:]:
        # As wide as a routed expert: with one row it is one more of them, chosen always, with weight 1.
        always = [len(first)]
        first.append(moe.shared_experts.gate_up().t())  # type: ignore[union-attr]
        last.append(moe.shared_experts.down_proj.weight.detach().t())

    def add(x: Tensor, normed: Tensor) -> Tensor:
        if shared is not None and (len(x) > 1 or not always):
            x = shared(x, normed)
        if len(x) > 1:
            weights, experts = route(normed, gate, bias, moe.top_k, moe.scaling)
            return x + sparse_experts(normed, weights, experts, gate_up, down)
        scores = torch.mm(normed if normed.dtype == wide else normed.to(wide), wide_gate).sigmoid_()
        chosen = (scores + wide_bias).topk(moe.top_k).indices[0].tolist()
        every = scores[0].tolist()
        weights_list = [every[e] for e in chosen]
        factor = moe.scaling / (sum(weights_list) + 1e-20)
        chosen += always
        inner, outer = torch.cat([torch.mm(normed, first[e]) for e in chosen]).chunk(2, 1)
        inner = F.silu(inner).mul_(outer)
        shares = [weight * factor for weight in weights_list] + [1.0] * len(always)
        for row, expert, share in zip(inner.split_with_sizes([1] * len(chosen)), chosen, shares, strict=True):
            x = torch.addmm(x, row, last[expert], alpha=share)
        return x

    return add


def kernel_moe(moe: SparseMoE, x: Tensor) -> Tensor:
    """Routed experts and the shared one through the device's kernels: x [N, hidden] -> [N, hidden]."""
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
