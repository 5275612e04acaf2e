"""A cache never changes an answer: not by how a prompt is cut, by what shares its batch, or by being copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.models.cache import HybridCache
from kleval.models.config import ARCHITECTURES
from kleval.models.decoder import Decoder
from kleval.models.sizes import preset

Make = Callable[..., Decoder]
laws = settings(max_examples=6, deadline=None)
VARIANTS = [*((a, False) for a in ARCHITECTURES), ("kimi-linear", True)]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def new_cache(decoder: Decoder, batch: int) -> HybridCache:
    return HybridCache(decoder.config, batch, dtype=torch.float64)


def tokens(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


def in_chunks(decoder: Decoder, ids: torch.Tensor, cuts: list[int], cache: HybridCache) -> torch.Tensor:
    edges = [0, *sorted(c % (ids.shape[1] + 1) for c in cuts), ids.shape[1]]
    parts = [decoder.hidden(ids[:, a:b], cache) for a, b in pairwise(edges)]
    return torch.cat(parts, 1)


@pytest.mark.parametrize(("architecture", "moe"), VARIANTS)
@given(length=st.integers(1, 70), cuts=st.lists(st.integers(0, 1000), max_size=5), seed=st.integers(0, 1000))
@laws
def test_any_chunks_are_one_shot(
    tiny_decoder: Make, architecture: str, moe: bool, length: int, cuts: list[int], seed: int
) -> None:
    decoder, ids = tiny_decoder(architecture, moe), tokens(seed, 2, length)
    close(in_chunks(decoder, ids, cuts, new_cache(decoder, 2)), decoder.hidden(ids))


@pytest.mark.parametrize(("architecture", "moe"), VARIANTS)
def test_token_by_token_is_one_shot(tiny_decoder: Make, architecture: str, moe: bool) -> None:
    decoder, ids = tiny_decoder(architecture, moe), tokens(4, 2, 40)
    close(in_chunks(decoder, ids, list(range(1, 40)), new_cache(decoder, 2)), decoder.hidden(ids))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(
    lengths=st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
@laws
def test_ragged_rows_are_independent(
    tiny_decoder: Make, architecture: str, lengths: list[list[int]], seed: int
) -> None:
    """Three rows fed chunks of different lengths together give what each gives alone, and so does the token after."""
    decoder = tiny_decoder(architecture)
    ids = tokens(seed, 3, 100)
    together, used = new_cache(decoder, 3), [0, 0, 0]
    outputs: list[list[torch.Tensor]] = [[], [], []]
    for chunk in [*lengths, [1, 1, 1]]:
        padded = torch.full((3, max(chunk)), 7)
        for row, n in enumerate(chunk):
            padded[row, :n] = ids[row, used[row] : used[row] + n]
        hidden = decoder.hidden(padded, together, lengths=torch.tensor(chunk))
        for row, n in enumerate(chunk):
            outputs[row].append(hidden[row, :n])
            used[row] += n
    assert together.lengths.tolist() == used
    for row in range(3):
        alone = decoder.hidden(ids[row : row + 1, : used[row]], new_cache(decoder, 1))[0]
        close(torch.cat(outputs[row]), alone)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_without_a_cache_changes_no_real_token(tiny_decoder: Make, architecture: str) -> None:
    decoder, ids = tiny_decoder(architecture), tokens(5, 2, 20)
    padded = decoder.hidden(ids, lengths=torch.tensor([20, 11]))
    close(padded[1, :11], decoder.hidden(ids[1:, :11])[0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fork_then_decode_is_decode(tiny_decoder: Make, architecture: str) -> None:
    decoder, ids = tiny_decoder(architecture), tokens(6, 2, 40)
    cache = new_cache(decoder, 2)
    decoder.hidden(ids[:, :30], cache)
    copy = cache.fork([1, 0, 1])
    expected = decoder.hidden(ids[:, 30:], cache)
    ours = in_chunks(decoder, ids[[1, 0, 1], 30:], [1, 5], copy)
    close(ours, expected[[1, 0, 1]])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_that_are_kept_go_on_as_if_alone(tiny_decoder: Make, architecture: str) -> None:
    decoder, ids = tiny_decoder(architecture), tokens(6, 3, 40)
    cache = new_cache(decoder, 3)
    decoder.hidden(ids[:, :30], cache)
    cache.keep([0, 2])
    close(in_chunks(decoder, ids[[0, 2], 30:], [1, 5], cache), decoder.hidden(ids)[[0, 2], 30:])


def test_a_fork_is_independent(tiny_decoder: Make) -> None:
    decoder, ids = tiny_decoder("kimi-linear"), tokens(7, 1, 40)
    cache = new_cache(decoder, 1)
    decoder.hidden(ids[:, :30], cache)
    copy = cache.fork()
    decoder.hidden(tokens(8, 1, 20), copy)
    assert cache.lengths.tolist() == [30]
    close(decoder.hidden(ids[:, 30:], cache), decoder.hidden(ids)[:, 30:])


def test_restore_goes_back_any_number_of_times(tiny_decoder: Make) -> None:
    decoder, ids = tiny_decoder("kimi-linear"), tokens(9, 1, 40)
    cache = new_cache(decoder, 1)
    decoder.hidden(ids[:, :30], cache)
    snapshot = cache.snapshot()
    for seed in (1, 2):
        decoder.hidden(tokens(seed, 1, 300), cache)
        cache.restore(snapshot)
        assert cache.lengths.tolist() == [30]
    close(decoder.hidden(ids[:, 30:], cache), decoder.hidden(ids)[:, 30:])


def test_long_prefill_keeps_memory_bounded() -> None:
    """4k tokens at nano width in one call: no tensor is [T, T] or [T, C, D]; none is even twice the widest activation."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.untyped_storage().nbytes())
            return out

    config = replace(preset("kimi-linear", "nano", vocab_size=64), layer_mixers=("kda", "mla"))
    decoder = Decoder(config).requires_grad_(False)
    decoder.init_weights(0)
    ids = tokens(3, 1, 4096) % 64
    with Watch():
        decoder.hidden(ids, HybridCache(config, 1))
    bytes_of_the_widest_activation = 4096 * 3 * 128 * 4
    assert largest <= 1.5 * bytes_of_the_widest_activation
