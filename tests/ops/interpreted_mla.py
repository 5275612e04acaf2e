"""Run with TRITON_INTERPRET=1 by `test_mla_triton.py`: prints, as one JSON object, the relative error per case of the Triton
decode kernels against `absorbed_attention` in float64, over caches that kleval's own layout addresses; not a test module itself."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace

import torch
from torch import Tensor

from kleval.models.attention import LatentAttention
from kleval.models.cache import HybridCache, LatentState
from kleval.models.sizes import preset
from kleval.ops import mla, mla_triton


def error(out: Tensor, reference: Tensor) -> float:
    return float((out.double() - reference.double()).norm() / reference.double().norm().clamp_min(1e-300))


def case(
    lengths: list[int], heads: int, rank: int, rope: int, dtype: torch.dtype, splits: int | None
) -> dict[str, float]:
    """A cache of ragged rows in several segments takes one more row by `append`; then all rows are attended to."""
    config = replace(preset("mla", "nano"), layer_mixers=("mla", "mla"), kv_lora_rank=rank, qk_rope_head_dim=rope)
    cache = HybridCache(config, len(lengths), dtype=dtype)
    cache.track_addresses()
    for share in (3, 2, 1):  # several steps, so several segments
        cache.fill([n // share for n in lengths], seed=share)
    cache = cache.fork()  # the next row opens a segment of its own
    state = cache.layers[1]
    assert isinstance(state, LatentState)
    new, nope, value = torch.randn(len(lengths), rank + rope).to(dtype), 6, 5
    cache.begin(1)
    assert state.table is not None
    mla_triton.append(new, state.table, cache.lengths)
    rows = state.rows()
    written = torch.stack([segments[-1][-1] for segments in rows])
    q = torch.randn(len(lengths), 1, heads, nope + rope).to(dtype)
    kv_b = torch.randn(heads, nope + value, rank).to(dtype)
    latent = mla.to_latent(q, kv_b, nope)[:, :, 0].transpose(0, 1)  # [B, H, r + R]
    scale = 0.3
    out = mla_triton.decode(latent, state.table, cache.lengths, rank, scale, 1, splits)
    wide = [[segment.double() for segment in segments] for segments in rows]
    reference = torch.stack(
        [
            mla._absorbed(latent[b].double()[:, None], wide[b], scale, mla.attend)[:, 0, :rank]
            for b in range(len(lengths))
        ]
    )
    return {
        "appended": error(written, new),
        "decoded": error(out, reference),
        "infinite": float(not out.isfinite().all()),
    }


def mixer(heads: int, dtype: torch.dtype) -> dict[str, float]:
    """The MLA mixer with the kernels against itself without, in the same dtype: three tokens after a ragged depth."""
    config = replace(preset("mla", "nano"), layer_mixers=("mla",), num_attention_heads=heads)
    attention = LatentAttention(config).to(dtype).requires_grad_(False)
    with_kernels = HybridCache(config, 2, dtype=dtype)
    with_kernels.fill([300, 7])
    without = with_kernels.fork()
    with_kernels.track_addresses()
    worst = 0.0
    for _ in range(3):
        x = torch.randn(2, 1, config.hidden_size).to(dtype)
        outputs = []
        for cache in (with_kernels, without):
            cache.begin(1)
            outputs.append(attention(x, cache.layers[0], cache.lengths[:, None]))
            cache.advance(1)
        worst = max(worst, error(*outputs))
    return {"mixer": worst}


def main(seed: int) -> None:
    torch.manual_seed(seed)
    mla_triton.SMS = 5  # programs run one after the other here
    draw = random.Random(seed)
    worst: dict[str, dict[str, float]] = {"float32": {}, "bfloat16": {}}
    cases = [
        ([0], 4, 8, 4, None),  # one row, its own
        ([255, 256, 0, 300], 3, 20, 6, None),  # widths that are no powers of two, granule edges
        ([800, 3], 32, 32, 16, 7),
        ([700], 40, 16, 8, 3),  # more heads than one block
        ([draw.randrange(900) for _ in range(3)], draw.randrange(1, 9), 64, 16, draw.randrange(1, 12)),
    ]
    for lengths, heads, rank, rope, splits in cases:
        for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
            found = case(lengths, heads, rank, rope, dtype, splits)
            if heads == 4:
                found |= mixer(heads, dtype)
            for key, value in found.items():
                worst[name][key] = max(worst[name].get(key, 0.0), value if value == value else float("inf"))
    print(json.dumps(worst))


if __name__ == "__main__":
    main(int(sys.argv[1]))
