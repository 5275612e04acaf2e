"""Memory that a sequence really takes: live tensors, storage behind them, allocator, process.

used: bytes of the tensors that hold tokens; equal to the closed form, or something is wrong. allocated: their storage, spare room
included. workspace: what a decode step needs on top for a moment, as `peak_memory` sees it: a lower bound on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kleval.backends.peak_memory import resident_bytes, watch_peak
from kleval.models.decoder import Decoder
from kleval.profiler.prefill import new_cache


@torch.no_grad()
def state_footprint(decoder: Decoder, ctx: int, ids: Tensor, seed: int) -> dict[str, float | int | None]:
    """The values of a memory point: one sequence of ctx tokens, then one decode step ids [1, 1] on top of it."""
    device = ids.device
    before = resident_bytes() if device.type == "cpu" else None
    cache = new_cache(decoder, 1, ctx)
    cache.fill(ctx, seed)
    used = cache.used_by_component()
    values: dict[str, float | int | None] = {
        "latent_bytes": used.latent,
        "recurrent_bytes": used.recurrent,
        "conv_bytes": used.conv,
        "state_bytes": cache.used_bytes(),
        "allocated_bytes": cache.allocated_bytes(),
        "weights_bytes": sum(p.numel() * p.element_size() for p in decoder.parameters()),
    }
    after = resident_bytes() if device.type == "cpu" else None
    cache.reserve(1)  # room is not workspace
    peak = watch_peak(device, lambda: decoder.logits(decoder.hidden(ids, cache)))
    return values | {
        "workspace_bytes": peak.extra_bytes,
        "peak_bytes": peak.peak_bytes,
        "reserved_bytes": peak.reserved_bytes,
        "rss_bytes": after,
        "rss_growth_bytes": None if before is None or after is None else after - before,
    }
