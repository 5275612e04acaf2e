"""The KDA and GDN mixer: projections, short convolutions, gates, the delta rule, gated norm, output projection.

Parameter names are the published ones of KDA, as vLLM reads them; with a full-rank output gate `g_proj` (hidden -> H D) stands in place
of the two g matrices, as in Kimi K3. GDN has no published checkpoint here: it is KDA with `f_proj`
(hidden -> H) in place of the two f matrices, `A_log` and `dt_bias` of shape [H].

Everything that reads the layer's input is one matrix product in inference (`Inputs`); in training the same matrices stay apart.
One token per row, the decode step, has its own forms: on a CPU in place on the state, with as few operations as there are, because
each costs its call (`linear_step`); on CUDA the kernels of `ops.kda_triton` and `ops.linear_triton` where there are any
(`kernel_step`, and `linear_prefill` for a prompt, with few passes over memory).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kleval.models.attention import Step
from kleval.models.cache import RecurrentState, State
from kleval.models.config import ModelConfig
from kleval.models.modules import RMSNorm, linear
from kleval.models.packed_weights import Packed
from kleval.ops.available import usable
from kleval.ops.gdn import chunk_gdn, step_gdn
from kleval.ops.kda import chunk_kda, log_decay, step_kda
from kleval.ops.norm import L2_EPS, gated_rms_norm, l2_norm
from kleval.ops.short_conv import short_conv


@dataclass(frozen=True, slots=True)
class Inputs:
    """What inference derives from the parameters. weight [sum sizes, hidden]: q, k and v; f (KDA: f_a); g_a or g; b."""

    weight: Tensor
    sizes: tuple[int, int, int, int]
    taps: Tensor  # [3 H D, 1, W], memory as [W, 3 H D]
    rate: Tensor  # -exp(A_log), [H, 1] (KDA) or [H] (GDN), float32 or wider
    bias: Tensor  # dt_bias, float32 or wider


class LinearAttention(nn.Module):
    """KDA, or GDN when per_head."""

    def __init__(self, config: ModelConfig, per_head: bool) -> None:
        super().__init__()
        hidden, heads, dim = config.hidden_size, config.kda_num_heads, config.kda_head_dim
        inner, width = heads * dim, config.short_conv_kernel_size
        self.heads, self.dim, self.per_head, self.eps = heads, dim, per_head, config.rms_norm_eps
        self.full_rank_gate = config.kda_full_rank_gate
        self.lower_bound = None if per_head else config.kda_gate_lower_bound
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
        if self.full_rank_gate:
            self.g_proj = linear(hidden, inner)
        else:
            self.g_a_proj, self.g_b_proj = linear(hidden, dim), linear(dim, inner)
        self.o_norm = RMSNorm(dim, config.rms_norm_eps)
        self.o_proj = linear(inner, hidden)
        self._inputs: Packed[Inputs] | None = None

    def forward(self, x: Tensor, state: RecurrentState | None, valid: Tensor | None, lengths: Tensor | None) -> Tensor:
        """x [B, T, hidden] -> [B, T, hidden]; valid [B, T] marks real tokens, lengths [B] counts them; state is advanced."""
        if state is not None and x.shape[1] > 1 and not torch.is_grad_enabled() and usable("step", x.device):
            fused = linear_prefill(self, x, state, valid, lengths)
            if fused is not None:
                return fused
        wide = self._wide(x)
        inputs = None if x.requires_grad else self.inputs()
        if inputs is None:
            projections = (self.q_proj, self.k_proj, self.v_proj)
            qkv = F.linear(x, torch.cat([p.weight for p in projections]))
            taps = torch.cat([c.weight for c in (self.q_conv1d, self.k_conv1d, self.v_conv1d)])
            g, b, low = self.decay(x), self.b_proj(x), self.gate_proj(x)
        else:
            qkv, f, low, b = F.linear(x, inputs.weight).split_with_sizes(inputs.sizes, -1)
            taps, g = inputs.taps, self._decay(f, inputs)
        beta = torch.sigmoid(b.to(wide))
        one = inputs is not None and state is not None and x.shape[1] == 1 and lengths is None
        qkv, tail = short_conv(qkv, taps, None if state is None else state.conv, lengths)
        if valid is not None:
            g = g.masked_fill(~valid.view(*valid.shape, *[1] * (g.dim() - 2)), 0.0)
            beta = beta.masked_fill(~valid.unsqueeze(-1), 0.0)
        heads = qkv.unflatten(-1, (3, self.heads, self.dim))
        qk = l2_norm(heads[:, :, :2])
        q, k, v = qk[:, :, 0], qk[:, :, 1], heads[:, :, 2]
        if one:
            assert state is not None
            recurrent = state.recurrent
            if recurrent.is_inference() and not torch.is_inference_mode_enabled():
                recurrent = recurrent.clone()
            o, final = (step_gdn if self.per_head else step_kda)(q, k, v, g, beta, recurrent)
        else:
            o, final = self.rule(q, k, v, g, beta, None if state is None else state.recurrent)
        if state is not None:
            state.set(final, tail)
        gate = self.output_gate(low).unflatten(-1, (self.heads, self.dim))
        return self.o_proj(gated_rms_norm(o, self.o_norm.weight, gate, self.eps).flatten(-2))

    @property
    def gate_proj(self) -> nn.Linear:
        """The matrix of the output gate that reads the layer's input."""
        return self.g_proj if self.full_rank_gate else self.g_a_proj

    def output_gate(self, low: Tensor) -> Tensor:
        """The output gate, before its sigmoid, from what `gate_proj` gives: [..., H D]."""
        return low if self.full_rank_gate else F.linear(low, self.g_b_proj.weight)

    def rule(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The delta rule over a prompt."""
        if self.per_head:
            return chunk_gdn(q, k, v, g, beta, state)
        return chunk_kda(q, k, v, g, beta, state, lower_bound=self.lower_bound)

    def decay(self, x: Tensor) -> Tensor:
        """Log-decay g (`ops.kda.log_decay`), float32: [B, T, H, D] for KDA, [B, T, H] for GDN."""
        wide = self._wide(x)
        f = self.f_proj(x) if self.per_head else self.f_b_proj(self.f_a_proj(x))
        f = f.to(wide) + self.dt_bias.to(wide)
        rate = -self.A_log.to(wide).exp()
        return log_decay(f if self.per_head else f.unflatten(-1, (self.heads, self.dim)), rate, self.lower_bound)

    def _decay(self, f: Tensor, inputs: Inputs) -> Tensor:
        """`decay` from the product with `Inputs.weight`."""
        if not self.per_head:
            f = F.linear(f, self.f_b_proj.weight)
        f = inputs.bias + f
        return log_decay(f if self.per_head else f.unflatten(-1, (self.heads, self.dim)), inputs.rate, self.lower_bound)

    def inputs(self) -> Inputs | None:
        """Up to date; None where a parameter wants a gradient."""
        if self._inputs is None:
            first = ["f_proj"] if self.per_head else ["f_a_proj"]
            names = ["q_proj", "k_proj", "v_proj", *first, "g_proj" if self.full_rank_gate else "g_a_proj", "b_proj"]
            names += ["q_conv1d", "k_conv1d", "v_conv1d"]
            self._inputs = Packed(self, [*(f"{n}.weight" for n in names), "A_log", "dt_bias"], self._make_inputs)
        return self._inputs.get()

    def _make_inputs(self) -> Inputs:
        inner, f = self.heads * self.dim, self.f_proj if self.per_head else self.f_a_proj
        parts = [p.weight for p in (self.q_proj, self.k_proj, self.v_proj, f, self.gate_proj, self.b_proj)]
        taps = torch.cat([c.weight for c in (self.q_conv1d, self.k_conv1d, self.v_conv1d)])
        wide = self._wide(parts[0])
        rate = -self.A_log.to(wide).exp()
        return Inputs(
            torch.cat(parts),
            (3 * inner, len(parts[3]), len(parts[4]), self.heads),
            taps.squeeze(1).t().contiguous().t().unsqueeze(1),
            rate.view(-1) if self.per_head else rate.view(-1, 1),
            self.dt_bias.to(wide, copy=True),
        )

    @staticmethod
    def _wide(x: Tensor) -> torch.dtype:
        return torch.float64 if x.dtype == torch.float64 else torch.float32


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
    o, final = layer.rule(q, k, v, g, beta, state.recurrent)
    state.set(final, _tail_after(qkv, state.conv, lengths))
    gate = layer.output_gate(low).flatten(0, 1)
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


def kernel_step(layer: LinearAttention, x: Tensor, state: RecurrentState) -> Tensor:
    """The decode step through the Triton kernels of `ops`: x [B, hidden] -> [B, hidden]; the state is updated in place."""
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
    channels = not layer.per_head
    o = kda_triton.raw_step(q, k, v, f, b, rates, bias, state.recurrent, channels, layer.lower_bound)
    gate = layer.output_gate(low)
    return F.linear(linear_triton.gated_norm_step(o, layer.o_norm.weight, gate, layer.eps), layer.o_proj.weight)


def linear_step(mixer: LinearAttention, norm: Callable[[Tensor], Tensor]) -> Step:
    """The decode step on a CPU, one token per row: [B, hidden] plus the mixer of its norm.

    What is spared: views and module calls, products of the same input (one matrix for all projections), copies (the state is updated
    in place), the addition to the residual stream (made by the last product).
    """
    weights = _linear_weights(mixer)

    def step(x: Tensor, state: State, positions: Tensor) -> Tensor:
        assert isinstance(state, RecurrentState)
        return _linear_step(weights, x, norm(x), state)

    return step


@dataclass(frozen=True, slots=True)
class _LinearWeights:
    """Matrices transposed, inputs first. inputs: q, k and v; f; g_a or g; b, as `LinearAttention` concatenates them."""

    heads: int
    dim: int
    inputs: Tensor
    sizes: tuple[int, int, int, int]
    taps: Tensor  # [W, 3 H D]
    forget: Tensor | None  # f_b
    bias: Tensor
    rate: Tensor
    lower_bound: float | None
    gate: Tensor | None  # g_b, where the gate is of low rank
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
        mixer.lower_bound,
        None if mixer.full_rank_gate else mixer.g_b_proj.weight.detach().t(),
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
    gate = low if w.gate is None else torch.mm(low, w.gate)
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
    s.mul_(log_decay((w.bias + f).view(batch, heads, -1), w.rate, w.lower_bound).exp_().view(pairs, -1, 1))
    error = (v - torch.bmm(k, s)).mul_(torch.sigmoid(b).view(pairs, 1, 1))
    s.baddbmm_(k.transpose(1, 2), error)
    # The queries' scale dim^-1/2 is left out: under the norm that follows it comes to dim times the epsilon.
    o = torch.bmm(q, s).mul_(inverse_q)
    size = torch.linalg.vector_norm(o, dim=2, keepdim=True)
    o.mul_(torch.addcmul(w.output_eps, size, size, value=1.0 / dim).rsqrt_()).mul_(w.norm)
    o = o.view(batch, -1).mul_(gate.sigmoid())
    return torch.addmm(x, o if o.dtype == x.dtype else o.to(x.dtype), w.output)
