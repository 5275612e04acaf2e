"""Prefill latency: the whole prompt in chunks with its state carried, or chunks at positions of a cache filled to them.

Timed from the first chunk to the first logits, device finished at both ends. Not timed: making the ids, making room in the cache,
warming up. Sampling a token is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import torch
from torch import Tensor

from kleval.models.cache import HybridCache
from kleval.models.decoder import Decoder
from kleval.profiler.measure import Clock


def random_ids(decoder: Decoder, batch: int, tokens: int, seed: int) -> Tensor:
    """[batch, tokens] on the decoder's device, the same for the same seed and vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(decoder.config.vocab_size, (batch, tokens), generator=generator)
    return ids.to(decoder.model.embed_tokens.weight.device)


def new_cache(decoder: Decoder, batch: int, capacity: int = 0) -> HybridCache:
    weight = decoder.model.embed_tokens.weight
    return HybridCache(decoder.config, batch, weight.device, weight.dtype, capacity)


@torch.no_grad()
def full_seconds(
    decoder: Decoder, ids: Tensor, chunk: int, on_tokens: Callable[[int], None] | None = None
) -> tuple[float, HybridCache]:
    """Seconds from the first chunk of ids [1, T] to the logits of the last token; and the cache it leaves.

    on_tokens: called with the tokens done after each chunk; it runs inside the timed region, so it must be quick.
    """
    tokens = ids.shape[1]
    cache = new_cache(decoder, ids.shape[0], tokens)
    clock = Clock(ids.device)
    start = clock.now()
    hidden = None
    for begin in range(0, tokens, chunk):
        hidden = decoder.hidden(ids[:, begin : begin + chunk], cache)
        if on_tokens is not None:
            on_tokens(min(begin + chunk, tokens))
    assert hidden is not None
    decoder.logits(hidden[:, -1])
    return clock.now() - start, cache


@torch.no_grad()
def chunk_seconds(decoder: Decoder, cache: HybridCache, ids: Tensor, count: int = 1) -> float:
    """Seconds of one chunk ids [B, c] on top of what cache holds, which is put back each time.

    The mean of `count`: a whole prompt, which this stands for, adds up its slow moments too.
    """
    clock = Clock(ids.device)
    before = cache.snapshot()
    times = []
    for _ in range(count):
        cache.reserve(ids.shape[1])
        times.append(clock.seconds(lambda: decoder.hidden(ids, cache)))
        cache.restore(before)
    return fmean(times)


@torch.no_grad()
def head_seconds(decoder: Decoder, ids: Tensor) -> float:
    """Seconds of one row of logits."""
    row = decoder.model.embed_tokens(ids[:, -1])
    clock = Clock(ids.device)
    decoder.logits(row)
    return clock.seconds(lambda: decoder.logits(row))
