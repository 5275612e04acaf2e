"""Estimates of durations, by which a plan keeps to its time budget: a few quick measurements per model, or the closed form.

Everything is linear: a chunk at position p costs a + b p, a decode step at depth D with B rows costs c + B (r + s D), filling a
cache costs f per row and token. `measured` finds the six numbers from two chunks, three steps and one fill per model;
`from_bound` takes them from the config and the machine's bound, for models that are too large to build for a guess.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kleval.models.config import ModelConfig
    from kleval.models.decoder import Decoder
    from kleval.profiler.bound import Bound

DEEP_TOKENS = 16384
SHALLOW_TOKENS = 64
ROWS = 8
STEPS = 4
MARGIN = 1.15  # deep caches leave the processor's own; plans had better be a little long than a little short
ASSUMED_MFU = 0.3
ASSUMED_MBU = 0.5


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds: of a chunk, per position before it; of a step, per row, per row and token; of filling, per row and token.

    warmup_seconds: what the first chunk and the first step took beyond a later one (compilation, autotuning, first touch); 0
    where nothing was run. measured: whether anything was.
    """

    chunk_seconds: float
    chunk_position_seconds: float
    step_seconds: float
    step_row_seconds: float
    step_token_seconds: float
    fill_token_seconds: float
    warmup_chunk_seconds: float = 0.0
    warmup_step_seconds: float = 0.0
    measured: bool = True

    def chunk(self, position: int) -> float:
        return self.chunk_seconds + self.chunk_position_seconds * position

    def prefill(self, ctx: int, chunk: int) -> float:
        """The whole prompt; a partial chunk costs its share."""
        n = ctx / chunk
        return n * self.chunk_seconds + self.chunk_position_seconds * chunk * max(n - 1, 0) * n / 2

    def step(self, batch: int, depth: int) -> float:
        return self.step_seconds + batch * (self.step_row_seconds + self.step_token_seconds * depth)

    def fill(self, batch: int, depth: int) -> float:
        return self.fill_token_seconds * batch * depth

    def record(self) -> dict[str, Any]:
        return asdict(self)


def measured(decoder: Decoder, chunk: int, longest: int, seed: int) -> Rates:
    """From the model itself, least of several where that is cheap: what disturbs a measurement only ever adds to it.

    longest: no deeper than this is looked. A second or two on a CPU at nano size.
    """
    from kleval.profiler.decode import decode_steps
    from kleval.profiler.prefill import chunk_seconds, new_cache, random_ids

    deep = max(min(longest, DEEP_TOKENS) - chunk, SHALLOW_TOKENS)
    ids, fed = random_ids(decoder, 1, chunk, seed), random_ids(decoder, STEPS + 1, ROWS, seed)
    empty, cache = new_cache(decoder, 1), new_cache(decoder, 1, deep + chunk)
    first = chunk_seconds(decoder, empty, ids)
    shallow_chunk = min(chunk_seconds(decoder, empty, ids) for _ in range(3))
    began = time.perf_counter()
    cache.fill(deep, seed)
    fill = (time.perf_counter() - began) / deep
    deep_chunk = min(chunk_seconds(decoder, cache, ids) for _ in range(2))
    deep_steps, first_step = decode_steps(decoder, cache, fed[:, :1], STEPS, 1)
    shallow = []
    for rows in (1, ROWS):
        cache = new_cache(decoder, rows, SHALLOW_TOKENS + STEPS + 1)
        cache.fill(SHALLOW_TOKENS, seed)
        shallow.append(min(decode_steps(decoder, cache, fed[:, :rows], STEPS, 1)[0]))
    deep_step = min(deep_steps)
    per_row = max((shallow[1] - shallow[0]) / (ROWS - 1), 0.0)
    per_token = max((deep_step - shallow[0]) / (deep - SHALLOW_TOKENS), 0.0) if deep > SHALLOW_TOKENS else 0.0
    return Rates(
        chunk_seconds=MARGIN * shallow_chunk,
        chunk_position_seconds=MARGIN * max(deep_chunk - shallow_chunk, 0.0) / deep,
        step_seconds=MARGIN * max(shallow[0] - per_row, 0.0),
        step_row_seconds=MARGIN * per_row,
        step_token_seconds=MARGIN * per_token,
        fill_token_seconds=MARGIN * fill,
        warmup_chunk_seconds=max(first - shallow_chunk, 0.0),
        warmup_step_seconds=max(first_step - deep_step, 0.0),
    )


def from_bound(config: ModelConfig, bound: Bound, chunk: int, dtype: str, longest: int) -> Rates:
    """From operations and bytes, at a share of the bound that kernels commonly reach."""
    deep = max(longest - chunk, chunk)
    flops = ASSUMED_MFU * bound.flops_per_second
    nbytes = ASSUMED_MBU * bound.bytes_per_second
    weights = config.weight_bytes(dtype) / nbytes
    near = config.prefill_flops(chunk) / flops + weights
    far = config.prefill_flops(deep + chunk, start=deep) / flops + weights
    one, two = (config.decode_bytes(1, batch, dtype) / nbytes for batch in (1, 2))
    far_step = config.decode_bytes(deep, 1, dtype) / nbytes
    return Rates(
        chunk_seconds=near,
        chunk_position_seconds=max(far - near, 0.0) / deep,
        step_seconds=max(2 * one - two, 0.0),
        step_row_seconds=max(two - one, 0.0),
        step_token_seconds=max(far_step - one, 0.0) / max(deep - 1, 1),
        fill_token_seconds=(config.state_bytes(deep, 1, dtype).total / deep) / (0.1 * bound.bytes_per_second),
        measured=False,
    )
