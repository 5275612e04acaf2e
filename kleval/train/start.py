"""Structured start: initial weights that already look one, two and three tokens back.

From a random start a model this small spends most of its budget finding out that "what followed this last time" is a useful
question (for RoPE attention it may not find out at all). So the mixers begin as rough induction heads; every weight stays
trainable and the architecture is unchanged. With e the normalised token vector, u a direction that all embeddings share and
A a fixed projection of token space that ignores u:

- KDA/GDN, head 0: key A e(t-1), value e(t), query A e(t): recalls what followed the current token.
  Head 1 of layer 0: key and query e(t), value A e(t-1), A e(t-2): writes the previous two tokens into the stream (subspaces R1, R2).
  Head 1 of later layers: keys of offsets 1, 2, 3 against queries of offsets 0, 1, 2: the same by three tokens.
- MLA with RoPE, layer 0: heads 0-2 attend to offset 1, 2, 3 by position alone (query and key along u, turned by the offset)
  and write A e there into R1, R2, R3.
- MLA later: head 0 matches A e(t) with R1, head 1 also R1 with R2; values are token vectors, written back as such.
- Decay rates start slow (1e-4 to 1e-2 per token), so that a state reaches over the lengths evaluated.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.models.layers import LatentAttention, LinearAttention
from kleval.ops.mla import apply_rope

NOISE = 0.02
_SHARED_PART = 0.5  # cosine between a token vector and the shared direction


class _Frame:
    """The fixed directions that all layers agree on."""

    def __init__(self, hidden: int, generator: torch.Generator) -> None:
        basis = torch.linalg.qr(torch.randn(hidden, hidden, generator=generator)).Q.T
        self.shared = basis[0]  # u
        self.token = basis[1:]  # rows span token space without u
        self.generator = generator
        self.previous = self.rows(96)  # R1, R2, R3, 32 rows each

    def rows(self, n: int) -> Tensor:
        """n orthonormal rows of token space, [n, hidden]."""
        mix = torch.linalg.qr(torch.randn(len(self.token), n, generator=self.generator)).Q.T
        return mix @ self.token


def in_words(config: ModelConfig) -> str:
    """What begins as induction heads: it is not the same in every architecture."""
    names = {"kda": "KDA convolutions", "gdn": "GDN convolutions", "mla": "MLA heads"}
    return f"{' and '.join(names[mixer] for mixer in dict.fromkeys(config.layer_mixers))} as induction heads"


@torch.no_grad()
def structured_start(model: Decoder, config: ModelConfig, seed: int) -> None:
    """Overwrite the mixers' and the embedding's initial weights in place. Deterministic in seed."""
    generator = torch.Generator().manual_seed(seed + 1)
    frame = _Frame(config.hidden_size, generator)
    a = frame.rows(32)  # A, [32, hidden]
    embedding = model.model.embed_tokens.weight
    noise = torch.randn(embedding.shape, generator=generator) @ frame.token.T @ frame.token
    noise *= math.sqrt(1 - _SHARED_PART**2) / math.sqrt(config.hidden_size)
    embedding.copy_(noise + _SHARED_PART * frame.shared)
    for index, block in enumerate(model.model.layers):
        attention = block.self_attn
        if isinstance(attention, LatentAttention):
            _start_mla(attention, config, frame, a, index)
        elif isinstance(attention, LinearAttention):
            _start_linear(attention, config, frame, a, index)


def _noisy(parameter: Tensor, value: Tensor, generator: torch.Generator) -> None:
    parameter.copy_(value + NOISE * torch.randn(value.shape, generator=generator))


def _start_linear(attention: LinearAttention, config: ModelConfig, frame: _Frame, a: Tensor, index: int) -> None:
    heads, dim, generator = config.kda_num_heads, config.kda_head_dim, frame.generator
    taps = {n: torch.zeros(heads, dim, config.short_conv_kernel_size) for n in ("q", "k", "v")}
    query, value, out = [], [], []
    for head in range(heads):
        rows = frame.rows(dim)
        query.append(rows)
        if head == 0:
            _set_taps(taps, head, q=(0,), k=(1,), v=(0,))
            value.append(rows)
            out.append(rows)
        elif index == 0:
            _set_taps(taps, head, q=(0,), k=(0,), v=(1, 2))
            value.append(torch.cat([a, a])[:dim])
            out.append(2.0 * frame.previous[:dim])
        else:
            _set_taps(taps, head, q=(0, 1, 2), k=(1, 2, 3), v=(0,))
            value.append(rows)
            out.append(rows)
    _noisy(attention.q_proj.weight, torch.cat(query), generator)
    _noisy(attention.k_proj.weight, torch.cat(query), generator)
    _noisy(attention.v_proj.weight, torch.cat(value), generator)
    _noisy(attention.o_proj.weight, torch.cat(out).T, generator)
    for name, conv in (("q", attention.q_conv1d), ("k", attention.k_conv1d), ("v", attention.v_conv1d)):
        _noisy(conv.weight, taps[name].view(conv.weight.shape), generator)
    rate = torch.empty(attention.dt_bias.shape).uniform_(math.log(1e-4), math.log(1e-2), generator=generator).exp()
    attention.dt_bias.copy_(rate + torch.log(-torch.expm1(-rate)))
    attention.A_log.zero_()


def _set_taps(taps: dict[str, Tensor], head: int, **offsets: tuple[int, ...]) -> None:
    """Split a head's channels evenly among the offsets; the last tap is the current token."""
    for name, backs in offsets.items():
        for part, back in zip(taps[name][head].chunk(len(backs)), backs, strict=True):
            part[:, -1 - back] = 1.0


