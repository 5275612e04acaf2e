"""Prefill of a long prompt at nano size: time, and how far the process's memory grew, beside the state that must be kept.

    python benchmarks/prefill_memory.py [--architecture kimi-linear] [--tokens 65536] [--chunk 512]

Random weights and tokens; neither changes what it costs. Prints the growth of the peak resident set over that of a short
prefill (so that code and libraries do not count), the state by closed form, and what one [T, T] matrix of scores would take.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import torch

from kleval.models.cache import HybridCache
from kleval.models.config import ARCHITECTURES
from kleval.models.decoder import Decoder
from kleval.models.sizes import preset

MIB = 1 << 20


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def prefill(decoder: Decoder, tokens: int, chunk: int) -> tuple[float, HybridCache]:
    cache = HybridCache(decoder.config, 1, capacity=tokens)
    ids = torch.randint(0, decoder.config.vocab_size, (1, tokens))
    started = time.perf_counter()
    for part in ids.split(chunk, 1):
        hidden = decoder.hidden(part, cache)
    decoder.logits(hidden[:, -1])
    return time.perf_counter() - started, cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="kimi-linear")
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--chunk", type=int, default=512)
    given = parser.parse_args()
    config = preset(given.architecture, "nano")
    decoder = Decoder(config).requires_grad_(False)
    decoder.init_weights(0)
    prefill(decoder, min(given.chunk, 64), given.chunk)
    state = config.state_bytes(given.tokens, 1, "float32").total
    before = peak_bytes()
    seconds, cache = prefill(decoder, given.tokens, given.chunk)
    print(
        f"{given.architecture}@nano, {given.tokens} tokens in chunks of {given.chunk}, {torch.get_num_threads()} threads\n"
        f"time                {seconds:.1f} s, {given.tokens / seconds:.0f} tokens/s\n"
        f"peak memory growth  {(peak_bytes() - before) / MIB:.1f} MiB\n"
        f"state, closed form  {state / MIB:.1f} MiB\n"
        f"state, allocated    {cache.allocated_bytes() / MIB:.1f} MiB\n"
        f"one [T, T] float32  {given.tokens**2 * 4 / MIB:.0f} MiB"
    )


if __name__ == "__main__":
    main()
