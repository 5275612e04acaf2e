"""The MLA mixer: projections around the latent cache, with rotated or unrotated (NoPE) rope dims.

Without a cache the training form; with one, for a single token per row on a device that has it the split kernel of `mla_triton`, else
the absorbed or the expanded form of `mla`, whichever is less work. `latent_step` is the decode step on a CPU.

Parameter names are the published ones (`self_attn.kv_a_proj_with_mqa.weight`, ...).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kleval.models.cache import LatentState, State
from kleval.models.config import ModelConfig
from kleval.models.modules import RMSNorm, linear, row_norm
from kleval.ops import mla
from kleval.ops.available import usable
from kleval.ops.mla_training import causal_attention

# [B, hidden], state, positions [B, 1] -> [B, hidden]
Step = Callable[[Tensor, State, Tensor], Tensor]
LATENT_EPS = 1e-6  # fixed in the published model code and in transformers, whatever rms_norm_eps is; vLLM takes rms_norm_eps here


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
        self.kv_a_layernorm = RMSNorm(rank, LATENT_EPS)
        self.kv_b_proj = linear(rank, heads * (self.nope + config.v_head_dim))
        self.o_proj = linear(heads * config.v_head_dim, hidden)

    def forward(self, x: Tensor, state: LatentState | None, positions: Tensor) -> Tensor:
        """x [B, T, hidden], positions [B, T] -> [B, T, hidden]; the tokens' rows are written to state at their positions."""
        batch, tokens, _ = x.shape
        q = self.q_proj(x).view(batch, tokens, self.heads, -1)  # [B, T, H, nope + rope]
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], dim=-1)
        latent = self.kv_a_layernorm(latent)
        if self.theta is not None:
            k_rope = mla.apply_rope(k_rope.unsqueeze(2), positions, self.theta).squeeze(2)
            q = torch.cat([q[..., : self.nope], mla.apply_rope(q[..., self.nope :], positions, self.theta)], -1)
        kv_b = self.kv_b_proj.weight.view(self.heads, -1, self.rank)  # [H, nope + v, rank]
        new = torch.cat([latent, k_rope], -1)
        if state is None:
            k, v = mla.expand(new, kv_b, self.nope)
            o = causal_attention(q.transpose(1, 2), k, v, self.scale).transpose(1, 2)
        else:
            counts = state.counts(tokens)
            table = state.table if tokens == 1 and min(counts) == 1 else None
            if table is not None and usable("mla_decode", x.device) and state.dtype != torch.float64:
                o = self._decode(q, new, state, table, kv_b)
            else:
                state.write(new)
                o = mla.cached_attention(q, state.rows(), counts, kv_b, self.nope, self.scale)
        return self.o_proj(o.reshape(batch, tokens, -1))

    def _decode(self, q: Tensor, new: Tensor, state: LatentState, table: Tensor, kv_b: Tensor) -> Tensor:
        """One token of every row by the device's kernels, which find rows and lengths on the device: nothing waits for it."""
        from kleval.ops import mla_triton

        mla_triton.append(new[:, 0].to(state.dtype), table, state.lengths)
        full = mla.to_latent(q.to(state.dtype), kv_b, self.nope)[:, :, 0].transpose(0, 1)  # [B, H, rank + rope]
        latent = mla_triton.decode(full, table, state.lengths, self.rank, self.scale, extra=1)
        return mla.from_latent(latent.transpose(0, 1).unsqueeze(2).to(q.dtype), kv_b, self.nope)


def latent_step(mixer: LatentAttention, norm: Callable[[Tensor], Tensor]) -> Step:
    """The decode step on a CPU, one token per row: [B, hidden] plus the mixer of its norm; one product for all that reads the input."""
    heads, rank, nope = mixer.heads, mixer.rank, mixer.nope
    inputs = torch.cat([mixer.q_proj.weight, mixer.kv_a_proj_with_mqa.weight]).t()
    sizes = (len(mixer.q_proj.weight), rank, mixer.rope)
    latent_norm, output = row_norm(mixer.kv_a_layernorm), mixer.o_proj.weight.detach().t()
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
