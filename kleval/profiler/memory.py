"""State and weight memory from the configuration alone: no torch, no model.

Bytes of a sequence's state at a length (kleval.models.costs has the closed forms): rows of attention layers grow with the
length, the recurrent and convolution states of KDA and GDN do not. The published model keeps latent rows in 7 of 27 layers, so
the saving against 27 MLA layers tends to 20 / 27 = 74.1 %, not to the 75 % of an exact 3:1.

Where a model is split over devices all bytes are those of one of them. What fits on a GPU model is what fits into the share of its
memory that vLLM takes, beside the weights: activations and the engine's own are not known from a configuration, so it is at most that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kleval.profiler import vllm_plan
from kleval.profiler.hardware import HARDWARE
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.models.costs import Costs, Split

MAX_COUNT = 1 << 40  # of tokens or sequences: what is more has no limit
GPU_BYTES = {gpu: HARDWARE[gpu].memory_bytes for gpu in ("h100", "h200", "b200", "rtx-5090")}
GPU_SHARE = 0.92  # vLLM 0.32's default of --gpu-memory-utilization


@dataclass(frozen=True, slots=True)
class Formats:
    """dtype: of what nothing else is said about; weights and kv: formats of `kleval.models.number_formats`, None for dtype."""

    dtype: str = "bfloat16"
    weights: str | None = None
    kv: str | None = None


def memory_rows(
    models: Sequence[str],
    ctxs: Sequence[int],
    batch: int = 1,
    formats: Formats = Formats(),
    budget: int | None = None,
    split: Split | None = None,
) -> list[dict[str, Any]]:
    """One row per model and length, lengths together. UsageError for unknown models, a ctx or batch below 1, a split that does not
    divide a model."""
    from kleval.models.registry import costs_of

    if min(ctxs, default=0) < 1:
        raise UsageError("a context length is at least 1 token")
    if batch < 1:
        raise UsageError(f"--batch is at least 1, not {batch}")
    configs = dict(costs_of(name) for name in models)
    return [
        memory_row(name, config, ctx, batch, formats, budget, split) for ctx in ctxs for name, config in configs.items()
    ]


def memory_row(
    name: str,
    config: Costs,
    ctx: int,
    batch: int = 1,
    formats: Formats = Formats(),
    budget: int | None = None,
    split: Split | None = None,
) -> dict[str, Any]:
    """One model at one length: bytes of `batch` sequences by component, on one device of a split.

    saving: of the state against the same shape with its attention in every layer; below 0 where fixed states outweigh a few tokens.
    latent_saving: of the part that grows, at any length the share of layers that are not attention. largest_ctx: of one such batch,
    and largest_batch: at ctx, that fit into the budget together with the weights; None without a budget. state_batch: the same when
    the budget is for states alone. gpus: the same two per GPU model, whose share of its memory is the budget. vllm: what vLLM would
    allocate for one sequence, where it is installed.
    """
    from kleval.models.costs import ONE

    split = split or ONE
    dtype, kv = formats.dtype, formats.kv
    weights = config.weight_bytes(dtype, formats.weights, split)
    state = config.state_bytes(ctx, batch, dtype, kv, split)
    full = config.full_attention().state_bytes(ctx, batch, dtype, kv, split)

    def fits(left: int) -> dict[str, int]:
        """The longest ctx of one such batch and the largest batch at ctx whose states fit into so many bytes."""
        return {
            "largest_ctx": largest(lambda n: config.state_bytes(n, batch, dtype, kv, split).total, left),
            "largest_batch": largest(lambda n: config.state_bytes(ctx, n, dtype, kv, split).total, left),
        }

    gpus = {gpu: int(GPU_SHARE * nbytes) for gpu, nbytes in GPU_BYTES.items()}
    return {
        "model": name,
        "ctx": ctx,
        "batch": batch,
        "dtype": dtype,
        "weights": formats.weights or dtype,
        "kv": kv or dtype,
        "tp": split.tp,
        "ep": split.ep,
        "devices": split.devices,
        "latent_bytes": state.latent,
        "grouped_bytes": state.grouped,
        "index_bytes": state.index,
        "recurrent_bytes": state.recurrent,
        "conv_bytes": state.conv,
        "state_bytes": state.total,
        "weights_bytes": weights,
        "mla_state_bytes": full.total,
        "saving": 1 - state.total / full.total,
        "latent_saving": 1 - state.growing / full.growing,
        "budget_bytes": budget,
        **({"largest_ctx": None, "largest_batch": None} if budget is None else fits(budget - weights)),
        "state_batch": None if budget is None else fits(budget)["largest_batch"],
        "gpus": [{"gpu": gpu, "budget_bytes": most, **fits(most - weights)} for gpu, most in gpus.items()],
        "vllm": vllm_plan.beside(config, ctx, dtype, kv, split),
        "checkpoint": getattr(config, "quantized", None),
        "not_counted": list(getattr(config, "not_counted", ())),
    }


def largest(total: Callable[[int], int], budget: int, most: int = MAX_COUNT) -> int:
    """The largest n in 1 ... most for which total(n) bytes fit into the budget, 0 for none; total must not fall with n."""
    if total(1) > budget:
        return 0
    low, high = 1, 2
    while high <= most and total(high) <= budget:
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:  # low fits, high does not or is out of range
        middle = (low + high) // 2
        if total(middle) <= budget:
            low = middle
        else:
            high = middle
    return low
