"""Variants of the linear mixers for training alone: other output gates, no short convolution, decay without the delta rule.

The paper's ablations (arXiv 2510.26692, Table 1) and the decay of Mamba2 that its synthetic tests compare with. A variant has the
parameters of the layer that it takes the place of, those that it does not use included: they get no gradient and change nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kleval.models.cache import RecurrentState
from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.models.linear_attention import LinearAttention
from kleval.ops.gdn import chunk_gdn
from kleval.ops.kda import chunk_kda
from kleval.ops.norm import gated_rms_norm, l2_norm, rms_norm
from kleval.ops.short_conv import short_conv

Gate = Literal["sigmoid", "swish", "none"]
CHUNK = 64


class Variant(LinearAttention):
    """gate: of the output. conv False: SiLU alone. delta False: S_t = exp(g_t) S_{t-1} + b_t k_t v_t^T, one decay per head."""

    def __init__(
        self, config: ModelConfig, per_head: bool, gate: Gate = "sigmoid", conv: bool = True, delta: bool = True
    ) -> None:
        super().__init__(config, per_head)
        self.gate, self.conv, self.delta = gate, conv, delta

    def forward(
        self, x: Tensor, state: RecurrentState | None = None, valid: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """x [B, T, hidden] -> [B, T, hidden], from position 0 on."""
        projected = ((self.q_proj, self.q_conv1d), (self.k_proj, self.k_conv1d), (self.v_proj, self.v_conv1d))
        q, k, v = (
            (short_conv(proj(x), taps.weight)[0] if self.conv else F.silu(proj(x))).unflatten(
                -1, (self.heads, self.dim)
            )
            for proj, taps in projected
        )
        q, k, g, beta = l2_norm(q), l2_norm(k), self.decay(x), torch.sigmoid(self.b_proj(x).float())
        rule = decay_rule if not self.delta else chunk_gdn if self.per_head else chunk_kda
        o = rule(q, k, v, g, beta)[0]
        if self.gate == "sigmoid":
            gate = self.g_b_proj(self.g_a_proj(x)).unflatten(-1, (self.heads, self.dim))
            o = gated_rms_norm(o, self.o_norm.weight, gate, self.eps)
        else:
            o = rms_norm(o, self.o_norm.weight, self.eps)
            if self.gate == "swish":
                o = o * F.silu(self.g_b_proj(self.g_a_proj(x))).unflatten(-1, (self.heads, self.dim))
        y: Tensor = self.o_proj(o.flatten(-2))
        return y


def vary(model: Decoder, gate: Gate = "sigmoid", conv: bool = True, delta: bool = True) -> Decoder:
    """Put variants in the place of all linear mixers of a model whose weights are still to be made."""
    for block in model.model.layers:
        if isinstance(block.self_attn, LinearAttention):
            block.self_attn = Variant(model.config, block.self_attn.per_head, gate, conv, delta)
    return model


def decay_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Shapes of `recurrent_gdn`: o [B, T, H, V] and the last state [B, H, K, V]. Chunk by chunk, differentiable."""
    tokens = q.shape[1]
    q, k, v, g, beta = (x.transpose(1, 2).to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k, v, g, beta))
    q, v = q * q.shape[-1] ** -0.5, v * beta.unsqueeze(-1)
    state = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
    outputs = []
    for at in range(0, tokens, CHUNK):
        qc, kc, vc, total = (
            q[:, :, at : at + CHUNK],
            k[:, :, at : at + CHUNK],
            v[:, :, at : at + CHUNK],
            g[:, :, at : at + CHUNK].cumsum(-1),
        )
        between = (total.unsqueeze(-1) - total.unsqueeze(-2)).tril().exp().tril()  # [B, H, C, C]
        outputs.append((qc @ kc.mT * between) @ vc + total.exp().unsqueeze(-1) * (qc @ state))
        rest = (total[..., -1:] - total).exp().unsqueeze(-1)
        state = total[..., -1].exp()[..., None, None] * state + (kc * rest).mT @ vc
    return torch.cat(outputs, 2).transpose(1, 2), state
