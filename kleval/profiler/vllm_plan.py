"""Allocation of vLLM for one sequence of a model, by vLLM's own planning functions; needs vLLM, but no GPU and no weights.

The layers' cache specifications are made from the shape (`kleval.models.shape`) as vLLM's layers make them, with the block size
that its `Platform._align_hybrid_block_size` chooses: so many tokens that a page of attention holds a recurrent state. Grouping of
layers, padding and sums are vLLM's (`vllm.v1.core.kv_cache_utils`, read at 0.32). With prefix caching, its default, a recurrent layer
keeps two states. An indexer's cache has kernels' own layouts there and is not planned.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from kleval.models.costs import ONE, Costs, Split
from kleval.models.shape import Delta, Grouped, Latent, Mixer

ALIGNMENT = {Latent: 128, Grouped: 16}  # tokens: MLA's decode kernels, attention's smallest block
STATES_KEPT = 2  # of a recurrent layer, the one that is read and the one that is written, in vLLM's mode `align`
_IN_FLIGHT_TOKENS = 8192  # of one step, which a sliding window's blocks hold besides


@dataclass(frozen=True, slots=True)
class Allocation:
    """nbytes: of one sequence on one device. block_tokens: of an attention block. groups: that share a block table each."""

    nbytes: int
    block_tokens: int
    groups: int

    def why(self, config: Costs) -> str:
        """Why it is more than the closed form, in words."""
        said = [f"whole blocks of {self.block_tokens} tokens"]
        if any(isinstance(layer.mixer, Delta) for layer in config.layers()):
            said += [f"each recurrent state padded to one, {STATES_KEPT} of them"]
        if self.groups > 1:
            said += [f"layers in {self.groups} groups filled up to one size"]
        return ", ".join(said)


def installed() -> bool:
    found = importlib.util.find_spec("vllm")
    return found is not None and found.origin is not None  # a folder of that name is no package


def beside(config: Costs, ctx: int, dtype: str, kv: str | None, split: Split) -> dict[str, Any] | None:
    """One sequence by vLLM's planning and by the closed form, and why they differ, as a JSON record; None without vLLM.

    vllm_bytes is None where vLLM has no plain cache for such a model, or another release plans otherwise; why says so.
    """
    if not installed():
        return None
    closed = config.state_bytes(ctx, 1, dtype, kv, split).total
    try:
        planned = allocation(config, ctx, dtype, kv, split)
    except Exception as error:  # its planning functions are its own, and change
        return {"vllm_bytes": None, "closed_form_bytes": closed, "why": f"not planned: {type(error).__name__}: {error}"}
    if planned is None:
        return {
            "vllm_bytes": None,
            "closed_form_bytes": closed,
            "why": "vLLM keeps an indexer's keys or 4 bits in another layout",
        }
    return {
        "vllm_bytes": planned.nbytes,
        "closed_form_bytes": closed,
        "block_tokens": planned.block_tokens,
        "groups": planned.groups,
        "why": planned.why(config),
    }


def allocation(
    config: Costs, ctx: int, dtype: str = "bfloat16", kv: str | None = None, split: Split = ONE
) -> Allocation | None:
    """None for what vLLM has no plain cache for: an indexer, rows in 4 bit."""
    mixers = [layer.mixer for layer, count in config.layers().items() for _ in range(count)]
    if kv == "int4" or any(isinstance(m, Latent) and m.index is not None for m in mixers):
        return None
    from vllm.v1.core import kv_cache_utils

    states = [m for m in mixers if isinstance(m, Delta)]
    rows = [m for m in mixers if not isinstance(m, Delta)]
    block = 16
    if rows:
        page = min(_attention(m, 1, dtype, kv, split.tp).page_size_bytes for m in rows)
        align = ALIGNMENT[type(rows[0])] if states else block
        state = max((_state(m, 1, dtype, split.tp, None).page_size_bytes for m in states), default=0)
        block = max(block, align * -(-state // (align * page)))
    padded = block * page if rows else None
    specs = {
        f"layers.{i}": _state(m, ctx, dtype, split.tp, padded)
        if isinstance(m, Delta)
        else _attention(m, block, dtype, kv, split.tp)
        for i, m in enumerate(mixers)
    }
    planned = _config(ctx)
    groups = kv_cache_utils.get_kv_cache_groups(planned, specs)
    nbytes = kv_cache_utils._max_memory_usage_bytes_from_groups(planned, groups)
    return Allocation(int(nbytes), block, len(groups))


def _attention(mixer: Mixer, block: int, dtype: str, kv: str | None, tp: int) -> Any:
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, SlidingWindowSpec

    rows = torch.uint8 if kv == "fp8" else getattr(torch, kv or dtype)
    if isinstance(mixer, Latent):
        return MLAAttentionSpec(block_size=block, num_kv_heads=1, head_size=mixer.rank + mixer.rope, dtype=rows)
    assert isinstance(mixer, Grouped)
    known = {"block_size": block, "num_kv_heads": max(1, mixer.kv_heads // tp), "head_size": mixer.dim, "dtype": rows}
    if mixer.window is not None:
        return SlidingWindowSpec(**known, sliding_window=mixer.window)
    return FullAttentionSpec(**known)


def _state(mixer: Delta, block: int, dtype: str, tp: int, padded: int | None) -> Any:
    import torch
    from vllm.model_executor.layers.mamba.mamba_utils import MambaStateShapeCalculator
    from vllm.v1.kv_cache_interface import MambaSpec

    shapes = MambaStateShapeCalculator.gated_delta_net_state_shape(
        tp, mixer.key_heads, mixer.value_heads, mixer.key_dim, mixer.value_dim, mixer.taps
    )
    return MambaSpec(
        block_size=block,
        shapes=shapes,
        dtypes=(getattr(torch, dtype), torch.float32),
        page_size_padded=padded,
        mamba_cache_mode="align",
    )


def _config(ctx: int) -> Any:
    """As much of a VllmConfig as planning reads."""
    layout = SimpleNamespace(is_block_outermost=False)
    return SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=ctx),
        cache_config=SimpleNamespace(
            mamba_cache_mode="align", get_resolved_kv_cache_layout=lambda: layout, enable_prefix_caching=True
        ),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1, prefill_context_parallel_size=1),
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        attention_config=None,
        speculative_config=None,
        max_in_flight_tokens=_IN_FLIGHT_TOKENS,
    )
