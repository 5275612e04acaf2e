"""The MLA mixer: with a cache the same as without, and never waiting for a device or moving what is cached."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kleval.models.attention import LatentAttention
from kleval.models.cache import HybridCache, LatentState
from kleval.models.config import ModelConfig
from kleval.models.sizes import preset

laws = settings(max_examples=10, deadline=None)


def small(nope: bool = True) -> ModelConfig:
    config = preset("mla", "nano", mla_use_nope=nope)
    return replace(
        config,
        layer_mixers=("mla",),
        hidden_size=12,
        num_attention_heads=3,
        qk_nope_head_dim=6,
        qk_rope_head_dim=4,
        v_head_dim=5,
        kv_lora_rank=7,
    )


def mixer(config: ModelConfig) -> LatentAttention:
    torch.manual_seed(3)
    return LatentAttention(config).double().requires_grad_(False)


def step(attention: LatentAttention, cache: HybridCache, x: Tensor) -> Tensor:
    state = cache.layers[0]
    assert isinstance(state, LatentState)
    positions = cache.lengths[:, None] + torch.arange(x.shape[1])
    cache.begin(x.shape[1])
    out: Tensor = attention(x, state, positions)
    cache.advance(x.shape[1])
    return out


class Watch(TorchDispatchMode):
    """Names of all operators, and the largest result among them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.calls, self.largest = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket.__name__)
        self.calls += 1
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor) and not func.is_view:
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("nope", [True, False])
@given(cuts=st.lists(st.integers(1, 299), max_size=4, unique=True), batch=st.integers(1, 2))
@laws
def test_any_chunks_with_a_cache_are_the_training_form(nope: bool, cuts: list[int], batch: int) -> None:
    attention = mixer(small(nope))
    x = torch.randn(batch, 300, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(len(cuts)))
    whole = attention(x, None, torch.arange(300).expand(batch, -1))
    cache = HybridCache(small(nope), batch, dtype=torch.float64)
    parts = [step(attention, cache, part) for part in x.tensor_split(sorted(cuts), 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tokens", [1, 3, 300])
def test_nothing_waits_for_the_device(tokens: int) -> None:
    """No operator brings a number to the host: lengths are known there."""
    config = small()
    cache, attention = HybridCache(config, 2, dtype=torch.float64), mixer(config)
    step(attention, cache, torch.randn(2, 40, 12, dtype=torch.float64))
    with Watch() as watch:
        step(attention, cache, torch.randn(2, tokens, 12, dtype=torch.float64))
    assert "_scaled_dot_product_flash_attention_for_cpu" in watch.names
    assert not watch.names & {"_local_scalar_dense", "item", "nonzero", "_to_copy", "is_nonzero"}


def test_a_decode_step_copies_no_cached_rows_and_takes_few_operators() -> None:
    config = small()
    cache, attention = HybridCache(config, 1, dtype=torch.float64, capacity=5000), mixer(config)
    cache.fill(4000)
    step(attention, cache, torch.randn(1, 1, 12, dtype=torch.float64))
    with Watch() as watch:
        step(attention, cache, torch.randn(1, 1, 12, dtype=torch.float64))
    assert watch.largest < 4000
    assert watch.calls < 80


def test_a_cache_of_another_dtype_only_rounds() -> None:
    config = small()
    attention, x = mixer(config), torch.randn(1, 300, 12, dtype=torch.float64)
    cache = HybridCache(config, 1, dtype=torch.float32)
    out = torch.cat([step(attention, cache, part) for part in (x[:, :290], x[:, 290:291], x[:, 291:])], 1)
    torch.testing.assert_close(out, attention(x, None, torch.arange(300)[None]), rtol=1e-5, atol=1e-6)


def test_a_step_nobody_opened_is_opened_by_writing() -> None:
    cache = HybridCache(small(), 2)
    state = cache.layers[0]
    assert isinstance(state, LatentState)
    state.write(torch.ones(2, 3, 11))
    assert [sum(len(view) for view in views) for views in state.rows()] == [3, 3]
    assert cache.lengths_host == [0, 0]
    cache.advance(3)
    assert cache.lengths_host == [3, 3]
