"""Latent rows in segments: what is kept, what is shared, what it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.models.cache import HybridCache, LatentState
from kleval.models.config import ARCHITECTURES, ModelConfig
from kleval.models.latents import GRANULE, MAX_GROWTH_TOKENS, growth_tokens
from kleval.models.sizes import preset

laws = settings(max_examples=25, deadline=None)
RANK, ROPE = 3, 1
amounts = st.sampled_from([0, 1, 2, 100, 255, 256, 257, 700])


def narrow(mixers: tuple[str, ...] = ("mla", "kda", "mla")) -> ModelConfig:
    config = preset("kimi-linear", "nano", vocab_size=50)
    return replace(
        config, layer_mixers=mixers, kv_lora_rank=RANK, qk_rope_head_dim=ROPE, kda_num_heads=1, kda_head_dim=2
    )


def append(cache: HybridCache, counts: list[int], value: int) -> None:
    """Every token of the step is `value`, plus the layer's index; the recurrent state adds up what came in."""
    longest = max(counts)
    cache.begin(counts)
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, LatentState):
            layer.write(torch.full((len(counts), longest, RANK + ROPE), float(value + index)))
        else:
            more = torch.tensor(counts).view(-1, 1, 1, 1) * float(value)
            layer.set(layer.recurrent + more, layer.conv + more[..., 0])
    cache.advance(counts)


def check(cache: HybridCache, expected: list[list[int]]) -> None:
    lengths = [len(row) for row in expected]
    assert cache.lengths_host == cache.lengths.tolist() == lengths
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, LatentState):
            for views, row in zip(layer.rows(), expected, strict=True):
                kept = torch.cat([*views, torch.empty(0, RANK + ROPE)])
                torch.testing.assert_close(kept, torch.tensor(row).view(-1, 1).expand(-1, RANK + ROPE) + float(index))
        else:
            sums = torch.tensor([float(sum(row)) for row in expected]).view(-1, 1, 1, 1)
            torch.testing.assert_close(layer.recurrent, sums.expand_as(layer.recurrent))
    assert cache.used_bytes() == sum(cache.config.state_bytes(n, 1, "float32").total for n in lengths)


def excess_bytes(cache: HybridCache, blocks_per_row: list[int]) -> int:
    """How far the cache is above its bound, with so many growth blocks for each row."""
    layers = cache.config.layer_mixers.count("mla")
    blocks = sum(growth_tokens(n) * blocks for n, blocks in zip(cache.lengths_host, blocks_per_row, strict=True))
    return cache.allocated_bytes() - cache.used_bytes() - blocks * layers * (RANK + ROPE) * 4


@given(st.data())
@laws
def test_nobody_sees_what_another_takes_in(data: st.DataObject) -> None:
    """Random appends, forks, restores, reserves, keeps and drops, against lists of tokens."""
    caches = [(HybridCache(narrow(), 2), [[], []])]
    for value in range(1, data.draw(st.integers(1, 12)) + 1):
        at = data.draw(st.integers(0, len(caches) - 1))
        cache, rows = caches[at]
        batch = st.integers(0, len(rows) - 1)
        action = data.draw(
            st.sampled_from(["append", "append", "append", "fork", "restore", "reserve", "keep", "drop"])
        )
        if action == "append":
            counts = data.draw(st.lists(amounts, min_size=len(rows), max_size=len(rows)))
            append(cache, counts, 10 * value)
            caches[at] = (cache, [row + [10 * value] * n for row, n in zip(rows, counts, strict=True)])
        elif action == "fork":
            chosen = data.draw(st.lists(batch, min_size=1, max_size=3))
            caches.append((cache.fork(chosen), [rows[i] for i in chosen]))
        elif action == "restore":
            source = data.draw(st.integers(0, len(caches) - 1))
            cache.restore(caches[source][0])
            caches[at] = (cache, caches[source][1])
        elif action == "reserve":
            cache.reserve(data.draw(amounts))
        elif action == "keep":
            chosen = data.draw(st.lists(batch, min_size=1, max_size=3, unique=True))
            cache.keep(chosen)
            caches[at] = (cache, [rows[i] for i in chosen])
        elif len(caches) > 1:
            del caches[at], cache
        for cache, rows in caches:
            check(cache, rows)