def _start_mla(attention: LatentAttention, config: ModelConfig, frame: _Frame, a: Tensor, index: int) -> None:
    heads, nope, rope = config.num_attention_heads, config.qk_nope_head_dim, config.qk_rope_head_dim
    values, rank, hidden, generator = config.v_head_dim, config.kv_lora_rank, config.hidden_size, frame.generator
    query = torch.zeros(heads, nope + rope, hidden)
    down = torch.zeros(rank + rope, hidden)
    up = torch.zeros(heads, nope + values, rank)
    out = torch.zeros(heads, values, hidden)
    r1, r2, r3 = frame.previous.split(32)
    if index == 0:
        down[:rank] = torch.cat([a, frame.rows(rank - 32)])
        wave = _wave(rope)
        down[rank:] = wave[:, None] * frame.shared
        for head, (back, target) in enumerate(zip((1, 2, 3), (r1, r2, r3), strict=True)):
            turned = apply_rope(wave[None, None, None], torch.tensor([[-back]]), config.rope_theta).flatten()
            query[head, nope:] = turned[:, None] * frame.shared
            up[head, nope:] = torch.eye(rank)[:values]
            out[head] = 1.5 * target
    else:
        tokens = frame.rows(rank - 48)
        down[:rank] = torch.cat([r1, r2[:16], tokens])
        # head 0: the current token against the previous one; head 1: half the width for each of two offsets
        query[0, :nope] = 3.0 * a
        up[0, :nope] = torch.eye(rank)[:nope]
        query[1, :nope] = 3.0 * torch.cat([a[:16], r1[:16]])
        up[1, :nope] = torch.eye(rank)[[*range(16), *range(32, 48)]]
        for head, first in ((0, 48), (1, rank - values)):
            up[head, nope:] = torch.eye(rank)[first : first + values]
            out[head] = tokens[first - 48 : first - 48 + values]
    _noisy(attention.q_proj.weight, query.flatten(0, 1), generator)
    _noisy(attention.kv_a_proj_with_mqa.weight, down, generator)
    _noisy(attention.kv_b_proj.weight, up.flatten(0, 1), generator)
    _noisy(attention.o_proj.weight, out.flatten(0, 1).T, generator)


def _wave(rope: int) -> Tensor:
    """A vector with one component per frequency, the fast ones stronger: sharp nearby, without echoes far away. [rope]"""
    wave = torch.zeros(rope // 2, 2)
    wave[:, 0] = 1.0
    wave[:6, 0] = 1.6
    return wave.flatten()
