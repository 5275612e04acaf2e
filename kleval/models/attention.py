"""The MLA mixer: projections around the latent cache, with rotated or unrotated (NoPE) rope dims.

Parameter names are the published ones (`self_attn.kv_a_proj_with_mqa.weight`, ...).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kleval.models.cache import LatentState
from kleval.models.config import ModelConfig
from kleval.models.modules import RMSNorm, linear
from kleval.ops import mla


class LatentAttention(nn.Module):
    """MLA without low-rank query: rotated rope dims, or the same dims unrotated (NoPE)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, heads, rank = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
        self.heads, self.rank, self.nope, self.rope = heads, rank, config.qk_nope_head_dim, config.qk_rope_head_dim
        self.theta = None if config.mla_use_nope else config.rope_theta
        self.scale = (self.nope + self.rope) ** -0.5
        self.q_proj = linear(hidden, heads * (self.nope + self.rope))
        self.kv_a_proj_with_mqa = linear(hidden, rank + self.rope)
        self.kv_a_layernorm = RMSNorm(rank, config.rms_norm_eps)
        self.kv_b_proj = linear(rank, heads * (self.nope + config.v_head_dim))
        self.o_proj = linear(heads * config.v_head_dim, hidden)

    def forward(self, x: Tensor, state: LatentState | None, positions: Tensor) -> Tensor:
        """x [B, T, hidden], positions [B, T] -> [B, T, hidden]; the tokens' rows are written to state at their positions."""
        q = self.q_proj(x).unflatten(-1, (self.heads, -1))  # [B, T, H, nope + rope]
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], dim=-1)
        latent = self.kv_a_layernorm(latent)
        if self.theta is not None:
            k_rope = mla.apply_rope(k_rope.unsqueeze(2), positions, self.theta).squeeze(2)
            q = torch.cat([q[..., : self.nope], mla.apply_rope(q[..., self.nope :], positions, self.theta)], -1)
        kv_b = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))  # [H, nope + v, rank]
        if state is None:
            k, v = mla.expand(latent, k_rope, kv_b, self.nope)
            o = mla.causal_attention(q.transpose(1, 2), k, v, self.scale).transpose(1, 2)
        else:
            starts = positions[:, 0]
            rows = state.write(torch.cat([latent, k_rope], -1), starts)
            attend = mla.absorbed_attention if x.shape[1] <= mla.ABSORBED_TOKENS else mla.prefill_attention
            o = attend(q, rows, starts, kv_b, self.nope, self.scale)
        return self.o_proj(o.flatten(-2))
