"""One token per row on a CPU: a block as few operations on [B, ...] tensors, since each costs its call whatever its size.

The same function as the modules' `forward`. What is spared: views and module calls, products of the same input (one matrix for all
projections), copies (recurrent states are updated in place), additions to the residual stream (made by the last product), and with
one row the sorting of tokens by expert: the chosen experts' matrices are used where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kleval.models.attention import LatentAttention
from kleval.models.cache import LatentState, RecurrentState
from kleval.models.derived import Derived
from kleval.models.layers import MLP, Block, SparseMoE
from kleval.models.linear_attention import LinearAttention
from kleval.models.modules import RMSNorm
from kleval.ops import mla
from kleval.ops.moe import route, sparse_experts
from kleval.ops.norm import L2_EPS, rms_norm

State = LatentState | RecurrentState
Norm = Callable[[Tensor], Tensor]
# [B, hidden], state, positions [B, 1] -> [B, hidden]
Step = Callable[[Tensor, State, Tensor], Tensor]


class SingleToken:
    """The decode steps of a decoder's blocks."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = [_derived(block) for block in blocks]

    def ready(self) -> list[tuple[Step, Step] | None]:
        """Of each block the mixer and the MLP, residual sum included; None where its parameters want gradients."""
        return [block.get() for block in self._blocks]

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A copied or pickled decoder makes its own again."""
        return type(None), ()


def _derived(block: Block) -> Derived[tuple[Step, Step]]:
    names = [name for name, _ in block.named_parameters()]
    return Derived(block, names, lambda: (_mixer(block), _mlp(block)))


def _mixer(block: Block) -> Step:
    mixer, norm = block.self_attn, _norm(block.input_layernorm)
    if isinstance(mixer, LatentAttention):
        return _latent(mixer, norm)
    assert isinstance(mixer, LinearAttention)
    weights = _linear_weights(mixer)

    def linear(x: Tensor, state: State, positions: Tensor) -> Tensor:
        assert isinstance(state, RecurrentState)
        return _linear_step(weights, x, norm(x), state)

    return linear


def _norm(norm: RMSNorm) -> Norm:
    """RMSNorm of [B, D] over D."""
    weight, share = norm.weight.detach(), 1.0 / len(norm.weight)
    if weight.dtype not in (torch.float32, torch.float64):
        return lambda x: rms_norm(x, weight, norm.eps)
    eps = torch.full((), norm.eps, dtype=weight.dtype)

    def narrow(x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return (x * torch.addcmul(eps, size, size, value=share).rsqrt_()).mul_(weight)

    return narrow


def _latent(mixer: LatentAttention, norm: Norm) -> Step:
    heads, rank, nope = mixer.heads, mixer.rank, mixer.nope
    inputs = torch.cat([mixer.q_proj.weight, mixer.kv_a_proj_with_mqa.weight]).t()
    sizes = (len(mixer.q_proj.weight), rank, mixer.rope)
    latent_norm, output = _norm(mixer.kv_a_layernorm), mixer.o_proj.weight.detach().t()
    kv_b = mixer.kv_b_proj.weight.detach().view(heads, -1, rank)

    def step(x: Tensor, state: State, positions: Tensor) -> Tensor:
        assert isinstance(state, LatentState)
        q, latent, rope = torch.mm(norm(x), inputs).split_with_sizes(sizes, 1)
        q = q.view(len(x), 1, heads, -1)
        if mixer.theta is not None:
            rope = mla.apply_rope(rope.view(len(x), 1, 1, -1), positions, mixer.theta).view(len(x), -1)
            q = torch.cat([q[..., :nope], mla.apply_rope(q[..., nope:], positions, mixer.theta)], -1)
        counts = state.counts(1)
        state.write(torch.cat([latent_norm(latent), rope], 1).unsqueeze(1))
        o = mla.cached_attention(q, state.rows(), counts, kv_b, nope, mixer.scale)
        return torch.addmm(x, o.reshape(len(x), -1), output)

    return step


@dataclass(frozen=True, slots=True)
class _LinearWeights:
    """Matrices transposed, inputs first. inputs: q, k and v; f; g_a; b, as `LinearAttention` concatenates them."""

    heads: int
    dim: int
    inputs: Tensor
    sizes: tuple[int, int, int, int]
    taps: Tensor  # [W, 3 H D]
    forget: Tensor | None  # f_b
    bias: Tensor
    rate: Tensor
    gate: Tensor  # g_b
    norm: Tensor  # o_norm
    eps: Tensor  # of queries' and keys' norm
    output_eps: Tensor
    output: Tensor


def _linear_weights(mixer: LinearAttention) -> _LinearWeights:
    inputs = mixer.inputs()
    assert inputs is not None
    return _LinearWeights(
        mixer.heads,
        mixer.dim,
        inputs.weight.t(),
        inputs.sizes,
        inputs.taps.squeeze(1).t(),
        None if mixer.per_head else mixer.f_b_proj.weight.detach().t(),
        inputs.bias,
        inputs.rate.view(-1, 1),
        mixer.g_b_proj.weight.detach().t(),
        mixer.o_norm.weight.detach(),
        inputs.bias.new_full((), L2_EPS),
        inputs.bias.new_full((), mixer.eps * mixer.dim),
        mixer.o_proj.weight.detach().t(),
    )


def _linear_step(w: _LinearWeights, x: Tensor, normed: Tensor, state: RecurrentState) -> Tensor:
    """x [B, hidden] plus the mixer's output; the state's tensors are updated in place or replaced."""
    batch, heads, dim = len(x), w.heads, w.dim
    pairs = batch * heads
    qkv, f, low, b = torch.mm(normed, w.inputs).split_with_sizes(w.sizes, 1)
    window = torch.cat([state.conv.transpose(1, 2), qkv.unsqueeze(1)], 1)  # [B, W, 3 H D]
    state.conv = window[:, 1:].clone().transpose(1, 2)
    qkv = F.silu((window * w.taps).sum(1), inplace=True)
    if w.forget is not None:
        f = torch.mm(f, w.forget)
    gate = torch.mm(low, w.gate)
    recurrent = state.recurrent
    if recurrent.dtype != x.dtype:
        qkv, b, gate = qkv.to(recurrent.dtype), b.to(recurrent.dtype), gate.to(recurrent.dtype)
    if recurrent.is_inference() and not torch.is_inference_mode_enabled():
        recurrent = state.recurrent = recurrent.clone()  # it may not be written to out here
    s = recurrent.view(pairs, dim, dim)
    qkv = qkv.view(batch, 3, heads, dim).transpose(0, 1).reshape(3, pairs, 1, dim)
    size = torch.linalg.vector_norm(qkv[:2], dim=3, keepdim=True)
    inverse_q, inverse_k = torch.addcmul(w.eps, size, size).rsqrt_().unbind()
    q, k, v = qkv.unbind()
    k = k * inverse_k
    s.mul_(F.softplus(w.bias + f).view(batch, heads, -1).mul_(w.rate).exp_().view(pairs, -1, 1))
    error = (v - torch.bmm(k, s)).mul_(torch.sigmoid(b).view(pairs, 1, 1))
    s.baddbmm_(k.transpose(1, 2), error)
    # The queries' scale dim^-1/2 is left out: under the norm that follows it comes to dim times the epsilon.
    o = torch.bmm(q, s).mul_(inverse_q)
    size = torch.linalg.vector_norm(o, dim=2, keepdim=True)
    o.mul_(torch.addcmul(w.output_eps, size, size, value=1.0 / dim).rsqrt_()).mul_(w.norm)
    o = o.view(batch, -1).mul_(gate.sigmoid_())
    return torch.addmm(x, o if o.dtype == x.dtype else o.to(x.dtype), w.output)


def _mlp(block: Block) -> Step:
    norm = _norm(block.post_attention_layernorm)
    mlp = block.block_sparse_moe if block.sparse else block.mlp
    add = _experts(mlp) if isinstance(mlp, SparseMoE) else _dense(mlp)

    def step(x: Tensor, state: State, positions: Tensor) -> Tensor:
        return add(x, norm(x))

    return step


def _dense(mlp: MLP) -> Callable[[Tensor, Tensor], Tensor]:
    gate_up = mlp.gate_up()
    assert gate_up is not None
    first, last = gate_up.t(), mlp.down_proj.weight.detach().t()

    def add(x: Tensor, normed: Tensor) -> Tensor:
        gate, up = torch.mm(normed, first).chunk(2, 1)
        return torch.addmm(x, F.silu(gate).mul_(up), last)

    return add


def _experts(moe: SparseMoE) -> Callable[[Tensor, Tensor], Tensor]:
    gate, bias = moe.gate.weight.detach(), moe.gate.e_score_correction_bias.detach()
    wide = torch.float64 if gate.dtype == torch.float64 else torch.float32
    wide_gate, wide_bias = gate.to(wide).t(), bias.to(wide)
    gate_up, down = moe.experts.gate_up_proj.detach(), moe.experts.down_proj.detach()
    first, last = list(gate_up.transpose(1, 2).unbind()), list(down.transpose(1, 2).unbind())
    shared = None if moe.shared_experts is None else _dense(moe.shared_experts)
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