@given(
    steps=st.lists(st.lists(amounts, min_size=3, max_size=3), min_size=1, max_size=12),
    kept=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
)
@laws
def test_at_most_one_growth_block_per_row_is_unused(steps: list[list[int]], kept: list[int]) -> None:
    cache = HybridCache(narrow(), 3)
    for counts in steps:
        append(cache, counts, 1)
        assert excess_bytes(cache, [1, 1, 1]) <= 0
    cache.keep(kept)
    assert excess_bytes(cache, [1] * len(kept)) <= 0
    append(cache, [300] * len(kept), 1)
    assert excess_bytes(cache, [1] * len(kept)) <= 0


@given(before=st.integers(1, 900), more=st.lists(amounts, min_size=1, max_size=6), drop=st.booleans())
@laws
def test_a_fork_adds_at_most_one_growth_block(before: int, more: list[int], drop: bool) -> None:
    cache = HybridCache(narrow(), 1)
    append(cache, [before], 1)
    fork = cache.fork()
    for n in more:
        append(cache, [n], 2)
        append(fork, [n], 3)
    assert excess_bytes(cache, [1]) <= 0
    assert excess_bytes(fork, [2]) <= 0
    if drop:
        del cache
        append(fork, [300], 3)
        assert excess_bytes(fork, [2]) <= 0


@given(before=st.integers(0, 900), rounds=st.lists(amounts, min_size=1, max_size=6))
@laws
def test_restoring_again_and_again_takes_no_more_room(before: int, rounds: list[int]) -> None:
    cache = HybridCache(narrow(), 1)
    append(cache, [before], 1)
    snapshot = cache.snapshot()
    for n in rounds:
        append(cache, [n], 2)
        cache.restore(snapshot)
        check(cache, [[1] * before])
    append(cache, [1], 4)
    at_most = max(before + max(rounds), before + 1) + growth_tokens(before)
    assert cache.allocated_bytes() - cache.config.state_bytes(at_most, 1, "float32").total <= 2 * GRANULE * 16


def test_full_segments_are_shared_not_copied() -> None:
    cache = HybridCache(narrow(("mla",)), 1, capacity=64 * GRANULE)
    append(cache, [64 * GRANULE], 1)
    forks = [cache.fork() for _ in range(4)]
    layers = [c.layers[0] for c in (cache, *forks)]
    assert len({layer.rows()[0][0].data_ptr() for layer in layers if isinstance(layer, LatentState)}) == 1
    append(forks[0], [1], 2)
    assert forks[0].allocated_bytes() - cache.allocated_bytes() == growth_tokens(64 * GRANULE) * 16


def test_a_reserved_cache_is_one_segment_exact_to_a_granule() -> None:
    cache = HybridCache(narrow(("mla",)), 2, capacity=[1000, 10])
    for _ in range(100):
        append(cache, [10, 0], 1)
    layer = cache.layers[0]
    assert isinstance(layer, LatentState)
    assert [len(views) for views in layer.rows()] == [1, 0]
    assert cache.allocated_bytes() == (1024 + 256) * 16
    cache.reserve([24, 200])
    assert cache.allocated_bytes() == (1024 + 256) * 16


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_used_bytes_are_the_closed_form_by_component(architecture: str, dtype: str) -> None:
    config = preset(architecture, "nano")
    cache = HybridCache(config, 3, dtype=getattr(torch, dtype))
    depths = [300, 20, 1]
    cache.fill(depths)
    each = [config.state_bytes(n, 1, dtype) for n in depths]
    used = cache.used_by_component()
    for component in ("latent", "recurrent", "conv", "total"):
        assert getattr(used, component) == sum(getattr(state, component) for state in each)
    assert cache.used_bytes() == used.total <= cache.allocated_bytes()


