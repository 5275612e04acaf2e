"""The measurements themselves: the right work is done, states are put back, and bytes are what the formula says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.backends import peak_memory
from kleval.backends.generation import MANY_STEPS
from kleval.models.config import ARCHITECTURES
from kleval.models.decoder import Decoder
from kleval.models.random import random_decoder
from kleval.models.sizes import preset
from kleval.profiler.bench import attempt
from kleval.profiler.bound import Bound, copy_bandwidth, matmul_rate, native_rate, peak_rate
from kleval.profiler.building import build, shapes, shared_weight_bytes
from kleval.profiler.decode import decode_steps, step_values
from kleval.profiler.footprint import state_footprint
from kleval.profiler.prefill import chunk_seconds, full_seconds, head_seconds, new_cache, random_ids
from kleval.profiler.rates import from_bound, measured
from kleval.types import UsageError

CPU = torch.device("cpu")
SMALL = {"kda_head_dim": 8, "hidden_size": 16, "vocab_size": 32, "intermediate_size": 16, "kv_lora_rank": 8}


def small(architecture: str) -> Decoder:
    from dataclasses import replace

    return random_decoder(replace(preset(architecture, "nano"), **SMALL), CPU, torch.float32, 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_full_prefill_leaves_the_cache_that_any_chunking_leaves(architecture: str) -> None:
    decoder = small(architecture)
    ids = random_ids(decoder, 1, 50, 3)
    told: list[int] = []
    seconds, cache = full_seconds(decoder, ids, 16, told.append)
    assert seconds > 0
    assert told == [16, 32, 48, 50]
    other = new_cache(decoder, 1)
    with torch.no_grad():
        decoder.hidden(ids, other)
        following = [decoder.hidden(ids[:, :1], c) for c in (cache, other)]
    torch.testing.assert_close(following[0], following[1], rtol=1e-3, atol=1e-4)


def test_timing_a_chunk_puts_the_cache_back() -> None:
    decoder = small("kimi-linear")
    cache = new_cache(decoder, 1)
    cache.fill(40, 0)
    ids = random_ids(decoder, 1, 16, 0)
    with torch.no_grad():
        before = decoder.hidden(ids[:, :1], cache.fork())
        assert chunk_seconds(decoder, cache, ids, 3) > 0
        assert cache.lengths_host == [40]
        torch.testing.assert_close(decoder.hidden(ids[:, :1], cache), before)


@pytest.mark.parametrize("batch", [1, 3])
def test_decode_steps_go_from_the_depth_on_one_by_one(batch: int) -> None:
    decoder = small("kimi-linear")
    cache = new_cache(decoder, batch)
    cache.fill(40, 0)
    times, first = decode_steps(decoder, cache, random_ids(decoder, 7, batch, 0), steps=4, dropped=3)
    assert len(times) == 4
    assert cache.lengths_host == [47] * batch
    values = step_values(times, first, 3, 40, batch)
    assert (values["depth_first"], values["depth_last"]) == (43, 46)
    assert values["ms_per_token"] == pytest.approx(values["step_ms_median"] / batch)  # type: ignore[operator]
    assert values["step_ms_median"] <= values["step_ms_p90"] <= values["step_ms_p99"]  # type: ignore[operator]


def test_one_step_and_more_steps_than_go_together_are_timed_one_by_one() -> None:
    decoder = small("kimi-linear")
    for steps in (1, MANY_STEPS + 2):
        cache = new_cache(decoder, 1)
        times, _ = decode_steps(decoder, cache, random_ids(decoder, steps, 1, 0), steps=steps, dropped=0)
        assert (len(times), cache.lengths_host) == (steps, [steps])
        assert min(times) > 0


def test_too_few_ids_are_an_error() -> None:
    decoder = small("mla")
    with pytest.raises(ValueError, match="rows of ids"):
        decode_steps(decoder, new_cache(decoder, 1), random_ids(decoder, 2, 1, 0), steps=4, dropped=3)


@given(st.sampled_from(ARCHITECTURES), st.integers(1, 700))
@settings(max_examples=12, deadline=None)
def test_used_bytes_are_the_closed_form_exactly(architecture: str, ctx: int) -> None:
    decoder = small(architecture)
    values = state_footprint(decoder, ctx, random_ids(decoder, 1, 1, 0), 0)
    closed = decoder.config.state_bytes(ctx, 1, "float32")
    assert (values["latent_bytes"], values["recurrent_bytes"], values["conv_bytes"], values["state_bytes"]) == (
        closed.latent,
        closed.recurrent,
        closed.conv,
        closed.total,
    )
    assert values["weights_bytes"] == decoder.config.weight_bytes("float32")
    assert values["allocated_bytes"] >= closed.total  # type: ignore[operator]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells a process its memory peak")
def test_a_peak_on_a_cpu_is_seen() -> None:
    if not peak_memory.reset_high_water():
        pytest.skip("this process may not reset its memory peak")
    size = 64 << 20
    peak = peak_memory.watch_peak(CPU, lambda: torch.ones(size // 4).sum())
    assert peak.extra_bytes is not None
    assert 0.9 * size <= peak.extra_bytes <= 1.5 * size
    assert peak.peak_bytes is None


def test_where_a_peak_cannot_be_seen_it_is_not_made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peak_memory, "_CLEAR_REFS", tmp_path / "no" / "file")
    assert peak_memory.watch_peak(CPU, lambda: None).extra_bytes is None
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "none")
    assert peak_memory.resident_bytes() is None


def test_bounds_are_rates_of_what_was_done() -> None:
    assert copy_bandwidth(CPU, 1 << 16) > 0
    assert matmul_rate(CPU, torch.float32, 32) > 0
    assert peak_rate(CPU, torch.float32) >= native_rate(32) >= 0
    bound = Bound(bytes_per_second=100.0, flops_per_second=1000.0)
    assert bound.prefill_seconds(500) == 0.5
    assert bound.decode_seconds(flops=100, nbytes=50) == 0.5
    assert bound.decode_seconds(flops=2000, nbytes=50) == 2.0


def test_models_share_what_has_one_name_and_shape() -> None:
    configs = {name: preset(name, "nano") for name in ARCHITECTURES}
    models = build(configs, CPU, torch.float32, 0)
    owned = {p.data_ptr(): p.numel() * p.element_size() for m in models.values() for p in m.parameters()}
    assert sum(owned.values()) == shared_weight_bytes(configs, "float32")
    first, mla = models["kimi-linear"], models["mla"]
    assert first.model.embed_tokens.weight.data_ptr() == mla.model.embed_tokens.weight.data_ptr()
    for name, model in models.items():
        assert [(n, tuple(p.shape)) for n, p in model.named_parameters()] == shapes(configs[name])
        assert sum(p.numel() for p in model.parameters()) == configs[name].parameters()
        assert not any(p.is_meta or p.requires_grad for p in model.parameters())
        hidden = model.hidden(random_ids(model, 1, 8, 0))
        assert torch.isfinite(model.logits(hidden)).all()


def test_models_of_two_sizes_are_built_whole() -> None:
    from dataclasses import replace

    configs = {"a": preset("mla", "nano"), "b": replace(preset("mla", "nano"), **SMALL)}
    models = build(configs, CPU, torch.float32, 0)
    assert {name: m.config for name, m in models.items()} == configs


def test_rates_are_positive_and_the_closed_ones_ordered_like_the_models() -> None:
    decoder = small("kimi-linear")
    rates = measured(decoder, 16, 128, 0)
    assert rates.measured
    assert rates.chunk_seconds > 0
    assert rates.step(1, 0) > 0
    bound = Bound(1e11, 1e13)
    kimi, mla = (
        from_bound(preset(name, "48b-a3b"), bound, 512, "bfloat16", 1 << 20) for name in ("kimi-linear", "mla")
    )
    assert not kimi.measured
    assert kimi.prefill(1 << 20, 512) < mla.prefill(1 << 20, 512)
    assert kimi.step(1, 1 << 20) < mla.step(1, 1 << 20)


def test_head_seconds_are_measured() -> None:
    decoder = small("mla")
    assert head_seconds(decoder, random_ids(decoder, 1, 1, 0)) > 0


def test_an_attempt_tells_memory_from_other_failures_and_lets_users_errors_through() -> None:
    def fail(error: BaseException) -> None:
        raise error

    kinds = [MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("can't allocate memory: 5 bytes")]
    assert [attempt(lambda e=e: fail(e)).failure["kind"] for e in kinds] == ["out_of_memory"] * 3  # type: ignore
    assert attempt(lambda: fail(ValueError("a\nb"))).failure == {  # type: ignore
        "kind": "internal",
        "message": "ValueError: a b",
    }
    with pytest.raises(UsageError):
        attempt(lambda: fail(UsageError("x")))  # type: ignore
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda: fail(KeyboardInterrupt()))  # type: ignore
