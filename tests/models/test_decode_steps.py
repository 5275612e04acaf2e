"""The decode step on a CPU is the decoder, whatever the batch, the mode and the weights' history."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from kleval.models.cache import HybridCache
from kleval.models.config import ARCHITECTURES
from kleval.models.decoder import Decoder

Make = Callable[..., Decoder]
VARIANTS = [*((a, False) for a in ARCHITECTURES), ("kimi-linear", True), ("gdn-h", True)]


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(0))


def steps(decoder: Decoder, ids: torch.Tensor, prompt: int, cache: HybridCache) -> torch.Tensor:
    decoder.hidden(ids[:, :prompt], cache)
    return torch.cat([decoder.hidden(ids[:, i : i + 1], cache) for i in range(prompt, ids.shape[1])], 1)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("architecture", "moe"), VARIANTS)
def test_steps_are_the_whole(tiny_decoder: Make, architecture: str, moe: bool, batch: int) -> None:
    decoder, ids = tiny_decoder(architecture, moe), tokens(batch, 30)
    cache = HybridCache(decoder.config, batch, dtype=torch.float64)
    close(steps(decoder, ids, 17, cache), decoder.hidden(ids)[:, 17:])


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_shared_experts_of_any_width_take_part(tiny_decoder: Make, shared: int) -> None:
    config = replace(tiny_decoder("kimi-linear", True).config, num_shared_experts=shared)
    decoder, ids = Decoder(config), tokens(1, 12)
    decoder.init_weights(2)
    decoder = decoder.double().requires_grad_(False)
    cache = HybridCache(config, 1, dtype=torch.float64)
    close(steps(decoder, ids, 6, cache), decoder.hidden(ids)[:, 6:])


def test_weights_that_want_gradients_decode_too(tiny_decoder: Make) -> None:
    decoder, ids = copy.deepcopy(tiny_decoder("kimi-linear", True)).requires_grad_(True), tokens(1, 12)
    cache = HybridCache(decoder.config, 1, dtype=torch.float64)
    close(steps(decoder, ids, 6, cache), decoder.hidden(ids)[:, 6:].detach())


def test_a_cache_filled_in_inference_mode_goes_on_outside_of_it(tiny_decoder: Make) -> None:
    decoder, ids = tiny_decoder("kimi-linear"), tokens(1, 12)
    cache = HybridCache(decoder.config, 1, capacity=12, dtype=torch.float64)
    with torch.inference_mode():
        decoder.hidden(ids[:, :6], cache)
    rest = torch.cat([decoder.hidden(ids[:, i : i + 1], cache) for i in range(6, 12)], 1)
    close(rest, decoder.hidden(ids)[:, 6:])


def test_a_copied_decoder_decodes_with_its_own_weights(tiny_decoder: Make) -> None:
    decoder, ids = tiny_decoder("kimi-linear", True), tokens(1, 8)

    def decode(model: Decoder) -> torch.Tensor:
        return steps(model, ids, 4, HybridCache(model.config, 1, dtype=torch.float64))

    before = decode(decoder)
    other = copy.deepcopy(decoder)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    close(decode(other), other.hidden(ids)[:, 4:])
    close(decode(decoder), before)


def test_a_fork_is_not_touched_by_steps_in_place(tiny_decoder: Make) -> None:
    decoder, ids = tiny_decoder("gdn-h"), tokens(1, 12)
    cache = HybridCache(decoder.config, 1, dtype=torch.float64)
    decoder.hidden(ids[:, :6], cache)
    fork = cache.fork()
    first = decoder.hidden(ids[:, 6:7], cache)
    decoder.hidden(ids[:, 7:8], cache)
    close(decoder.hidden(ids[:, 6:7], fork), first)


def test_low_precision_steps_stay_close(tiny_decoder: Make) -> None:
    exact, ids = tiny_decoder("kimi-linear", True), tokens(2, 12)
    decoder = copy.deepcopy(exact).bfloat16()
    for name, parameter in decoder.named_parameters():
        if name.endswith(("A_log", "dt_bias", "e_score_correction_bias")):
            parameter.data = parameter.data.float()
    cache = HybridCache(decoder.config, 2, dtype=torch.bfloat16)
    out = steps(decoder, ids, 6, cache)
    assert out.dtype == torch.bfloat16
    expected = exact.hidden(ids)[:, 6:]
    assert float((out - expected).abs().mean()) < 0.1 * float(expected.abs().mean())


@pytest.mark.parametrize("change", ["write", "replace", "load", "cast"])
def test_changed_weights_are_seen(tiny_decoder: Make, change: str) -> None:
    decoder, other = copy.deepcopy(tiny_decoder("kimi-linear", True)), tiny_decoder("kimi-linear", True)
    ids = tokens(1, 8)

    def decode(model: Decoder) -> torch.Tensor:
        dtype = model.model.embed_tokens.weight.dtype
        return steps(model, ids, 4, HybridCache(model.config, 1, dtype=dtype))

    before = decode(decoder)
    state = {name: p * 1.5 for name, p in other.state_dict().items()}
    if change == "write":
        with torch.no_grad():
            for name, p in decoder.named_parameters():
                p.copy_(state[name])
    elif change == "replace":
        decoder.load_state_dict(state, assign=True)
        decoder.requires_grad_(False)
    elif change == "load":
        decoder.load_state_dict(state)
    else:
        decoder = decoder.float()
        torch.testing.assert_close(decode(decoder).double(), before, rtol=1e-3, atol=1e-4)
        return
    fresh = Decoder(decoder.config).double().requires_grad_(False)
    fresh.load_state_dict(state)
    after = decode(decoder)
    close(after, decode(fresh))
    assert float((after - before).abs().max()) > 1e-3