@given(length=st.integers(0, 1 << 21))
@laws
def test_growth_is_an_eighth_between_its_bounds(length: int) -> None:
    grown = growth_tokens(length)
    assert grown % GRANULE == 0
    assert max(GRANULE, min(length // 8, MAX_GROWTH_TOKENS)) <= grown <= min(MAX_GROWTH_TOKENS, length // 8 + GRANULE)


def test_a_million_tokens_are_appended_without_moving_any() -> None:
    cache = HybridCache(narrow(("mla",)), 1)
    layer = cache.layers[0]
    assert isinstance(layer, LatentState)
    seen: dict[int, int] = {}
    for step in range(16):
        append(cache, [65536], step)
        for number, view in enumerate(layer.rows()[0]):
            assert seen.setdefault(number, view.data_ptr()) == view.data_ptr()
    assert cache.lengths_host == [1 << 20]
    assert excess_bytes(cache, [1]) <= 0


def test_a_step_without_room_elsewhere_fails_before_anything_is_written() -> None:
    cache = HybridCache(narrow(("mla",)), 1)
    cache.begin(1)
    layer = cache.layers[0]
    assert isinstance(layer, LatentState)
    with pytest.raises(ValueError, match="counts for 1 rows"):
        cache.begin([1, 1])


@given(depth=st.lists(st.integers(0, 700), min_size=2, max_size=2), more=amounts)
@laws
def test_fill_reaches_the_depth_with_values_of_unit_size(depth: list[int], more: int) -> None:
    cache, twin = HybridCache(narrow(), 2), HybridCache(narrow(), 2)
    for c in (cache, twin):
        append(c, [5, 3], 7)
        c.fill([5 + depth[0], 3 + depth[1]], seed=3)
        assert c.lengths_host == c.lengths.tolist() == [5 + depth[0], 3 + depth[1]]
    for ours, theirs in zip(cache.layers, twin.layers, strict=True):
        if isinstance(ours, LatentState) and isinstance(theirs, LatentState):
            for n, a, b in zip((5, 3), ours.rows(), theirs.rows(), strict=True):
                filled = torch.cat(a)
                torch.testing.assert_close(filled, torch.cat(b))
                assert bool((filled[:n] >= 7).all())
                fresh = filled[n:]
                assert fresh.numel() < 500 or 0.7 < float(fresh.std()) < 1.3
        elif not isinstance(ours, LatentState):
            assert bool(ours.recurrent.isfinite().all())
            assert float(ours.recurrent.abs().max()) > 0
    append(cache, [more, more], 9)
    with pytest.raises(ValueError, match="deeper"):
        cache.fill(1)


def test_keeping_a_row_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        HybridCache(narrow(), 2).keep([1, 1])


@given(st.data())
@laws
def test_the_table_addresses_every_granule(data: st.DataObject) -> None:
    import ctypes

    cache = HybridCache(narrow(), 2)
    cache.track_addresses()
    for value in range(1, 6):
        action = data.draw(st.sampled_from(["append", "append", "fork", "keep", "reserve"]))
        batch = len(cache.lengths_host)
        if action == "append":
            append(cache, data.draw(st.lists(amounts, min_size=batch, max_size=batch)), value)
        elif action == "fork":
            parent, cache = cache, cache.fork([batch - 1, 0])  # the parent lives on: nothing of it may be claimed
            append(parent, [3] * batch, 99)
        elif action == "keep":
            cache.keep([batch - 1])
        else:
            cache.reserve(data.draw(amounts))
        for layer in cache.layers:
            if not isinstance(layer, LatentState) or not any(cache.lengths_host):
                continue
            for index, views in enumerate(layer.rows()):
                for granule, rows in enumerate(torch.cat([*views, torch.empty(0, 4)]).split(GRANULE)):
                    if len(rows):
                        assert layer.table is not None
                        floats = (ctypes.c_float * rows.numel()).from_address(int(layer.table[index, granule]))
                        assert torch.equal(torch.tensor(list(floats)).view_as(rows), rows)
