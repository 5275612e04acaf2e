"""Speeds of a model that is not here, from closed forms: of a prompt and of a decode step, by rates that were measured or are assumed.

Operations of a prompt over the operations per second that are reached, bytes of a step over the bytes per second: what a device could
do at most (a datasheet) times a share, or what the rows of a profile reached. Between two measured lengths a rate is interpolated,
beyond them it is that of the nearest; between two measured batches the time of a step is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from kleval.profiler.hardware import Hardware
from kleval.profiler.integrate import interpolate
from kleval.profiler.memory import Formats

if TYPE_CHECKING:
    from kleval.models.costs import Costs, Split

# Of a datasheet's operations and bytes per second, the best and the worst that is planned with.
ASSUMED_SHARES = (0.6, 0.2)


class Speed(Protocol):
    """Seconds of a replica: of one prompt, and of a step of `batch` sequences with ctx tokens behind them."""

    def prefill(self, ctx: int) -> float: ...

    def step(self, ctx: int, batch: int) -> float: ...


@dataclass(frozen=True, slots=True)
class AtRates:
    """The same rates at all lengths and batches, per device of a split."""

    config: Costs
    formats: Formats
    split: Split
    flops_per_second: float
    bytes_per_second: float

    def prefill(self, ctx: int) -> float:
        flops = self.config.prefill_flops(ctx) / self.split.devices
        weights = self.config.weight_bytes(self.formats.dtype, self.formats.weights, self.split)
        return max(flops / self.flops_per_second, weights / self.bytes_per_second)

    def step(self, ctx: int, batch: int) -> float:
        flops = self.config.decode_flops(ctx, batch) / self.split.devices
        moved = moved_bytes(self.config, ctx, batch, self.formats, self.split)
        return max(flops / self.flops_per_second, moved / self.bytes_per_second)


def at_shares(config: Costs, formats: Formats, split: Split, hardware: Hardware) -> tuple[AtRates, ...]:
    """By ASSUMED_SHARES of what the hardware's datasheet promises, the fastest first."""
    return tuple(
        AtRates(config, formats, split, share * hardware.flops_per_second, share * hardware.bytes_per_second)
        for share in ASSUMED_SHARES
    )


def moved_bytes(config: Costs, ctx: int, batch: int, formats: Formats, split: Split) -> float:
    """What one device of a split reads and writes in a step, at least: its share of the weights, of recurrent states and of keys and
    values by head; latent rows and an indexer's keys whole."""
    from kleval.models.number_formats import cache_bytes

    parts = dict(config.decode_bytes_by_component(ctx, batch, formats.dtype))
    lighter = config.weight_bytes(formats.dtype, formats.weights) / config.weight_bytes(formats.dtype)
    rows = 1.0 if formats.kv is None else cache_bytes(1 << 20, formats.kv) / cache_bytes(1 << 20, formats.dtype)
    moved = lighter * (parts.pop("weights") + parts.pop("experts"))
    moved += parts.pop("recurrent") + parts.pop("conv") + rows * parts.pop("grouped", 0)
    return moved / split.devices + rows * sum(parts.values())


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of a profile of one model: seconds of prompts by length, and of steps by length and batch. names: what the rows are
    called, for whoever wants to look them up."""

    model: str
    config: Costs
    dtype: str
    prompts: Mapping[int, float]
    steps: Mapping[tuple[int, int], float]
    names: tuple[str, ...]

    def joined(self, more: Measured) -> Measured:
        """With the rows of another profile of the same model and machine, which count where both have a row."""
        names = tuple(dict.fromkeys((*self.names, *more.names)))
        return replace(self, prompts={**self.prompts, **more.prompts}, steps={**self.steps, **more.steps}, names=names)

    def flops_per_second(self) -> list[float]:
        """Reached in each prompt."""
        return [self.config.prefill_flops(ctx) / seconds for ctx, seconds in self.prompts.items()]

    def bytes_per_second(self) -> list[float]:
        """Reached in each step."""
        return [self._bytes(ctx, batch) / seconds for (ctx, batch), seconds in self.steps.items()]

    def most_batch(self, ctx: int) -> int:
        """The largest batch that was measured at the nearest length."""
        nearest = min({length for length, _ in self.steps}, key=lambda length: abs(math.log(length / ctx)))
        return max(batch for length, batch in self.steps if length == nearest)

    def prefill(self, ctx: int) -> float:
        rates = {length: self.config.prefill_flops(length) / seconds for length, seconds in self.prompts.items()}
        seconds = self.config.prefill_flops(ctx) / _between(rates, ctx)
        weights = self.config.weight_bytes(self.dtype) / max(self.bytes_per_second())
        # A prompt shorter than any measured reads the weights too, at best as fast as a step did, and takes no more than that one.
        return max(seconds, min(weights, self.prompts[min(self.prompts)])) if ctx < min(self.prompts) else seconds

    def step(self, ctx: int, batch: int) -> float:
        rates = {}
        for length in {length for length, _ in self.steps}:
            measured = [b for at, b in self.steps if at == length]
            inside = min(max(batch, min(measured)), max(measured))
            low, high = max(b for b in measured if b <= inside), min(b for b in measured if b >= inside)
            rates[length] = self._bytes(length, inside) / self._step_between(length, low, inside, high)
        return self._bytes(ctx, batch) / _between(rates, ctx)

    def _step_between(self, ctx: int, low: int, batch: int, high: int) -> float:
        """Seconds of a step at a measured length and between two measured batches, exact at both: a part that grows with the bytes,
        which in a model of experts is most of the way up at a few sequences, and a part that grows with the batch, neither less than
        none; where the seconds grow less than the bytes do, the second is the same at every batch instead."""
        first, last = self.steps[ctx, low], self.steps[ctx, high]
        if low == high:
            return first
        few, here, many = (self._bytes(ctx, b) for b in (low, batch, high))
        per_byte = (high * first - low * last) / (high * few - low * many)
        moving = min(max(0.0, per_byte * (many - few)), last - first)
        return first + moving * (here - few) / (many - few) + (last - first - moving) * (batch - low) / (high - low)

    def _bytes(self, ctx: int, batch: int) -> int:
        return self.config.decode_bytes(ctx, batch, self.dtype)


def of_others(config: Costs, formats: Formats, split: Split, rows: Sequence[Measured]) -> tuple[AtRates, ...]:
    """By the highest and the lowest rates that other models reached, the fastest first."""
    flops = [rate for measured in rows for rate in measured.flops_per_second()]
    moved = [rate for measured in rows for rate in measured.bytes_per_second()]
    return tuple(AtRates(config, formats, split, of(flops), of(moved)) for of in (max, min))


def _between(known: Mapping[int, float], at: int) -> float:
    """`interpolate` between the known, by the logarithm of where they are; the nearest one's beyond them."""
    inside = min(max(at, min(known)), max(known))
    return interpolate({math.log(n): value for n, value in known.items()}, math.log(inside))
