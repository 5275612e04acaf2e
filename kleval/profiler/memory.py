"""State and weight memory from the configuration alone: no torch, no model.

Bytes of a sequence's state at a length (kleval.models.costs has the closed forms): latent rows of the MLA layers grow with the
length, the recurrent and convolution states of KDA and GDN do not. The published model keeps latent rows in 7 of 27 layers, so
the saving against 27 MLA layers tends to 20 / 27 = 74.1 %, not to the 75 % of an exact 3:1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.models.config import ModelConfig

MAX_CTX = 1 << 40
MAX_BATCH = 1 << 40


def memory_rows(
    models: Sequence[str], ctxs: Sequence[int], batch: int = 1, dtype: str = "bfloat16", budget: int | None = None
) -> list[dict[str, Any]]:
    """One row per model and length, lengths together. UsageError for unknown models, a ctx or batch below 1."""
    from kleval.models.registry import config_of, resolve

    if min(ctxs, default=0) < 1:
        raise UsageError("a context length is at least 1 token")
    if batch < 1:
        raise UsageError(f"--batch is at least 1, not {batch}")
    specs = [resolve(name) for name in models]
    configs = {spec.name: config_of(spec) for spec in specs}
    return [memory_row(name, config, ctx, batch, dtype, budget) for ctx in ctxs for name, config in configs.items()]


def memory_row(
    name: str, config: ModelConfig, ctx: int, batch: int = 1, dtype: str = "bfloat16", budget: int | None = None
) -> dict[str, Any]:
    """One model at one length: bytes of `batch` sequences by component.

    saving: of the state against the same shape with MLA in every layer; below 0 where fixed states outweigh a few tokens.
    latent_saving: of the part that grows, at any length the share of layers that are not MLA. largest_ctx: of one such batch, and
    largest_batch: at ctx, that fit into the budget together with the weights; None without a budget. state_batch: the same when
    the budget is for states alone.
    """
    state = config.state_bytes(ctx, batch, dtype)
    weights = config.weight_bytes(dtype)
    mla = all_mla(config).state_bytes(ctx, batch, dtype)
    left = None if budget is None else budget - weights
    return {
        "model": name,
        "ctx": ctx,
        "batch": batch,
        "dtype": dtype,
        "latent_bytes": state.latent,
        "recurrent_bytes": state.recurrent,
        "conv_bytes": state.conv,
        "state_bytes": state.total,
        "weights_bytes": weights,
        "mla_state_bytes": mla.total,
        "saving": 1 - state.total / mla.total,
        "latent_saving": 1 - state.latent / mla.latent,
        "budget_bytes": budget,
        "largest_ctx": None if left is None else largest_ctx(config, batch, left, dtype),
        "largest_batch": None if left is None else largest_batch(config, ctx, left, dtype),
        "state_batch": None if budget is None else largest_batch(config, ctx, budget, dtype),
    }


def all_mla(config: ModelConfig) -> ModelConfig:
    """The same shape with MLA in every layer."""
    from dataclasses import replace

    return replace(config, architecture="mla", layer_mixers=("mla",) * config.num_hidden_layers)


def largest_batch(config: ModelConfig, ctx: int, budget: int, dtype: str, most: int = MAX_BATCH) -> int:
    """The most sequences of ctx tokens whose states fit into budget bytes, at most `most`; 0 when not one does."""
    return _largest(lambda batch: config.state_bytes(ctx, batch, dtype).total <= budget, most)


def largest_ctx(config: ModelConfig, batch: int, budget: int, dtype: str) -> int:
    """The longest ctx at which batch sequences fit into budget bytes; 0 when none does."""
    return _largest(lambda ctx: config.state_bytes(ctx, batch, dtype).total <= budget, MAX_CTX)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest n in 1 ... most that fits, 0 for none; fits must be monotone."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:  # low fits, high does not or is out of range
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
