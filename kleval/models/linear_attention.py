"""The KDA and GDN mixer: projections, short convolutions, gates, the delta rule, gated norm, output projection.

Parameter names are the published ones of KDA, as vLLM reads them. GDN has no published checkpoint here: it is KDA with `f_proj`
(hidden -> H) in place of the two f matrices, `A_log` and `dt_bias` of shape [H].

Everything that reads the layer's input is one matrix product in inference (`Inputs`); in training the same matrices stay apart.
One token per row, the decode step, has its own form: in place on the state, with as few operations as there are, because each
costs its call; on CUDA the kernels of `ops.kda_triton` where there are any.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kleval.models.cache import RecurrentState
from kleval.models.config import ModelConfig
from kleval.models.derived import Derived
from kleval.models.modules import RMSNorm, linear
from kleval.ops.available import usable
from kleval.ops.gdn import chunk_gdn, step_gdn
from kleval.ops.kda import chunk_kda, step_kda
from kleval.ops.norm import gated_rms_norm, l2_norm
from kleval.ops.short_conv import short_conv


@dataclass(frozen=True, slots=True)
class Inputs:
    """What inference derives from the parameters. weight [sum sizes, hidden]: q, k and v; f (KDA: f_a); g_a; b."""

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
        self._inputs: Derived[Inputs] | None = None

    def forward(self, x: Tensor, state: RecurrentState | None, valid: Tensor | None, lengths: Tensor | None) -> Tensor:
        """x [B, T, hidden] -> [B, T, hidden]; valid [B, T] marks real tokens, lengths [B] counts them; state is advanced."""
        if state is not None and x.shape[1] > 1 and not torch.is_grad_enabled() and usable("step", x.device):
            from kleval.models.fused import linear_prefill

            fused = linear_prefill(self, x, state, valid, lengths)
            if fused is not None:
                return fused
        wide = self._wide(x)
        inputs = None if x.requires_grad else self.inputs()
        if inputs is None:
            projections = (self.q_proj, self.k_proj, self.v_proj)
            qkv = F.linear(x, torch.cat([p.weight for p in projections]))
            taps = torch.cat([c.weight for c in (self.q_conv1d, self.k_conv1d, self.v_conv1d)])
            g, b, low = self.decay(x), self.b_proj(x), self.g_a_proj(x)
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
            rule = chunk_gdn if self.per_head else chunk_kda
            o, final = rule(q, k, v, g, beta, None if state is None else state.recurrent)
        if state is not None:
            state.set(final, tail)
        gate = F.linear(low, self.g_b_proj.weight).unflatten(-1, (self.heads, self.dim))
        return self.o_proj(gated_rms_norm(o, self.o_norm.weight, gate, self.eps).flatten(-2))

    def decay(self, x: Tensor) -> Tensor:
        """Log-decay g = -exp(A_log) softplus(f(x) + dt_bias), float32: [B, T, H, D] for KDA, [B, T, H] for GDN."""
        wide = self._wide(x)
        if self.per_head:
            return -self.A_log.to(wide).exp() * F.softplus(self.f_proj(x).to(wide) + self.dt_bias.to(wide))
        rate = F.softplus(self.f_b_proj(self.f_a_proj(x)).to(wide) + self.dt_bias.to(wide))
        return -self.A_log.to(wide).exp() * rate.unflatten(-1, (self.heads, self.dim))

    def _decay(self, f: Tensor, inputs: Inputs) -> Tensor:
        """`decay` from the product with `Inputs.weight`."""
        if not self.per_head:
            f = F.linear(f, self.f_b_proj.weight)
        rate = F.softplus(inputs.bias + f)
        return (rate if self.per_head else rate.unflatten(-1, (self.heads, self.dim))).mul_(inputs.rate)

    def inputs(self) -> Inputs | None:
        """Up to date; None where a parameter wants a gradient."""
        if self._inputs is None:
            first = ["f_proj"] if self.per_head else ["f_a_proj"]
            names = ["q_proj", "k_proj", "v_proj", *first, "g_a_proj", "b_proj", "q_conv1d", "k_conv1d", "v_conv1d"]
            self._inputs = Derived(self, [*(f"{n}.weight" for n in names), "A_log", "dt_bias"], self._make_inputs)
        return self._inputs.get()

    def _make_inputs(self) -> Inputs:
        inner, f = self.heads * self.dim, self.f_proj if self.per_head else self.f_a_proj
        parts = [p.weight for p in (self.q_proj, self.k_proj, self.v_proj, f, self.g_a_proj, self.b_proj)]
        taps = torch.cat([c.weight for c in (self.q_conv1d, self.k_conv1d, self.v_conv1d)])
        wide = self._wide(parts[0])
        rate = -self.A_log.to(wide).exp()
        return Inputs(
            torch.cat(parts),
            (3 * inner, len(parts[3]), self.dim, self.heads),
            taps.squeeze(1).t().contiguous().t().unsqueeze(1),
            rate.view(-1) if self.per_head else rate.view(-1, 1),
            self.dt_bias.to(wide, copy=True),
        )

    @staticmethod
    def _wide(x: Tensor) -> torch.dtype:
        return torch.float64 if x.dtype == torch.float64 else torch.float32
